"""What every store promises of blobs that grow."""

import asyncio
import json
import os
import subprocess
import sys
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from mediasvc.core.errors import TooLarge
from mediasvc.core.ids import new_blob_id
from mediasvc.store.digests import Digests
from mediasvc.store.interface import BlobMissing, BlobStore, Growing, Lost, Stored
from mediasvc.store.parts import SMALLEST, Sequel
from tests.contracts import endless_append
from tests.contracts.stores import NewStore, new_store
from tests.contracts.test_store import (
    KIB,
    MIB,
    Broken,
    body,
    breaking,
    content,
    everything,
    read,
    with_store,
)
from tests.store.in_flight import InFlight

__all__ = ["new_store"]

ENDLESS_APPEND = Path(__file__).with_name("endless_append.py")
ROOT = Path(__file__).parents[2]


def nobody(data: memoryview) -> None:
    """Takes no digest."""


async def append(
    store: BlobStore,
    growing: Growing,
    pieces: AsyncIterable[bytes | memoryview],
    feed: Callable[[memoryview], None] = nobody,
    *,
    length: int | None = None,
) -> Growing:
    """What was yielded last, as it comes back from where it was saved."""
    saved = None
    async with aclosing(store.resumable.append(growing, pieces, feed, length=length)) as kept:
        async for value in kept:
            assert value.size >= (saved or growing).size
            saved = value
    assert saved is not None
    return as_saved(saved)


def as_saved(growing: Growing) -> Growing:
    return replace(growing, notes=json.loads(json.dumps(dict(growing.notes))))


async def append_broken(store: BlobStore, growing: Growing, data: bytes) -> Growing:
    kept: list[Growing] = []

    async def appending() -> None:
        async for value in store.resumable.append(growing, breaking(data, Broken()), nobody):
            kept.append(value)

    with pytest.raises(Broken):
        await appending()
    return as_saved(kept[-1])


ODD = [1, 700, MIB, 2 * MIB, 5 * MIB + 3, 0, 8 * MIB - 1, 9 * MIB, 1, 17 * MIB + 5]


@pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
def test_what_was_appended_piece_by_piece_comes_back_as_it_was(new_store: NewStore, known: bool) -> None:
    async def story(store: BlobStore) -> None:
        data, digests, growing = content(sum(ODD)), Digests(), Growing(new_blob_id())
        for size in ODD:
            piece = data[growing.size : growing.size + size]
            growing = await append(
                store, growing, body(piece), digests.update, length=len(data) if known else None
            )
            assert growing.size == digests.size
            assert await everything(store) == ([], [growing.blob_id])
            with pytest.raises(BlobMissing):
                await store.stat(growing.blob_id)
        await store.resumable.sync(growing)
        stored = await store.resumable.finish(growing)
        assert stored == Stored(growing.blob_id, len(data)) == await store.stat(growing.blob_id)
        assert await read(store, growing.blob_id) == data
        assert digests.crc32 == zlib.crc32(data)
        assert await everything(store) == ([growing.blob_id], [])
        await store.delete(growing.blob_id)
        assert await everything(store) == ([], [])

    with_store(new_store, story)


WHOLE = {
    "less than a part": 3 * MIB,
    "one part": SMALLEST,
    "a part and a byte": SMALLEST + 1,
    "three parts and more": 3 * SMALLEST + 100 * KIB,
    "four parts": 4 * SMALLEST,
}


@pytest.mark.parametrize("size", WHOLE.values(), ids=WHOLE)
def test_one_append_is_enough(new_store: NewStore, size: int) -> None:
    async def story(store: BlobStore) -> None:
        growing = await append(store, Growing(new_blob_id()), body(content(size)), length=size)
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == content(size)
        assert await everything(store) == ([growing.blob_id], [])

    with_store(new_store, story)


@pytest.mark.parametrize("appended", [True, False], ids=["an empty append", "no append"])
def test_an_empty_blob_is_a_blob(new_store: NewStore, appended: bool) -> None:
    async def story(store: BlobStore) -> None:
        growing = Growing(new_blob_id())
        assert await store.resumable.found(growing, all_of_it=True) == growing
        if appended:
            growing = await append(store, growing, body(b""), length=0)
        await store.resumable.sync(growing)
        for _ in range(2):
            assert await store.resumable.finish(growing) == Stored(growing.blob_id, 0)
        assert await read(store, growing.blob_id) == b""
        assert await everything(store) == ([growing.blob_id], [])
        assert (await store.resumable.found(growing, all_of_it=False)).size == 0

    with_store(new_store, story)


