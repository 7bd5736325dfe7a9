"""What every store promises."""

import asyncio
import hashlib
import os
import ssl
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from mediasvc.core.errors import StoreUnavailable
from mediasvc.core.ids import new_blob_id
from mediasvc.core.span import Span
from mediasvc.store.digests import Digests
from mediasvc.store.interface import BlobMissing, BlobStore, Stored
from tests.contracts.stores import NewStore, new_store

__all__ = ["new_store"]

KIB, MIB = 1 << 10, 1 << 20
STALLED_PUT = Path(__file__).with_name("stalled_put.py")
PATTERN = os.urandom(MIB + 7)  # not a multiple of any part or chunk, so that a shift shows


def content(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


async def body(data: bytes, chunk: int = 64 * KIB) -> AsyncIterator[bytes]:
    for at in range(0, len(data), chunk):
        yield data[at : at + chunk]


async def breaking(data: bytes, error: BaseException) -> AsyncIterator[bytes]:
    async for chunk in body(data):
        yield chunk
    raise error


async def read(store: BlobStore, blob_id: str, span: Span | None = None) -> bytes:
    async with store.open(blob_id, span) as chunks:
        got = [chunk async for chunk in chunks]
    assert all(0 < len(chunk) <= 256 * KIB for chunk in got)
    return b"".join(got)


async def everything(store: BlobStore) -> tuple[list[str], list[str]]:
    """The ids of all whole blobs and of all unfinished ones."""
    whole = [stored.blob_id async for stored in store.scan()]
    return whole, [blob_id async for blob_id in store.scan_unfinished()]


def with_store(new_store: NewStore, story: Callable[[BlobStore], Awaitable[None]]) -> None:
    async def run() -> None:
        store = new_store()
        await store.start()
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())


SIZES = {
    "0": 0,
    "1": 1,
    "4 KiB": 4 * KIB,
    "1 MiB - 1": MIB - 1,
    "1 MiB": MIB,
    "1 MiB + 1": MIB + 1,
    "8 MiB - 1": 8 * MIB - 1,
    "8 MiB": 8 * MIB,
    "8 MiB + 1": 8 * MIB + 1,
    "20 MiB": 20 * MIB,
}


@pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_was_put_comes_back_as_it_was(new_store: NewStore, size: int, known: bool) -> None:
    async def story(store: BlobStore) -> None:
        blob_id, data, digests = new_blob_id(), content(size), Digests()
        stored = await store.put(blob_id, body(data), digests, length=size if known else None)
        assert stored == Stored(blob_id, size)
        assert await store.stat(blob_id) == stored
        assert await read(store, blob_id) == data
        assert [found async for found in store.scan()] == [stored]
        assert digests.size == size
        assert digests.sha256 == hashlib.sha256(data).hexdigest()
        assert digests.crc32 == zlib.crc32(data)
        await store.delete(blob_id)
        assert await everything(store) == ([], [])

    with_store(new_store, story)


@pytest.mark.parametrize("chunk", [1, 700, 3 * MIB], ids=["1 byte", "700 bytes", "3 MiB"])
def test_the_size_of_chunks_makes_no_difference(new_store: NewStore, chunk: int) -> None:
    async def story(store: BlobStore) -> None:
        blob_id, data = new_blob_id(), content(min(chunk * 5000, 20 * MIB))
        await store.put(blob_id, body(data, chunk), Digests())
        assert await read(store, blob_id) == data

    with_store(new_store, story)


LIES = {
    "0 for 1": (0, 1),
    "1 for 20 MiB": (1, 20 * MIB),
    "20 MiB for 1": (20 * MIB, 1),
    "100 GB for 0": (10**11, 0),
}


