"""Zero-copy without nginx: an ASGI `send` with the extension `http.response.zerocopysend`.

The kernel copies from the page cache to the socket; Python only says where from and how much. Where the extension
is absent (TLS, a platform without sendfile) downloads are streamed.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

Message = MutableMapping[str, Any]

EXTENSION = "http.response.zerocopysend"
SUPPORTED = hasattr(os, "sendfile")
# One turn of one connection in the loop: large enough to cost nothing, small enough to be fair.
MAX_TURN = 2 * 1024 * 1024
# Up to here reading and writing costs two thirds of sendfile (measured on loopback), and a slow reader holds no more.
SMALL = 64 * 1024
_READAHEAD = 128 * 1024  # the kernel reads at least this much at once
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class FileBroken(OSError):
    """The file ended early or could not be read: the answer had begun, so the connection was cut."""


class Connection(Protocol):
    """What sending a file needs of the protocol that serves a connection."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    fd: int

    async def writable(self, fd: int) -> None:
        """Until the socket takes bytes again, or the connection is lost."""


class Cork:
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
        if data:
            self._held.append(data)

    def close(self) -> None:
        self.release()
        self._transport.close()

    def release(self) -> None:
        self._release.cancel()
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)


class Sender:
    """An ASGI `send` that also takes files."""

    __slots__ = ("_cork", "_cycle", "_protocol", "_send")

    def __init__(
        self,
        protocol: Connection,
        cycle: RequestResponseCycle,
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._send = send
        self._cork: Cork | None = None

    async def __call__(self, message: Message) -> None:
        """Raises ConnectionResetError where a file's client has gone, FileBroken where it has less than `count`."""
        if message["type"] == "http.response.start":
            self._cork = Cork(self._protocol.transport, self._protocol.loop)
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
        if count <= SMALL and (few := read_at_once(file, offset, count)) is not None:
            return few
        if cycle.chunked_encoding or count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        self._uncork()
        await self._drained()
        await self._copy(message, file, offset, offset + count)
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

    async def _copy(self, message: Message, file: int, offset: int, end: int) -> None:
        """`message["sent"]` says how far it got, whatever ends it."""
        begin, out = offset, -1
        try:
            turn = min(offset + MAX_TURN, end)
            tried = offset < end and _in_page_cache(file, offset, turn)
            if tried:
                # What leaves in one go needs no second descriptor.
                offset += self._sent(self._protocol.fd, file, offset, turn)
            if offset == end:
                return
            # The event loop watches the socket already; it takes a second descriptor to watch it for ourselves.
            out = os.dup(self._protocol.fd)
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
            message["sent"] = offset - begin
            if out >= 0:
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


def read_at_once(file: int, offset: int, count: int) -> bytearray | None:
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
