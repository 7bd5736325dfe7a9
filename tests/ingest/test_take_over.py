"""Who has an upload, and how whoever had it before is made to leave."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from mediasvc.core.errors import Superseded, Unavailable
from mediasvc.core.upload import Upload
from mediasvc.ingest import take_over
from mediasvc.ingest.take_over import REMEMBERED, Held, Holdings, Interruptible
from mediasvc.store.digests import Digests

pytestmark = pytest.mark.anyio

AT_ONCE = 2.0  # seconds; far less than `PATIENCE`


class Hung:
    """A body that brings what it is given, and then nothing for ever."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.waits = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        self.waits.set()
        await asyncio.Event().wait()


async def read(body: Interruptible, into: list[bytes]) -> None:
    async for chunk in body:
        into.append(bytes(chunk))


async def write(holdings: Holdings, body: Hung, into: list[bytes]) -> None:
    async with holdings.taken("upl_a") as held:
        try:
            await read(held.read(body), into)
        finally:
            held.body = None


async def test_a_body_that_ends_is_left_alone() -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    came: list[bytes] = []
    await read(Interruptible(whole()), came)
    assert came == [b"a", b"b"]


async def test_who_waits_for_bytes_is_woken_and_keeps_what_came() -> None:
    body, came = Hung(b"a", b"b"), []
    interruptible = Interruptible(body)
    reading = asyncio.create_task(read(interruptible, came))
    await body.waits.wait()
    interruptible.interrupt()
    with pytest.raises(Superseded):
        await asyncio.wait_for(reading, AT_ONCE)
    assert came == [b"a", b"b"]
    assert reading.cancelling() == 0


async def test_who_is_busy_with_bytes_ends_after_them() -> None:
    body, goes_on = Hung(b"a", b"b"), asyncio.Event()
    interruptible, came = Interruptible(body), []

    async def slowly() -> None:
        async for chunk in interruptible:
            await goes_on.wait()
            came.append(chunk)

    reading = asyncio.create_task(slowly())
    await asyncio.sleep(0)
    interruptible.interrupt()
    goes_on.set()
    with pytest.raises(Superseded):
        await asyncio.wait_for(reading, AT_ONCE)
    assert came == [b"a"], "not a byte is taken after that, and none is lost that was"


async def test_who_is_cancelled_by_somebody_else_is_cancelled() -> None:
    for also_interrupted in (False, True):
        body = Hung()
        interruptible = Interruptible(body)
        reading = asyncio.create_task(read(interruptible, []))
        await body.waits.wait()
        reading.cancel()
        if also_interrupted:
            interruptible.interrupt()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, AT_ONCE)


async def test_the_error_of_a_body_passes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ValueError("broken")

    came: list[bytes] = []
    with pytest.raises(ValueError, match="broken"):
        await read(Interruptible(broken()), came)
    assert came == [b"a"]


async def test_the_newest_request_has_it_at_once() -> None:
    holdings, body, came = Holdings(), Hung(b"a"), []
    writing = asyncio.create_task(write(holdings, body, came))
    await body.waits.wait()
    assert holdings.busy("upl_a")
    began = time.monotonic()
    async with holdings.taken("upl_a"):
        assert time.monotonic() - began < AT_ONCE
        assert not holdings.busy("upl_a")
    with pytest.raises(Superseded):
        await writing
    assert came == [b"a"]


async def test_of_many_who_hang_only_the_newest_stays() -> None:
    """Each waits for the one before; none of them waits for a client."""
    holdings, bodies = Holdings(), [Hung(bytes([number])) for number in range(5)]
    writers = [asyncio.create_task(write(holdings, body, [])) for body in bodies]
    await asyncio.wait_for(bodies[-1].waits.wait(), AT_ONCE)
    done, left = await asyncio.wait(writers, timeout=0.1)
    assert left == {writers[-1]}
    assert {type(writer.exception()) for writer in done} == {Superseded}
    async with asyncio.timeout(AT_ONCE), holdings.taken("upl_a"):
        pass
    with pytest.raises(Superseded):
        await writers[-1]


async def test_other_uploads_are_not_disturbed() -> None:
    holdings, body = Holdings(), Hung()
    writing = asyncio.create_task(write(holdings, body, []))
    await body.waits.wait()
    async with holdings.taken("upl_b"):
        assert holdings.busy("upl_a")
    assert not writing.done()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    async with asyncio.timeout(AT_ONCE), holdings.taken("upl_a"):
        pass


async def test_who_does_not_leave_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(take_over, "PATIENCE", 0.05)
    holdings = Holdings()
    async with holdings.taken("upl_a"):
        with pytest.raises(Unavailable) as refused:
            async with holdings.taken("upl_a"):
                raise AssertionError
    assert (refused.value.status, refused.value.retryable) == (503, True)
    async with asyncio.timeout(AT_ONCE), holdings.taken("upl_a") as held:
        assert held.waiting == 0


def upload(upload_id: str = "upl_a") -> Upload:
    return Upload(upload_id, "key_a", 0.0, 1.0, "b" * 32, length=10)


async def test_what_is_held_is_known_until_it_is_forgotten() -> None:
    holdings = Holdings()
    async with holdings.taken("upl_a") as held:
        assert not held.known
        held.hold(upload(), Digests())
    async with holdings.taken("upl_a") as held:
        assert held.known
        assert (held.upload, held.growing.blob_id) == (upload(), "b" * 32)
    holdings.forget("upl_a")
    async with holdings.taken("upl_a") as held:
        assert not held.known
        assert held.digests is None


async def test_only_so_many_are_remembered_and_none_in_use_is_forgotten() -> None:
    holdings, kept = Holdings(), []

    async def hold(upload_id: str) -> Held:
        async with holdings.taken(upload_id) as held:
            held.hold(upload(upload_id), None)
            return held

    async with holdings.taken("upl_used") as used:
        used.hold(upload("upl_used"), None)
        kept = [await hold(f"upl_{number}") for number in range(REMEMBERED + 10)]
        assert len(holdings._held) <= REMEMBERED + 1
        waiting = asyncio.create_task(hold("upl_used"))
        await asyncio.sleep(0)
    assert await waiting is used, "whoever waits gets the same"
    assert await hold(f"upl_{REMEMBERED + 9}") is kept[-1]
    assert await hold("upl_0") is not kept[0]
