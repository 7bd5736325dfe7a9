"""Making an archive: which assets go in, under which names, where each of their bytes will stand."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

from mediasvc.catalogue.interface import Catalogue, Gone, Original
from mediasvc.core.access import Caller
from mediasvc.core.archive import MAX_ENTRIES, Archive, Member, Names, safe_path
from mediasvc.core.errors import BadRequest, Conflict, NotFound, TooLarge
from mediasvc.core.filenames import safe_name
from mediasvc.core.ids import new_archive_id, well_formed
from mediasvc.core.zip64 import Measure

T = TypeVar("T")

_PAGE = 500  # assets read, and entries written, at once: nobody waits long for our turn to end
_NAMED = 10  # ids in a message

Chosen = tuple[Original, str]  # an asset, and the path it would have in the archive


async def choose(catalogue: Catalogue, caller: Caller, asset_ids: Iterable[str]) -> list[Chosen]:
    """These assets, each under its name. Raises NotFound naming those that the caller may not see."""
    wanted = list(dict.fromkeys(asset_ids))
    _check_count(len(wanted))
    found: dict[str, Original] = {}
    for ids in _pages([asset_id for asset_id in wanted if well_formed("ast", asset_id)]):
        for original in await catalogue.originals(ids):
            if original.public or caller.sees(original.bucket, original.key):
                found[original.asset_id] = original
    if missing := [asset_id[:64] for asset_id in wanted if asset_id not in found]:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise NotFound(f"there is no asset {', '.join(missing[:_NAMED])}{more}")
    return [(found[asset_id], safe_path(found[asset_id].name)) async for asset_id in _in_turns(wanted)]


async def choose_under(catalogue: Catalogue, caller: Caller, bucket: str, prefix: str) -> list[Chosen]:
    """What of a bucket begins with the prefix, in the folders that the keys name after it.

    Raises NotFound where the caller may not see the bucket.
    """
    if not caller.sees_bucket(bucket) or await catalogue.bucket(bucket) is None:
        raise NotFound(f"there is no bucket {bucket[:64]!r}")
    folder = prefix[: prefix.rfind("/") + 1]
    within = max(prefix, caller.prefix, key=len)
    if not (within.startswith(prefix) and within.startswith(caller.prefix)):
        return []
    chosen: list[Chosen] = []
    after: str | None = None
    while page := await catalogue.originals_under(bucket, within, after, _PAGE):
        after = page[-1].key
        chosen += [(original, safe_path(original.key[len(folder) :])) for original in page]
        _check_count(len(chosen))
    return chosen


async def pack(
    catalogue: Catalogue, chosen: Sequence[Chosen], name: str, now: float, expires_at: float
) -> Archive:
    """Fix what the archive is made of: these versions of these assets, until one of them goes.

    It lives no longer than any of them, and not after `expires_at`. `name` comes with or without `.zip`. Raises
    BadRequest for nothing at all, Conflict where an asset changes meanwhile.
    """
    if not chosen:
        raise BadRequest("no asset is chosen: name some, or a bucket and prefix under which there are some")
    ends = [original.expires_at for original, _ in chosen if original.expires_at is not None]
    names, measure = Names(), Measure()
    async for _, path in _in_turns(chosen):
        names.expect(path)
    members = [
        Member(
            measure.place(names.take(path), original.size, original.crc32, original.modified_at),
            original.asset_id,
            original.blob_id,
        )
        async for original, path in _in_turns(chosen)
    ]
    archive = Archive(
        id=new_archive_id(),
        created_at=now,
        expires_at=math.floor(min([expires_at, *ends])),
        name=_file_name(name),
        layout=measure.layout(),
    )
    try:
        async with catalogue.transaction() as tx:
            await tx.add_archive(archive)
        for page in _pages(members):
            async with catalogue.transaction() as tx:
                await tx.add_members(archive.id, page)
        async with catalogue.transaction() as tx:
            await tx.finish_archive(archive.id)
    except Gone:
        raise Conflict("one of the assets was deleted, replaced or changed meanwhile; ask again") from None
    return archive


def _file_name(name: str) -> str:
    stem = safe_name(name)
    if stem.lower().endswith(".zip"):
        stem = stem[: -len(".zip")]
    return safe_name((stem.rstrip(". ") or "archive") + ".zip")


def _check_count(count: int) -> None:
    if count > MAX_ENTRIES:
        raise TooLarge(
            f"an archive holds at most {MAX_ENTRIES} assets: choose fewer",
            limit=MAX_ENTRIES,
            limit_source="server",
        )


def _pages(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[at : at + _PAGE] for at in range(0, len(items), _PAGE))


async def _in_turns(items: Sequence[T]) -> AsyncIterator[T]:
    """The items, with a turn for everybody else between pages."""
    for page in _pages(items):
        for item in page:
            yield item
        await asyncio.sleep(0)
