"""What every catalogue promises about archives: what goes in is fixed, found by its place, and ends as one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.archive import Archive, Member
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.ids import new_archive_id, new_asset_id, new_blob_id
from mediasvc.core.span import Span
from mediasvc.core.zip64 import Measure

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600.0, 86400.0


def an_asset(key: str, *, bucket: str = "media", expires_at: float | None = None) -> Asset:
    blob = Blob(new_blob_id(), 10, "ab" * 32, 0xFFFFFFFF)
    return Asset(
        new_asset_id(), bucket, key, f"name of {key}", blob, "image/png", "ready", 1.5, 2, expires_at=expires_at
    )  # fmt: skip


async def add(catalogue: Catalogue, *assets: Asset) -> Sequence[Asset]:
    async with catalogue.transaction() as tx:
        for bucket in {asset.bucket for asset in assets}:
            if await tx.bucket(bucket) is None:
                await tx.add_bucket(Bucket(bucket, 1.0, public=bucket == "public"))
        for asset in assets:
            await tx.add_asset(asset)
    return assets


async def begin(catalogue: Catalogue, clock: Any, *assets: Asset) -> tuple[Archive, list[Member]]:
    measure = Measure()
    members = [
        Member(
            measure.place(asset.key, asset.blob.size, asset.blob.crc32, asset.modified_at),
            asset.id,
            asset.blob.id,
        )
        for asset in assets
    ]
    archive = Archive(new_archive_id(), clock.now, clock.now + HOUR, "a.zip", measure.layout())
    async with catalogue.transaction() as tx:
        await tx.add_archive(archive)
    return archive, members


async def make(catalogue: Catalogue, clock: Any, *assets: Asset) -> tuple[Archive, list[Member]]:
    archive, members = await begin(catalogue, clock, *assets)
    async with catalogue.transaction() as tx:
        await tx.add_members(archive.id, members)
        await tx.finish_archive(archive.id)
    return archive, members


async def test_originals_come_with_what_an_archive_needs(catalogue: Catalogue, clock: Any) -> None:
    here, there = an_asset("b"), an_asset("a", bucket="public", expires_at=clock.now + 1)
    gone = an_asset("gone", expires_at=clock.now)
    await add(catalogue, here, there, gone)
    found = await catalogue.originals([here.id, there.id, gone.id, new_asset_id()])
    assert [(one.asset_id, one.bucket, one.key, one.name, one.public) for one in found] == [
        (there.id, "public", "a", "name of a", True),
        (here.id, "media", "b", "name of b", False),
    ]
    first = found[0]
    assert (first.blob_id, first.size, first.crc32, first.modified_at, first.expires_at) == (
        there.blob.id, 10, 0xFFFFFFFF, 2, clock.now + 1
    )  # fmt: skip


async def test_originals_under_a_prefix_come_in_pages(catalogue: Catalogue) -> None:
    await add(catalogue, *(an_asset(key) for key in ("a", "b/1", "b/2", "b/3", "b0", "c")))
    await add(catalogue, an_asset("b/4", bucket="other"))
    page = await catalogue.originals_under("media", "b/", None, 2)
    assert [one.key for one in page] == ["b/1", "b/2"]
    assert [one.key for one in await catalogue.originals_under("media", "b/", "b/2", 2)] == ["b/3"]
    assert len(await catalogue.originals_under("media", "", None, 100)) == 6


async def test_an_archive_is_there_once_it_is_finished(catalogue: Catalogue, clock: Any) -> None:
    archive, members = await begin(catalogue, clock, *await add(catalogue, an_asset("a")))
    async with catalogue.transaction() as tx:
        await tx.add_members(archive.id, members)
    assert await catalogue.archive(archive.id) is None
    async with catalogue.transaction() as tx:
        await tx.finish_archive(archive.id)
    assert await catalogue.archive(archive.id) == archive
    assert await catalogue.members(archive.id, Span(0, archive.layout.size), 9) == members
    assert await catalogue.archive(new_archive_id()) is None
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.finish_archive(archive.id)


async def test_entries_are_found_by_their_place(catalogue: Catalogue, clock: Any) -> None:
    assets = await add(catalogue, *(an_asset(f"k{number}") for number in range(5)))
    archive, members = await make(catalogue, clock, *assets)
    starts = [member.entry.start for member in members]
    lines = [member.entry.listed for member in members]

    async def found(start: int, stop: int, limit: int = 9, *, listed: bool = False) -> list[int]:
        page = await catalogue.members(archive.id, Span(start, stop), limit, listed=listed)
        return [members.index(member) for member in page]

    assert await found(0, 1) == [0]
    assert await found(starts[2], starts[2] + 1) == [2]
    assert await found(starts[2] - 1, starts[3] + 1) == [1, 2, 3]
    assert await found(starts[1], archive.layout.size, limit=2) == [1, 2]
    assert await found(archive.layout.size - 1, archive.layout.size) == [4]
    assert await found(lines[1] + 1, lines[3], listed=True) == [1, 2]
    assert await catalogue.members(new_archive_id(), Span(0, 9), 9) == []


async def _replace(catalogue: Catalogue, asset: Asset, _: Any) -> None:
    async with catalogue.transaction() as tx:
        await tx.replace_asset(replace(asset, version=2, blob=Blob(new_blob_id(), 3, "cd" * 32, 8)))


async def _delete(catalogue: Catalogue, asset: Asset, _: Any) -> None:
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)


async def _end_links(catalogue: Catalogue, asset: Asset, _: Any) -> None:
    async with catalogue.transaction() as tx:
        await tx.end_links(asset.id)


async def _shorten(catalogue: Catalogue, asset: Asset, clock: Any) -> None:
    async with catalogue.transaction() as tx:
        await tx.save_asset(replace(asset, expires_at=clock.now + 1))


@pytest.mark.parametrize("happen", [_replace, _delete, _end_links], ids=["replaced", "deleted", "revoked"])
async def test_an_archive_ends_with_the_first_of_its_assets(
    catalogue: Catalogue, clock: Any, happen: Any
) -> None:
    one, other = await add(catalogue, an_asset("a"), an_asset("b"))
    both, _ = await make(catalogue, clock, one, other)
    alone, _ = await make(catalogue, clock, other)
    await happen(catalogue, one, clock)
    assert await catalogue.archive(both.id) is None
    assert await catalogue.archive(alone.id) == alone


async def test_an_archive_ends_no_later_than_its_assets(catalogue: Catalogue, clock: Any) -> None:
    (asset,) = await add(catalogue, an_asset("a"))
    archive, _ = await make(catalogue, clock, asset)
    await _shorten(catalogue, asset, clock)
    assert await catalogue.archive(archive.id) == replace(archive, expires_at=clock.now + 1)
    async with catalogue.transaction() as tx:
        await tx.save_asset(replace(asset, expires_at=clock.now + DAY))
    assert await catalogue.archive(archive.id) == replace(archive, expires_at=clock.now + 1)


@pytest.mark.parametrize("happen", [_replace, _delete, _shorten], ids=["replaced", "deleted", "shortened"])
async def test_an_asset_that_changed_before_it_was_added_stops_the_making(
    catalogue: Catalogue, clock: Any, happen: Any
) -> None:
    one, other = await add(catalogue, an_asset("a"), an_asset("b"))
    archive, members = await begin(catalogue, clock, one, other)
    await happen(catalogue, other, clock)
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.add_members(archive.id, members)
    assert await catalogue.members(archive.id, Span(0, 9), 9) == []


async def test_an_asset_that_changes_after_it_was_added_stops_the_making(
    catalogue: Catalogue, clock: Any
) -> None:
    one, other = await add(catalogue, an_asset("a"), an_asset("b"))
    archive, members = await begin(catalogue, clock, one, other)
    async with catalogue.transaction() as tx:
        await tx.add_members(archive.id, members[:1])
    await _delete(catalogue, one, clock)
    for finish in (
        lambda tx: tx.add_members(archive.id, members[1:]),
        lambda tx: tx.finish_archive(archive.id),
    ):
        with pytest.raises(Gone):
            async with catalogue.transaction() as tx:
                await finish(tx)


async def test_what_is_stale_is_found(catalogue: Catalogue, clock: Any) -> None:
    one, other = await add(catalogue, an_asset("a"), an_asset("b"))
    ready, _ = await make(catalogue, clock, one)
    making, _ = await begin(catalogue, clock, one)
    ended, _ = await make(catalogue, clock, other)
    assert await catalogue.stale_archives(clock.now, 9) == []
    await _delete(catalogue, other, clock)
    assert await catalogue.stale_archives(clock.now, 9) == [ended.id]
    assert set(await catalogue.stale_archives(clock.now + HOUR, 9)) == {ended.id, making.id}
    assert ready.id not in await catalogue.stale_archives(clock.now + DAY, 9)  # downloads may go on
    assert set(await catalogue.stale_archives(clock.now + HOUR + DAY, 9)) == {ended.id, making.id, ready.id}


async def test_an_archive_is_dropped_in_parts_and_is_none_from_the_first(
    catalogue: Catalogue, clock: Any
) -> None:
    assets = await add(catalogue, *(an_asset(f"k{number}") for number in range(5)))
    archive, members = await make(catalogue, clock, *assets)
    beside, others = await make(catalogue, clock, *assets)
    for left, done in ((members[2:], False), (members[4:], False), ([], True), ([], True)):
        async with catalogue.transaction() as tx:
            assert await tx.drop_archive(archive.id, 2) is done
        assert await catalogue.archive(archive.id) is None
        everything = Span(members[0].entry.start, archive.layout.size)
        page = await catalogue.members(archive.id, replace(everything, start=archive.layout.size - 1), 9)
        assert page == left[-1:]
    assert await catalogue.stale_archives(clock.now + 9 * DAY, 9) == [beside.id]
    assert await catalogue.members(beside.id, Span(0, beside.layout.size), 9) == others
