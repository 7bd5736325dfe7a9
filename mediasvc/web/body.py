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

AHEAD = (
    1  # full slabs that wait for the application; then the socket is not read. What waits is lost in a crash
)
REFUSED = 64 * 1024  # bytes read at once of a body that is answered already
MANY = 8  # long bodies at once; with more of them each is handed over in pieces of `SHARE`, or memory would follow them
SHARE = 256 * 1024
PATIENCE = 0.25  # seconds that what is in a slab waits for the rest, while the application waits for it


class Connection(Protocol):
    """What a long body needs of the protocol that serves its connection."""

    cycle: RequestResponseCycle
    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def heard(self) -> None:
        """Bytes of the body came."""

    def long_body_ended(self) -> None:
        """Its last byte is here: what comes now is the next request."""

    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class LongBody(asyncio.BufferedProtocol):
    """Takes the place of the connection's protocol until the last byte of the body is there.

    It has a slab only while there is something in it: who sends nothing costs nothing.
    """

    _at_once = 0  # of all connections

    def __init__(self, connection: Connection, length: int) -> None:
        self._connection = connection
        self._cycle = connection.cycle
        self._left = length
        self._slab: mmap.mmap | None = None
        self._room = SLAB  # less after a shorter slab: then the body is in step with the disk again
        self._filled = 0
        self._waiting = False  # for the body, in `receive`
        self._hurry: asyncio.TimerHandle | None = None
        self._ready: deque[memoryview] = deque()
        self._counted = True
        self._cut = False  # nothing more will come of it
        LongBody._at_once += 1
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
        if self._slab is None:
            self._slab = take()
        most = REFUSED if self._cycle.response_started else SLAB
        # Never empty: when many others came meanwhile, a slab may have more in it than its share is now.
        room = self._lacks or min(REFUSED, self._room - self._filled)
        return memoryview(self._slab)[self._filled : self._filled + min(self._left, room, most)]

    @property
    def _lacks(self) -> int:
        """Bytes until what is in the slab is handed over."""
        room = self._room if LongBody._at_once <= MANY else min(self._room, SHARE)
        return max(0, room - self._filled)

    def _no_more(self) -> None:
        if self._counted:
            self._counted = False
            LongBody._at_once -= 1

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.heard()
        self._filled += nbytes
        self._left -= nbytes
        cycle = self._cycle
        if self._left and self._lacks and not cycle.response_started:
            if self._waiting and self._hurry is None:
                self._be_patient()
            return
        self._hand_over()
        if not self._left:
            self._no_more()
            self._connection.long_body_ended()
        elif len(self._ready) >= AHEAD or cycle.response_started:
            self._connection.flow.pause_reading()

    def _hand_over(self) -> None:
        """What is in the slab; the body goes on in a new one."""
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None
        cycle = self._cycle
        if not cycle.response_complete and self._slab is not None:
            self._ready.append(memoryview(self._slab)[: self._filled])
            self._slab = None
            cycle.message_event.set()
        self._room = self._room - self._filled or SLAB
        self._filled = 0

    def _be_patient(self) -> None:
        self._hurry = self._connection.loop.call_later(PATIENCE, self._hurry_up)

    def _hurry_up(self) -> None:
        self._hurry = None
        if self._waiting and self._filled:
            self._hand_over()

    async def receive(self) -> dict[str, Any]:
        """As in ASGI, but `body` is a slab, whole unless it is the last or the client is slow; whoever has it may
        give it back. All that came is handed over before the word that there is no more."""
        cycle, flow = self._cycle, self._connection.flow
        if cycle.waiting_for_100_continue and not self._connection.transport.is_closing():
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        flow.resume_reading()
        if self._filled and not self._ready and self._hurry is None:
            self._be_patient()
        self._waiting = True
        try:
            while not (self._ready or self._cut or cycle.disconnected or cycle.response_complete):
                await cycle.message_event.wait()
                cycle.message_event.clear()
        finally:
            self._waiting = False
        if cycle.response_complete or not self._ready:
            return {"type": "http.disconnect"}
        return {
            "type": "http.request",
            "body": self._ready.popleft(),
            "more_body": bool(self._left or self._ready),
        }

    def eof_received(self) -> bool | None:
        self._break_off()
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._break_off()
        self._connection.connection_lost(exc)

    def _break_off(self) -> None:
        self._cut = True
        self._no_more()
        if self._filled:
            self._hand_over()
        self._slab = None  # it was taken for bytes that never came

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
