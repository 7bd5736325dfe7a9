"""Lines of work in threads, and bodies that are written in one while they are fed to another."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediasvc.core.errors import StoreFault
from mediasvc.store.disk import Incoming
from mediasvc.store.slabs import SLAB
from mediasvc.store.threads import Line
from mediasvc.store.writers import PARALLEL, Writers

Feed = Callable[[memoryview], None]
Step = Callable[[], None]


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4)


def test_a_line_does_one_thing_after_another(pool: ThreadPoolExecutor) -> None:
    line, done, at_work = Line(pool), list[int](), threading.Lock()

    def work(number: int) -> int:
        assert at_work.acquire(blocking=False)
        time.sleep(random.uniform(0, 0.001))
        done.append(number)
        at_work.release()
        return number * 2

    outcomes = [line.add(lambda number=number: work(number)) for number in range(200)]
    assert [outcome.result(10) for outcome in outcomes] == [number * 2 for number in range(200)]
    assert done == list(range(200))
    assert line.add(lambda: "later").result(10) == "later"


def test_what_one_thing_fails_with_all_after_it_fail_with(pool: ThreadPoolExecutor) -> None:
    line, done = Line(pool), list[str]()
    error = StoreFault("the disk failed")

    def fail() -> None:
        time.sleep(0.01)
        raise error

    first, failing = line.add(lambda: done.append("first")), line.add(fail)
    after = [line.add(lambda: done.append("after"))]
    assert failing.exception(10) is error
    after.append(line.add(lambda: done.append("much later")))
    assert first.exception(10) is None
    assert [outcome.exception(10) for outcome in after] == [error, error]
    assert done == ["first"]


def test_lines_that_are_never_done_leave_room_for_others() -> None:
    pool, stop = ThreadPoolExecutor(2), threading.Event()
    lines = [Line(pool) for _ in range(4)]
    turns = [0] * len(lines)

    def work(number: int) -> None:
        turns[number] += 1
        time.sleep(0.005)
        if not stop.is_set():
            lines[number].add(lambda: work(number))

    for number, line in enumerate(lines):
        line.add(lambda number=number: work(number))
    try:
        assert pool.submit(lambda: "served").result(5) == "served"
        deadline = time.monotonic() + 10
        while min(turns) < 5:
            assert time.monotonic() < deadline, turns
            time.sleep(0.01)
    finally:
        stop.set()
        pool.shutdown()


def test_a_line_that_gets_no_thread_says_so(pool: ThreadPoolExecutor) -> None:
    pool.shutdown()
    line = Line(pool)
    for _ in range(2):
        assert isinstance(line.add(lambda: "never").exception(10), RuntimeError)


async def write(
    writers: Writers, incoming: Incoming, body: AsyncIterator[bytes], feed: Feed, **steps: Step
) -> None:
    async with writers.written(incoming, body, feed, **steps):
        pass


def incoming_of(folder: Path) -> Incoming:
    return Incoming(folder / "part", folder / "final")


class Slow(Incoming):
    def write(self, data: memoryview) -> None:
        time.sleep(0.003)
        super().write(data)


SIZES = st.sampled_from([1, 1000, PARALLEL - 1, PARALLEL, PARALLEL + 1, SLAB - 1, SLAB, SLAB + 5])


@settings(max_examples=60)
@given(pieces=st.lists(SIZES, max_size=12), slow=st.sampled_from(["", "writer", "feeder", "body"]))
def test_every_byte_is_written_and_fed_in_order(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int], slow: str
) -> None:
    folder = tmp_path_factory.mktemp("writers")
    kind = Slow if slow == "writer" else Incoming
    incoming, fed, writers = kind(folder / "part", folder / "final"), bytearray(), Writers()
    content = random.randbytes(sum(pieces))

    async def body() -> AsyncIterator[bytes]:
        at = 0
        for size in pieces:
            await asyncio.sleep(0.003 if slow == "body" else 0)
            yield content[at : at + size]
            at += size

    def feed(slab: memoryview) -> None:
        if slow == "feeder":
            time.sleep(0.003)
        fed.extend(slab)

    asyncio.run(write(writers, incoming, body(), feed, first=incoming.create, last=incoming.publish))
    assert bytes(fed) == content
    assert (folder / "final").read_bytes() == content
    assert not (folder / "part").exists()
    for threads in writers.pools:
        threads.shutdown()


def test_what_is_written_is_told_while_the_last_of_it_is_still_fed(tmp_path: Path) -> None:
    incoming, fed, told = incoming_of(tmp_path), list[int](), threading.Event()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield bytes(SLAB)

    def feed(slab: memoryview) -> None:
        assert told.wait(10)
        fed.append(len(slab))

    async def tell() -> None:
        async with Writers().written(incoming, body(), feed, first=incoming.create, last=incoming.publish):
            assert (tmp_path / "final").stat().st_size == 2 * SLAB
            assert fed == []
            told.set()
        assert fed == [SLAB, SLAB]

    asyncio.run(tell())


@pytest.mark.parametrize("pieces", [[1000], [SLAB] * 6, []], ids=["short", "long", "empty"])
def test_a_body_that_breaks_is_not_ended(tmp_path: Path, pieces: list[int]) -> None:
    incoming, ended = incoming_of(tmp_path), list[str]()

    async def body() -> AsyncIterator[bytes]:
        for size in pieces:
            yield bytes(size)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(
            write(
                Writers(),
                incoming,
                body(),
                lambda _: None,
                first=incoming.create,
                last=lambda: ended.append("!"),
            )
        )
    assert ended == []
    assert incoming.opened


@pytest.mark.parametrize("failing", ["first", "write", "feed", "last"])
def test_a_failure_is_told_and_no_thread_is_left_at_work(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming, writers, calls = incoming_of(tmp_path), Writers(), list[str]()

    def step(name: str, work: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: memoryview) -> None:
            time.sleep(0.002)
            calls.append(name)
            if name == failing and calls.count(name) == (2 if name in ("write", "feed") else 1):
                raise StoreFault(name)
            work(*arguments)

        return call

    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(SLAB)

    monkeypatch.setattr(incoming, "write", step("write", incoming.write))
    with pytest.raises(StoreFault, match=failing):
        asyncio.run(
            write(
                writers,
                incoming,
                body(),
                step("feed", lambda _: None),
                first=step("first", incoming.create),
                last=step("last", incoming.publish),
            )
        )
    told = len(calls)
    time.sleep(0.05)
    assert len(calls) == told
    assert calls.count("write") <= (0 if failing == "first" else 2 if failing == "write" else 8)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_who_is_cancelled_leaves_no_thread_at_work(tmp_path: Path, times: int) -> None:
    incoming, at_work = incoming_of(tmp_path), list[int]()

    def feed(slab: memoryview) -> None:
        at_work.append(1)
        time.sleep(0.02)
        at_work.pop()

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(SLAB)

    async def cut() -> None:
        task = asyncio.create_task(
            write(Writers(), incoming, body(), feed, first=incoming.create, last=incoming.publish)
        )
        await asyncio.sleep(0.05)
        for _ in range(times):  # once more while it waits for its threads
            task.cancel()
            await asyncio.sleep(0.004)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert at_work == []
        assert not (tmp_path / "final").exists()

    asyncio.run(cut())