@pytest.mark.parametrize(("declared", "size"), LIES.values(), ids=LIES)
def test_a_wrong_length_is_kept_as_it_came(new_store: NewStore, declared: int, size: int) -> None:
    async def story(store: BlobStore) -> None:
        blob_id, data = new_blob_id(), content(size)
        assert await store.put(blob_id, body(data), Digests(), length=declared) == Stored(blob_id, size)
        assert await read(store, blob_id) == data

    with_store(new_store, story)


def test_a_span_is_exactly_those_bytes(new_store: NewStore) -> None:
    size = 9 * MIB
    spans = [
        (0, 0),
        (0, 1),
        (0, size),
        (size - 1, size),
        (MIB - 1, MIB + 1),
        (123_456, 7_654_321),
        (size, size),
    ]

    async def story(store: BlobStore) -> None:
        blob_id, data = new_blob_id(), content(size)
        await store.put(blob_id, body(data), Digests())
        for start, stop in spans:
            assert await read(store, blob_id, Span(start, stop)) == data[start:stop], (start, stop)

    with_store(new_store, story)


def test_a_blob_shorter_than_the_span_breaks_and_is_never_short(new_store: NewStore) -> None:

    async def story(store: BlobStore) -> None:
        blob_id = new_blob_id()
        await store.put(blob_id, body(content(MIB)), Digests())
        for span in (Span(0, MIB + 1), Span(MIB + 5, MIB + 9)):
            with pytest.raises(StoreUnavailable):
                await read(store, blob_id, span)

    with_store(new_store, story)


