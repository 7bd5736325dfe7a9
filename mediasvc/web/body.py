"""A long body of known length: received by the kernel into slabs, past the HTTP parser and uncopied.

Through the parser every byte of an upload is copied three times before anybody looks at it (measured: a fifth of
the upload's CPU).
"""

import asyncio
import mmap
from collections import deque
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from mediasvc.store.slabs import SLAB, take

AHEAD = 2  # full slabs that wait for the application; then the socket is not read
REFUSED = 64 * 1024  # bytes read at once of a body that is answered already


class Connection(Protocol):
    """What a long body needs of the protocol that serves its connection."""

    cycle: RequestResponseCycle
    flow: FlowControl
    transport: asyncio.Transport

    def heard(self) -> None:
        """Bytes of the body came."""

    def long_body_ended(self) -> None:
        """Its last byte is here: what comes now is the next request."""

    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class LongBody(asyncio.BufferedProtocol):
    """Takes the place of the connection's protocol until the last byte of the body is there."""

    def __init__(self, connection: Connection, length: int) -> None:
        self._connection = connection
        self._cycle = connection.cycle
        self._left = length
        self._slab: mmap.mmap = take()
        self._filled = 0
        self._ahead = 1  # a body that may yet be refused is not read further
        self._ready: deque[memoryview] = deque()
        connection.flow.pause_reading()  # until somebody asks for the body

    def feed(self, data: bytes) -> None:
        """What came in one piece with the head."""
        while data:
            room = self.get_buffer(-1)
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            self.buffer_updated(taken)
            data = data[taken:]

    def get_buffer(self, sizehint: int) -> memoryview:
        most = REFUSED if self._cycle.response_started else SLAB
        return memoryview(self._slab)[
            self._filled : min(SLAB, self._filled + self._left, self._filled + most)
        ]

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.heard()
        self._filled += nbytes
        self._left -= nbytes
        cycle = self._cycle
        if self._left and self._filled < SLAB and not cycle.response_started:
            return
        if not cycle.response_complete:
            self._ready.append(memoryview(self._slab)[: self._filled])
            self._slab = take()
            cycle.message_event.set()
        self._filled = 0
        if not self._left:
            self._connection.long_body_ended()
        elif len(self._ready) >= self._ahead or cycle.response_started:
            self._connection.flow.pause_reading()

    async def receive(self) -> dict[str, Any]:
        """As in ASGI, but `body` is a slab, whole unless it is the last; whoever has it may give it back."""
        cycle, flow = self._cycle, self._connection.flow
        if cycle.waiting_for_100_continue and not self._connection.transport.is_closing():
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        flow.resume_reading()
        while not (self._ready or cycle.disconnected or cycle.response_complete):
            await cycle.message_event.wait()
            cycle.message_event.clear()
        if cycle.disconnected or cycle.response_complete:
            return {"type": "http.disconnect"}
        self._ahead = min(AHEAD, self._ahead + 1)
        return {
            "type": "http.request",
            "body": self._ready.popleft(),
            "more_body": bool(self._left or self._ready),
        }

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