def test_many_small_appends_grow_together(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        data, growing = content(19 * MIB), Growing(new_blob_id())
        for at in range(0, len(data), MIB):
            growing = await append(store, growing, body(data[at : at + MIB]))
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == data

    with_store(new_store, story)


BREAKS = {"at once": 0, "before a slab is full": 100 * KIB + 1, "in the second part": 9 * MIB + 5}


@pytest.mark.parametrize("size", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("before", [0, 3 * MIB + 1], ids=["first", "a later one"])
def test_of_a_body_that_breaks_all_that_came_is_kept(new_store: NewStore, before: int, size: int) -> None:
    async def story(store: BlobStore) -> None:
        data = content(before + size + 2 * MIB)
        growing = await append(store, Growing(new_blob_id()), body(data[:before]))
        growing = await append_broken(store, growing, data[before : before + size])
        assert growing.size == before + size
        assert await store.resumable.found(growing, all_of_it=False) == growing
        growing = await append(store, growing, body(data[growing.size :]))
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == data

    with_store(new_store, story)


UNCOUNTED = {"a little": 300 * KIB, "a part": 7 * MIB, "parts": 30 * MIB}


@pytest.mark.parametrize("size", UNCOUNTED.values(), ids=UNCOUNTED)
@pytest.mark.parametrize("before", [0, 2 * MIB + 1, 11 * MIB], ids=["nothing", "a tail", "a part and a tail"])
def test_an_append_that_nobody_counted_is_overwritten(new_store: NewStore, before: int, size: int) -> None:
    async def story(store: BlobStore) -> None:
        data = content(before + 3 * MIB + size)
        counted = await append(store, Growing(new_blob_id()), body(data[:before]))
        await append(store, counted, body(b"\xff" * size))
        assert await store.resumable.found(counted, all_of_it=False) == counted
        growing = await append(store, counted, body(data[before : before + 3 * MIB]))
        found = await store.resumable.found(growing, all_of_it=True)
        assert found.size == growing.size, "what was there before this append never counts again"
        growing = await append(store, growing, body(data[growing.size :]))
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == data
        assert await everything(store) == ([growing.blob_id], [])

    with_store(new_store, story)


def test_what_nobody_counted_takes_nothing_with_it(new_store: NewStore) -> None:
    """However often appends come to nothing, or bring nothing."""

    async def story(store: BlobStore) -> None:
        data = content(3 * MIB)
        growing = await append(store, Growing(new_blob_id()), body(data[:MIB]))
        growing = await append(store, growing, body(data[MIB : 2 * MIB]))
        for size in (0, 1, 0, 20 * MIB, 0, 9 * MIB, 1):
            growing = await append(store, growing, body(b""))
            await append(store, growing, body(b"\xff" * size))
            assert await store.resumable.found(growing, all_of_it=False) == growing
        growing = await append(store, growing, body(data[2 * MIB :]))
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == data

    with_store(new_store, story)


def test_a_blob_shorter_than_what_nobody_counted_is_itself_or_lost(new_store: NewStore) -> None:
    """Ceph completes a multipart upload only with all the parts it was sent, and there is no way to remove one."""

    async def story(store: BlobStore) -> None:
        data = content(12 * MIB)
        counted = await append(store, Growing(new_blob_id()), body(data[: 9 * MIB]))
        await append(store, counted, body(b"\xff" * 30 * MIB))
        growing = await append(store, counted, body(data[9 * MIB :]))
        try:
            await store.resumable.finish(growing)
        except Lost:
            assert store.files is None
            with pytest.raises(BlobMissing):
                await store.stat(growing.blob_id)
        else:
            assert await read(store, growing.blob_id) == data
        await store.discard(growing.blob_id)
        assert await everything(store) == ([], [])

    with_store(new_store, story)


def test_an_append_that_dies_at_once_still_buries_the_one_before(new_store: NewStore) -> None:
    """Of two appends at the same place the bytes of the first never count as those of the second."""

    async def story(store: BlobStore) -> None:
        counted = await append(store, Growing(new_blob_id()), body(content(9 * MIB)))
        await append(store, counted, body(b"\xff" * 20 * MIB))
        async with aclosing(store.resumable.append(counted, body(b""), nobody)) as kept:
            assert (await anext(kept)).size == counted.size
        assert (await store.resumable.found(counted, all_of_it=True)).size == counted.size

    with_store(new_store, story)


def test_what_nobody_saved_is_found_where_it_may_count(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        data = content(33 * MIB)
        counted = await append(store, Growing(new_blob_id()), body(data[: 9 * MIB]))
        await append(store, counted, body(data[9 * MIB :]))
        found = as_saved(await store.resumable.found(counted, all_of_it=True))
        assert 32 * MIB <= found.size <= 33 * MIB
        growing = await append(store, found, body(data[found.size :]))
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == data

    with_store(new_store, story)


def test_a_killed_process_loses_at_most_16_mib_of_what_came(new_store: NewStore, tmp_path: Path) -> None:
    blob_id, saved = new_blob_id(), tmp_path / "saved"
    command = [sys.executable, ENDLESS_APPEND, new_store.address, blob_id, saved]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
        assert child.stdout is not None
        came = 0
        while came < 50 * MIB:
            came = int(child.stdout.readline())
        child.kill()
        lines = [line for line in child.stdout.read().splitlines() if line]
        came = max([came, *map(int, lines[:-1])])

    async def story(store: BlobStore) -> None:
        growing = Growing(blob_id)
        if saved.exists():
            size, notes = json.loads(saved.read_text().splitlines()[-1])
            growing = Growing(blob_id, size, notes)
        assert await store.resumable.found(growing, all_of_it=False) == growing
        found = as_saved(await store.resumable.found(growing, all_of_it=True))
        assert found.size >= came - 16 * MIB
        data = endless_append.content(found.size + 5 * MIB)
        found = await append(store, found, body(data[found.size :]))
        await store.resumable.finish(found)
        assert await read(store, blob_id) == data
        assert await everything(store) == ([blob_id], [])

    with_store(new_store, story)


def test_a_cancelled_append_keeps_what_was_yielded(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        arrived, kept = asyncio.Event(), [Growing(new_blob_id())]
        data = content(25 * MIB)

        async def stalling() -> AsyncIterator[bytes]:
            async for chunk in body(data):
                yield chunk
            arrived.set()
            await asyncio.Event().wait()

        async def appending() -> None:
            async for value in store.resumable.append(kept[0], stalling(), nobody):
                kept.append(value)

        task = asyncio.create_task(appending())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        growing = as_saved(kept[-1])
        assert await store.resumable.found(growing, all_of_it=False) == growing
        growing = await append(store, growing, body(data[growing.size :]))
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == data

    with_store(new_store, story)


@pytest.mark.parametrize("size", [3 * MIB, 19 * MIB], ids=["a tail", "parts"])
@pytest.mark.parametrize("all_of_it", [True, False])
def test_fewer_bytes_than_were_promised_are_lost(new_store: NewStore, size: int, all_of_it: bool) -> None:
    async def story(store: BlobStore) -> None:
        growing = await append(store, Growing(new_blob_id()), body(content(size)))
        await store.discard(growing.blob_id)
        with pytest.raises(Lost):
            await store.resumable.found(growing, all_of_it=all_of_it)
        with pytest.raises(Lost):
            await store.resumable.finish(growing)
        with pytest.raises(Lost):
            await append(store, growing, body(b"more"))
        assert await everything(store) == ([], [])

    with_store(new_store, story)


@pytest.mark.parametrize("size", [3 * MIB, 8 * MIB, 19 * MIB], ids=["a tail", "a part", "parts and a tail"])
def test_finish_may_be_repeated(new_store: NewStore, size: int) -> None:
    """By a server that died after the blob was whole and before it could write that down."""

    async def story(store: BlobStore) -> None:
        growing = await append(store, Growing(new_blob_id()), body(content(size)))
        for _ in range(3):
            assert await store.resumable.finish(growing) == Stored(growing.blob_id, size)
        for all_of_it in (True, False):
            assert (await store.resumable.found(growing, all_of_it=all_of_it)).size == size
        await store.resumable.sync(growing)
        assert await read(store, growing.blob_id) == content(size)
        assert await everything(store) == ([growing.blob_id], [])
        with pytest.raises(Lost):
            await store.resumable.finish(replace(growing, size=size + 1))

    with_store(new_store, story)


@pytest.mark.parametrize("size", [0, 3 * MIB, 8 * MIB, 19 * MIB], ids=["nothing", "a tail", "a part", "both"])
def test_what_grew_is_discarded_whole(new_store: NewStore, size: int) -> None:
    async def story(store: BlobStore) -> None:
        other = new_blob_id()
        await store.put(other, body(b"bystander"), Digests())
        neighbour = await append(store, Growing(new_blob_id()), body(content(MIB)))
        growing = await append(store, Growing(new_blob_id()), body(content(size)))
        growing = await append_broken(store, growing, content(2 * MIB))
        whole, unfinished = await everything(store)
        assert (whole, sorted(unfinished)) == ([other], sorted([neighbour.blob_id, growing.blob_id]))
        await store.discard(growing.blob_id)
        assert await everything(store) == ([other], [neighbour.blob_id])
        await store.resumable.finish(neighbour)
        assert await read(store, neighbour.blob_id) == content(MIB)

    with_store(new_store, story)


def test_what_was_superseded_does_not_stay(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        growing = await append(store, Growing(new_blob_id()), body(content(MIB)))
        for _ in range(5):
            growing = await append(store, growing, body(content(100 * KIB)))
        assert await _objects(store) in (None, 2), "the tail, and the one before"

    with_store(new_store, story)


async def _objects(store: BlobStore) -> int | None:
    """How many objects a bucket holds; None: it is none."""
    client = getattr(store, "_client", None)
    if client is None:
        return None
    return len((await client.ask("list_objects_v2")).get("Contents", ()))


def test_appends_at_the_same_time_do_not_mix(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        blobs = {new_blob_id(): content(12 * MIB + number)[number:] for number in range(6)}

        async def grow(blob_id: str, data: bytes) -> None:
            growing = Growing(blob_id)
            for at in range(0, len(data), 5 * MIB):
                growing = await append(store, growing, body(data[at : at + 5 * MIB]))
            await store.resumable.finish(growing)

        await asyncio.gather(*(grow(*blob) for blob in blobs.items()))
        for blob_id, data in blobs.items():
            assert await read(store, blob_id) == data

    with_store(new_store, story)


def test_memory_of_parallel_appends_is_bounded(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 24 MiB, of which four fit into what may be sent at a time."""
    in_flight = InFlight(monkeypatch)
    length = 24 * MIB * 10_000  # declared, to have large parts; the bodies are shorter

    async def story(store: BlobStore) -> None:
        appends = [
            append(store, Growing(new_blob_id()), body(content(30 * MIB)), length=length) for _ in range(8)
        ]
        for growing in await asyncio.gather(*appends):
            assert growing.size == 30 * MIB
        if store.files is None:
            assert 24 * MIB <= in_flight.most <= 96 * MIB

    with_store(new_store, story)


def test_of_large_parts_never_more_than_16_mib_are_unsaved(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        if store.files is not None:
            return  # its file says how much there is
        came, kept, largest = 0, Growing(new_blob_id()), 0
        data = content(60 * MIB)

        async def counted() -> AsyncIterator[bytes]:
            nonlocal came, largest
            async for chunk in body(data):
                largest = max(largest, came - kept.size)
                came += len(chunk)
                yield chunk

        async for value in store.resumable.append(kept, counted(), nobody, length=24 * MIB * 10_000):
            kept = value
        assert largest <= 10 * MIB
        await store.resumable.finish(as_saved(kept))
        assert await read(store, kept.blob_id) == data

    with_store(new_store, story)


def test_what_the_store_can_never_keep_is_too_large(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sequel, "edge", property(lambda sequel: 20 * MIB))

    async def story(store: BlobStore) -> None:
        if store.files is not None:
            return  # a disk is full first
        growing = await append(store, Growing(new_blob_id()), body(content(20 * MIB)))
        for length in (None, 20 * MIB + 1):
            with pytest.raises(TooLarge) as refused:
                await append(store, growing, body(b"x"), length=length)
            assert (refused.value.limit, refused.value.limit_source) == (20 * MIB, "store")
        await store.resumable.finish(growing)
        assert await read(store, growing.blob_id) == content(20 * MIB)

    with_store(new_store, story)