def test_what_is_not_there_is_missing_and_may_be_deleted(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        blob_id = new_blob_id()
        with pytest.raises(BlobMissing):
            await store.stat(blob_id)
        for span in (None, Span(0, 0), Span(0, 1)):
            with pytest.raises(BlobMissing):
                await read(store, blob_id, span)
        await store.delete(blob_id, new_blob_id())
        await store.delete()
        await store.discard(blob_id)

    with_store(new_store, story)


def test_a_reader_that_leaves_disturbs_nobody(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        blob_id, data = new_blob_id(), content(9 * MIB)
        await store.put(blob_id, body(data), Digests())
        for _ in range(20):
            async with store.open(blob_id) as chunks:
                await anext(aiter(chunks))
        assert await read(store, blob_id) == data

    with_store(new_store, story)


class Broken(Exception):
    pass


BREAKS = {
    "at once": 0,
    "in the first batch": 100 * KIB,
    "in the second part": 9 * MIB,
    "in the third": 20 * MIB,
}


@pytest.mark.parametrize("size", BREAKS.values(), ids=BREAKS)
def test_a_body_that_breaks_leaves_nothing(new_store: NewStore, size: int) -> None:
    async def story(store: BlobStore) -> None:
        with pytest.raises(Broken):
            await store.put(new_blob_id(), breaking(content(size), Broken()), Digests())
        assert await everything(store) == ([], [])

    with_store(new_store, story)


@pytest.mark.parametrize("size", BREAKS.values(), ids=BREAKS)
def test_an_error_of_the_operating_system_in_the_body_is_the_bodys(new_store: NewStore, size: int) -> None:
    async def story(store: BlobStore) -> None:
        with pytest.raises(ConnectionResetError):
            await store.put(new_blob_id(), breaking(content(size), ConnectionResetError()), Digests())
        assert await everything(store) == ([], [])

    with_store(new_store, story)


@pytest.mark.parametrize("size", BREAKS.values(), ids=BREAKS)
def test_a_cancelled_put_leaves_nothing(new_store: NewStore, size: int) -> None:
    async def story(store: BlobStore) -> None:
        arrived = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            async for chunk in body(content(size)):
                yield chunk
            arrived.set()
            await asyncio.Event().wait()

        put = asyncio.create_task(store.put(new_blob_id(), stalling(), Digests()))
        await arrived.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert await everything(store) == ([], [])

    with_store(new_store, story)


@pytest.mark.parametrize("turns", [1, 2, 5, 20, 60, 150, 400])
def test_a_put_cancelled_anywhere_is_there_or_leaves_nothing(new_store: NewStore, turns: int) -> None:
    async def story(store: BlobStore) -> None:
        blob_id, data = new_blob_id(), content(9 * MIB)
        put = asyncio.create_task(store.put(blob_id, body(data), Digests()))
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(3):  # as anyio does: again and again
            put.cancel()
            await asyncio.sleep(0)
        try:
            await put
        except asyncio.CancelledError:
            assert await everything(store) == ([], [])
        else:
            assert await read(store, blob_id) == data

    with_store(new_store, story)


def test_puts_at_the_same_time_do_not_mix(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        blobs = {new_blob_id(): content(9 * MIB + number)[number:] for number in range(6)}
        blobs |= {new_blob_id(): content(10_000 + number) for number in range(20)}
        puts = [store.put(blob_id, body(data), Digests()) for blob_id, data in blobs.items()]
        assert {stored.blob_id: stored.size for stored in await asyncio.gather(*puts)} == {
            blob_id: len(data) for blob_id, data in blobs.items()
        }
        for blob_id, data in blobs.items():
            assert await read(store, blob_id) == data

    with_store(new_store, story)


def test_a_scan_knows_prefixes(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        ids = ["a" * 32, "a" * 31 + "b", "ab" * 16, "b" * 32]
        for blob_id in ids:
            await store.put(blob_id, body(b"x"), Digests())
        for prefix in ("", "a", "aa", "aaa", "ab", "abababa", "b", "c", "a" * 32):
            found = [stored.blob_id async for stored in store.scan(prefix)]
            assert sorted(found) == sorted(blob_id for blob_id in ids if blob_id.startswith(prefix)), prefix

    with_store(new_store, story)


def test_a_store_that_is_well_says_so(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        await store.check()
        await store.check()
        assert await everything(store) == ([], [])

    with_store(new_store, story)


def test_what_a_killed_process_left_is_found_and_discarded(new_store: NewStore) -> None:
    blob_id, other = new_blob_id(), new_blob_id()
    command = [sys.executable, STALLED_PUT, new_store.address, blob_id, "17"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "arrived\n"
        child.kill()

    async def story(store: BlobStore) -> None:
        await store.put(other, body(b"bystander"), Digests())
        assert await everything(store) == ([other], [blob_id])
        await store.discard(blob_id)
        assert await everything(store) == ([other], [])
        # The same id can be used again, as a task does that is run again.
        await store.put(blob_id, body(b"again"), Digests())
        assert await read(store, blob_id) == b"again"
        await store.discard(blob_id)
        assert await everything(store) == ([other], [])

    with_store(new_store, story)


def test_a_blob_can_be_had_as_a_file_or_by_a_url(new_store: NewStore) -> None:
    async def story(store: BlobStore) -> None:
        blob_id, data = new_blob_id(), content(100 * KIB)
        await store.put(blob_id, body(data), Digests())
        if store.files is not None:
            assert store.files.size(blob_id) == len(data)
            assert store.files.path(blob_id).read_bytes() == data
            with pytest.raises(BlobMissing):
                store.files.size(new_blob_id())
        if store.presigned is not None:
            authority = os.environ.get("AWS_CA_BUNDLE")
            trusted = ssl.create_default_context(cafile=authority) if authority else True
            answer = {"response-content-type": "text/x-told"}
            async with httpx.AsyncClient(verify=trusted) as client:
                for url in (
                    store.presigned.inside(blob_id, seconds=60),
                    store.presigned.outside(blob_id, seconds=60, answer=answer),
                ):
                    got = await client.get(str(url))
                    assert (got.status_code, got.content) == (200, data)
                assert got.headers["Content-Type"] == "text/x-told"
                missing = store.presigned.inside(new_blob_id(), seconds=60)
                assert (await client.get(str(missing))).status_code == 404
        assert store.files or store.presigned

    with_store(new_store, story)
