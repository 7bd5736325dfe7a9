"""Blobs that grow, where the disk or the store says no in the middle."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.errors import StoreFault, StoreFull
from mediasvc.core.ids import new_blob_id
from mediasvc.store import disk, local_growth
from mediasvc.store.interface import Growing, Lost
from mediasvc.store.local import LocalStore
from mediasvc.store.parts import LARGEST, MAX_BLOB_SIZE, MOST_PARTS, SMALLEST, PartPlan, Sequel
from mediasvc.store.s3 import S3Store
from mediasvc.store.s3_kept import Kept
from mediasvc.store.slabs import SLAB, take
from mediasvc.store.url import parse_s3_url
from tests.ceph import Ceph
from tests.store.fault_proxy import FaultProxy, first

MIB = 1 << 20
DATA = os.urandom(20 * MIB)


async def body(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 64 << 10):
        yield data[at : at + (64 << 10)]


async def appended(store: LocalStore | S3Store, growing: Growing, data: bytes) -> Growing:
    kept = [value async for value in store.resumable.append(growing, body(data), lambda _: None)]
    return kept[-1]


def with_disk(root: Path, story: Callable[[LocalStore], Awaitable[None]]) -> None:
    async def run() -> None:
        store = LocalStore(root)
        await store.start()
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())


def failing_with(number: int) -> Callable[..., NoReturn]:
    def failing(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return failing


def test_what_a_disk_took_before_it_was_full_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.pwrite, 5 * MIB + 17

    def small(fd: int, data: memoryview, at: int) -> int:
        if at >= room:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: room - at], at)

    async def story(store: LocalStore) -> None:
        kept: list[Growing] = []

        async def appending() -> None:
            async for value in store.resumable.append(Growing(new_blob_id()), body(DATA), lambda _: None):
                kept.append(value)

        with monkeypatch.context() as patch:
            patch.setattr(disk.os, "pwrite", small)
            with pytest.raises(StoreFull):
                await appending()
        assert [value.size for value in kept] == [room]
        growing = await appended(store, kept[0], DATA[room:])
        await store.resumable.finish(growing)
        assert store.files.path(growing.blob_id).read_bytes() == DATA

    with_disk(tmp_path, story)


@pytest.mark.parametrize("how", ["sync", "finish"])
def test_after_a_sync_that_failed_nothing_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The kernel would say yes the second time."""

    async def story(store: LocalStore) -> None:
        growing = await appended(store, Growing(new_blob_id()), DATA)
        with monkeypatch.context() as patch:
            patch.setattr(local_growth.os, "fdatasync", failing_with(errno.EIO))
            with pytest.raises(StoreFault):
                await getattr(store.resumable, how)(growing)
        for _ in range(2):
            with pytest.raises(Lost):
                await getattr(store.resumable, how)(growing)
        with pytest.raises(Lost):
            await store.resumable.found(growing, all_of_it=True)

    with_disk(tmp_path, story)


def test_a_name_that_cannot_be_given_now_can_be_given_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: LocalStore) -> None:
        growing = await appended(store, Growing(new_blob_id()), DATA)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "make_folder", failing_with(errno.ENOSPC))
            with pytest.raises(StoreFull):
                await store.resumable.finish(growing)
        await store.resumable.finish(growing)
        assert store.files.path(growing.blob_id).read_bytes() == DATA

    with_disk(tmp_path, story)


def test_whole_slabs_at_their_place_go_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct: list[int] = []
    real = os.pwrite

    def watched(fd: int, data: memoryview, at: int) -> int:
        if disk.fcntl.fcntl(fd, disk.fcntl.F_GETFL) & os.O_DIRECT:
            direct.append(at)
        return real(fd, data, at)

    async def slabs() -> AsyncIterator[memoryview]:
        for _ in range(3):
            yield memoryview(take())

    async def story(store: LocalStore) -> None:
        monkeypatch.setattr(disk.os, "pwrite", watched)
        growing = Growing(new_blob_id())
        for _ in range(2):
            growing = [kept async for kept in store.resumable.append(growing, slabs(), lambda _: None)][-1]
        if direct:  # a file system that cannot do it says so
            assert direct == [number * SLAB for number in range(6)]
        direct.clear()
        growing = await appended(store, replace(growing, size=growing.size - 1), bytes(3 * SLAB))
        assert direct == []
        assert growing.size == 9 * SLAB - 1

    with_disk(tmp_path, story)


