"""A client that sends no more, and may still read: whether it is there.

Who closes the whole connection looks the same until its kernel answers what we write with a reset; and a socket that
is neither read nor written is watched by nobody.
"""

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LOOK = 1.0  # seconds between two looks, the first of which most answers are quicker than


class Watch:
    """Aborts the connection of a client that has gone before `cycle`, the last one on it, was answered."""

    def __init__(
        self, cycle: RequestResponseCycle, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._cycle = cycle
        self._transport = transport
        self._loop = loop
        self._probed = False
        self._timer = loop.call_later(LOOK, self._look)

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._transport.is_closing():  # the loop writes what is left, and meets the reset
            return
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        self._probe()
        self._timer = self._loop.call_later(LOOK, self._look)

    def _probe(self) -> None:
        """Write something that means nothing into an answer that may be silent for long, as the feed of events is.

        A chunk's size may begin with zeros (RFC 9112, section 7.1), and between two writes no chunk is open.
        """
        cycle = self._cycle
        silent = cycle.response_started and not self._transport.get_write_buffer_size()
        if silent and cycle.chunked_encoding and not (self._probed or cycle.response_complete):
            self._probed = True
            cycle.transport.write(b"0")
