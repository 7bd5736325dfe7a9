"""Links with a row, and what was downloaded, in the catalogue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from mediasvc.catalogue import statements
from mediasvc.catalogue.archives import ArchiveWrites
from mediasvc.catalogue.interface import Gone
from mediasvc.catalogue.tables import asset, link
from mediasvc.core.link import Link
from mediasvc.core.tally import Tally


class LinkWrites(ArchiveWrites):
    """The part of `catalogue.interface.Transaction` about links, and archives, which end with them."""

    _clock: Callable[[], float]

    async def add_link(self, new: Link) -> None:
        if not await self._writer.rows(sa.select(asset.c.id).where(asset.c.id == new.asset_id)):
            raise Gone(f"asset {new.asset_id} is gone")
        await self._insert(link, asdict(new), f"link {new.id} exists")

    async def begin_download(self, link_id: str) -> None:
        # One statement: of two downloads that want the last one, one gets it.
        await self._exactly_one(
            sa.update(link)
            .where(
                link.c.id == link_id, link.c.begun < link.c.max_downloads, link.c.expires_at > self._clock()
            )
            .values(begun=link.c.begun + 1),
            f"link {link_id}",
        )

    async def drop_links(self, link_ids: Sequence[str]) -> int:
        return await self._writer.change(sa.delete(link).where(link.c.id.in_(link_ids)))

    async def end_links(self, asset_id: str) -> None:
        await self._exactly_one(
            sa.update(asset).where(asset.c.id == asset_id).values(link_epoch=asset.c.link_epoch + 1),
            f"asset {asset_id}",
        )
        await self._writer.change(sa.delete(link).where(link.c.asset_id == asset_id))
        await self._end_archives(asset_id)

    async def count_downloads(self, assets: Mapping[str, Tally], links: Mapping[str, Tally]) -> int:
        missing = 0
        for counting, tallies in ((statements.COUNT_ASSET, assets), (statements.COUNT_LINK, links)):
            # In order of id: two who count the same rows never wait for each other in a circle.
            values = [
                {"counted": name, "count": tally.count, "sent": tally.bytes, "returned": tally.returned}
                for name, tally in sorted(tallies.items())
            ]
            if values:
                missing += len(values) - await self._writer.change(counting, values)
        return missing