CREATE, COMPLETE, HEAD = [b"POST /", b"?uploads"], [b"POST /", b"?uploadId="], [b"HEAD /"]
TAIL, PART, LOOK = [b"PUT /", b"."], [b"PUT /", b"partNumber=1"], [b"GET /", b"uploadId="]
LOST = {
    "create": [CREATE],
    "part": [PART],
    "tail": [TAIL],
    "look for parts": [LOOK],
    "Complete": [COMPLETE],
    "Complete and the look after it": [COMPLETE, HEAD],
}


@pytest.mark.parametrize("needles", LOST.values(), ids=LOST)
def test_a_lost_answer_is_looked_after(
    ceph: Ceph, monkeypatch: pytest.MonkeyPatch, needles: list[list[bytes]]
) -> None:
    for name, value in ceph.keys.items():
        monkeypatch.setenv(name, value)
    bucket, blob_id = ceph.new_bucket(), new_blob_id()
    losses = [first(1, *some, blob_id.encode()) for some in needles]
    port = int(ceph.endpoint.rpartition(":")[2])

    async def story(endpoint: str) -> None:
        store = S3Store(parse_s3_url(ceph.store_url(bucket, endpoint=endpoint)))
        await store.start()
        growing = await appended(store, Growing(blob_id), DATA[: 9 * MIB])
        growing = await appended(store, growing, DATA[9 * MIB :])
        await store.resumable.finish(growing)
        async with store.open(blob_id) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == DATA
        await store.close()

    with FaultProxy(port, lambda data: any(lose(data) for lose in losses)) as proxy:
        asyncio.run(story(proxy.endpoint))
        assert proxy.lost == len(needles)
    assert ceph.unfinished(bucket) == []
    assert ceph.keys_of(bucket) == [blob_id]


LENGTHS = st.none() | st.integers(0, MAX_BLOB_SIZE)


@given(LENGTHS)
def test_the_edge_of_a_blob_from_its_beginning_is_the_plans(length: int | None) -> None:
    assert Sequel(0, 0, 0, length).edge == PartPlan(length).edge
    assert Sequel(0, 0, 0, length).next_size == PartPlan(length).size(1)


@given(st.lists(st.tuples(st.integers(0, 3000), LENGTHS), max_size=5), LENGTHS)
def test_a_length_that_becomes_known_late_fits_if_it_can(
    before: list[tuple[int, int | None]], length: int | None
) -> None:
    """Each append of `before` stores some parts under what was known then."""
    count = size = last = 0
    for more, known in before:
        for _ in range(min(more, MOST_PARTS - count) if more < 50 else 0):
            last = Sequel(count, size, last, known).next_size
            count, size = count + 1, size + last
        if more >= 50 and count + more <= MOST_PARTS:  # many at once, as they would be with this size
            last = Sequel(count, size, last, known).next_size
            count, size = count + more, size + more * last
    sequel = Sequel(count, size, last, length)
    if count < MOST_PARTS:
        assert SMALLEST <= sequel.next_size <= LARGEST
        assert sequel.next_size >= last
    if length is not None and sequel.edge < length:
        assert sequel.next_size == LARGEST or count == MOST_PARTS


SIZES = [8 * MIB, 8 * MIB, 16 * MIB, 5 * MIB, 1]


@given(
    st.dictionaries(st.integers(1, 7), st.sampled_from(SIZES)),
    st.integers(0, 2),
    st.sampled_from([0, 1, MIB]),
)
def test_found_parts_continue_without_a_gap(there: dict[int, int], count: int, tail: int) -> None:
    parts = tuple(("etag", 8 * MIB) for _ in range(count))
    kept = Kept("upload", parts, "tail" if tail else "", tail)
    more = kept.with_more({number: ("etag", size) for number, size in there.items()})
    assert more.parts[:count] == parts
    assert more.size >= kept.size
    for number in range(count + 1, len(more.parts) + 1):
        assert there[number] >= 8 * MIB
    assert Kept.noted(more.growing("id")) == more
