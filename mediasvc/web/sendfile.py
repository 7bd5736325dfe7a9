"""Zero-copy without nginx: uvicorn's protocol with the ASGI extension `http.response.zerocopysend`.

The kernel copies from the page cache to the socket; Python only says where from and how much. The classes
extended here are private to uvicorn: the version is pinned, tests guard it, and where the extension is absent
(TLS, a platform without sendfile) downloads are streamed. Besides, a request's head has to be complete within
`HEAD_TIMEOUT` seconds and `MAX_HEAD` bytes, and a body may pause for `BODY_TIMEOUT` seconds: uvicorn has no
settings for either.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mediasvc.web.errors import malformed_request

Message = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]

EXTENSION = "http.response.zerocopysend"
SUPPORTED = hasattr(os, "sendfile")
HEAD_TIMEOUT = 30.0
BODY_TIMEOUT = 60.0  # seconds of silence in the middle of a body, as nginx's client_body_timeout
MAX_HEAD = 64 * 1024
# One turn of one connection in the loop: large enough to cost nothing, small enough to be fair.
MAX_TURN = 2 * 1024 * 1024
# Up to here reading and writing costs two thirds of sendfile (measured on loopback), and a slow reader holds no more.
SMALL = 64 * 1024
_READAHEAD = 128 * 1024  # the kernel reads at least this much at once
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class FileBroken(OSError):
    """The file ended early or could not be read: the answer had begun, so the connection was cut."""


class SendfileProtocol(HttpToolsProtocol):
    """Offers the extension on plain sockets."""

    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _heard_at = 0.0
    _waiter: asyncio.Future[None] | None = None
    _zero_copy = False
    _in_head = False
    _head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._zero_copy = SUPPORTED and self.scheme == "http"
        # Good only while the transport is not closing: after that the number may be another connection's.
        self.fd: int = transport.get_extra_info("socket").fileno()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        if self._body_timer is not None:
            self._body_timer.cancel()
        super().connection_lost(exc)
        self.wake()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("the head is too large")
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        elif self._body_timer is None and self.cycle is not None and self.cycle.more_body:
            self._body_timer = self.loop.call_later(BODY_TIMEOUT, self._look_after_body)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        if self._zero_copy:
            self.scope["extensions"] = {EXTENSION: {}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_came()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()

    def _look_after_body(self) -> None:
        """Close on a client that sends no more of a body that we wait for: its upload holds room in a quota."""
        silent = self.loop.time() - self._heard_at
        waiting = not self.flow.read_paused and not self.cycle.response_started
        if waiting and silent >= BODY_TIMEOUT:
            self._body_timer = None
            self.transport.close()
        elif not self.transport.is_closing():
            again = BODY_TIMEOUT - silent if waiting else BODY_TIMEOUT
            self._body_timer = self.loop.call_later(again, self._look_after_body)

    def on_body(self, body: bytes) -> None:
        """As uvicorn's own, but a piece that finds nothing waiting is handed on as it is: two copies less of
        every byte of an upload."""
        cycle = self.cycle
        if cycle.body or cycle.response_complete:
            super().on_body(body)
            return
        cycle.body = body  # type: ignore[assignment]  # what `receive` gives is `bytes(body)`: the same object
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem too, unless it would end up inside the answer to an earlier request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started):
            self.transport.write(malformed_request())
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._zero_copy:
            app = partial(_answer, app, self, cycle)
        super()._start_asgi_task(cycle, app)

    def _await_head(self) -> None:
        if not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._head_overdue)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self) -> None:
        self._head_timer = None
        self.transport.close()

    async def writable(self, fd: int) -> None:
        """Until the socket takes bytes again, or the connection is lost."""
        self._waiter = waiter = self.loop.create_future()
        self.loop.add_writer(fd, self.wake)
        try:
            await waiter
        finally:
            self.loop.remove_writer(fd)
            self._waiter = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _answer(
    app: Application,
    protocol: SendfileProtocol,
    cycle: RequestResponseCycle,
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    await app(scope, receive, _Sender(protocol, cycle, send))


class _Cork:
    """A transport that holds what is written, so that an answer's head leaves with the first of its body.

    A system call and a wake-up of the client less: a sixth of the cost of a small download (measured). What is
    not let go by then leaves at the loop's next turn: a head never waits for a body that takes its time.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._release = loop.call_soon(self.release)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self._held.append(data)

    def close(self) -> None:
        self.release()
        self._transport.close()

    def release(self) -> None:
        self._release.cancel()
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)


class _Sender:
    """An ASGI `send` that also takes files."""

    __slots__ = ("_cork", "_cycle", "_protocol", "_send")

    def __init__(
        self,
        protocol: SendfileProtocol,
        cycle: RequestResponseCycle,
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._send = send
        self._cork: _Cork | None = None

    async def __call__(self, message: Message) -> None:
        """Raises ConnectionResetError where a file's client has gone, FileBroken where it has less than `count`."""
        if message["type"] == "http.response.start":
            self._cork = _Cork(self._protocol.transport, self._protocol.loop)
            self._cycle.transport = self._cork  # type: ignore[assignment]  # it quacks
            await self._send(message)
            return
        if message["type"] == EXTENSION:
            body = b"" if self._cycle.scope["method"] == "HEAD" else await self._file(message)
            message = {
                "type": "http.response.body",
                "body": body,
                "more_body": message.get("more_body", False),
            }
        await self._send(message)
        self._uncork()

    def _uncork(self) -> None:
        if self._cork is not None:
            self._cork.release()
            self._cycle.transport = self._protocol.transport
            self._cork = None

    async def _file(self, message: Message) -> bytes | bytearray:
        """Send the file; or give its bytes, where they are few and at hand."""
        cycle = self._cycle
        file = message["file"].fileno()
        offset = message.get("offset")
        offset = os.lseek(file, 0, os.SEEK_CUR) if offset is None else offset
        count = message.get("count")
        count = os.fstat(file).st_size - offset if count is None else count
        self._check()
        if count <= SMALL and (few := _read_at_once(file, offset, count)) is not None:
            return few
        if cycle.chunked_encoding or count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        self._uncork()
        await self._drained()
        await self._copy(file, offset, offset + count)
        cycle.expected_content_length -= count
        return b""

    async def _drained(self) -> None:
        """Until everything written before is with the kernel."""
        transport = self._protocol.transport
        if transport.get_write_buffer_size() and not transport.is_closing():
            transport.set_write_buffer_limits(0)
            while transport.get_write_buffer_size() and not self._cycle.disconnected:
                await self._cycle.flow.drain()
            transport.set_write_buffer_limits()
        self._check()

    def _check(self) -> None:
        if self._cycle.disconnected or self._protocol.transport.is_closing():
            self._cycle.disconnected = True
            raise ConnectionResetError("the client has gone")

    async def _copy(self, file: int, offset: int, end: int) -> None:
        turn = min(offset + MAX_TURN, end)
        tried = offset < end and _in_page_cache(file, offset, turn)
        if tried:
            # What leaves in one go needs no second descriptor.
            offset += self._sent(self._protocol.fd, file, offset, turn)
        if offset == end:
            return
        # The event loop watches the socket already; it takes a second descriptor to watch it for ourselves.
        out = os.dup(self._protocol.fd)
        try:
            while offset < end:
                if tried and offset < turn:
                    await self._protocol.writable(out)
                elif tried:
                    await asyncio.sleep(0)
                self._check()
                tried, turn = True, min(offset + MAX_TURN, end)
                if _in_page_cache(file, offset, turn):
                    offset += self._sent(out, file, offset, turn)
                else:
                    offset += await self._sent_by_thread(out, file, offset, turn)
        finally:
            os.close(out)

    def _sent(self, out: int, file: int, offset: int, end: int) -> int:
        """As many bytes as the socket takes now."""
        try:
            return _sendfile(out, file, offset, end)
        except OSError as error:
            raise self._cut(error) from error

    async def _sent_by_thread(self, out: int, file: int, offset: int, end: int) -> int:
        """The disk may take its time, and the loop must not wait for it."""
        # Descriptors of its own: who cancels us closes theirs while the thread still works.
        own_out, own_file = os.dup(out), os.dup(file)

        def copy() -> int:
            try:
                return _sendfile(own_out, own_file, offset, end)
            finally:
                os.close(own_out)
                os.close(own_file)

        try:
            return await self._protocol.loop.run_in_executor(None, copy)
        except OSError as error:
            raise self._cut(error) from error

    def _cut(self, error: OSError) -> OSError:
        """Whatever it was, the client must see an answer that broke off, never one that looks whole."""
        self._protocol.transport.abort()
        self._cycle.disconnected = True  # now, not when the loop gets to it: uvicorn would complain meanwhile
        if isinstance(error, (ConnectionError, TimeoutError)):
            return ConnectionResetError("the client has gone")
        return FileBroken(str(error))


def _sendfile(out: int, file: int, offset: int, end: int) -> int:
    try:
        sent = os.sendfile(out, file, offset, end - offset)
    except BlockingIOError:
        return 0
    if not sent:
        raise FileBroken(f"the file ends at byte {offset}, before {end}")
    return sent


def _read_at_once(file: int, offset: int, count: int) -> bytearray | None:
    """All of the bytes, if that needs no waiting for the disk."""
    if not _NOWAIT:
        return None
    few = bytearray(count)
    try:
        return few if os.preadv(file, (few,), offset, _NOWAIT) == count else None
    except OSError:
        return None  # whatever it is, sendfile will meet it again


def _in_page_cache(file: int, start: int, end: int) -> bool:
    """Whether reading will not wait for the disk, judged by its ends (1.2 µs each)."""
    if not _NOWAIT:
        return True
    try:
        os.preadv(file, (bytearray(1),), start, _NOWAIT)
        if end - start > _READAHEAD:
            os.preadv(file, (bytearray(1),), end - 1, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system that cannot tell
    return True
