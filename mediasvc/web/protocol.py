"""How a connection speaks HTTP: uvicorn's protocol with patience that ends, and with files.

Extended are classes that are private to uvicorn: the version is pinned and tests guard it. A request's head has
to be complete within `HEAD_TIMEOUT` seconds and `MAX_HEAD` bytes, and a body may pause for `BODY_TIMEOUT` seconds:
uvicorn has no settings for either. Plain sockets take files (`sendfile.py`) and long bodies (`body.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mediasvc.store.slabs import SLAB
from mediasvc.web.body import LongBody
from mediasvc.web.errors import malformed_request
from mediasvc.web.express import Express
from mediasvc.web.half_closed import Watch
from mediasvc.web.sendfile import EXTENSION, SUPPORTED, Message, Sender

Application = Callable[..., Awaitable[None]]

HEAD_TIMEOUT = 30.0
BODY_TIMEOUT = 60.0  # seconds of silence in the middle of a body, as nginx's client_body_timeout
MAX_HEAD = 64 * 1024
INFORM = "mediasvc.inform"  # the extension that sends a 104 (Upload Resumption Supported), before the answer


class ServerProtocol(HttpToolsProtocol):
    """One connection. Offers `http.response.zerocopysend` where the kernel can copy from a file to the socket."""

    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _heard_at = 0.0
    _waiter: asyncio.Future[None] | None = None
    _zero_copy = False
    _in_head = False
    _head_size = 0
    _long_body: LongBody | None = None
    _idle_timer: asyncio.TimerHandle | None = None
    _watch: Watch | None = None  # once the client has sent its last byte

    def __init__(self, *args: Any, express: Express | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._express = express

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._zero_copy = SUPPORTED and self.scheme == "http"
        # Good only while the transport is not closing: after that the number may be another connection's.
        self.fd: int = transport.get_extra_info("socket").fileno()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._body_came()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._watch is not None:
            self._watch.end()
        super().connection_lost(exc)
        self.wake()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's own never says anything
        """Who sends no more may still read: it gets the answer to what it asked, and then the connection ends.

        Not over TLS, which asyncio and uvloop close as a whole.
        """
        cycle = self.cycle
        if self.scheme != "http" or cycle is None or cycle.response_complete:
            return None
        cycle.keep_alive = False
        self._body_came()
        if self._watch is None:
            self._watch = Watch(cycle, self.transport, self.loop)
        if cycle.more_body:  # which will not come; whoever waits for it is told
            cycle.message_event.set()
        return True

    def data_received(self, data: bytes) -> None:
        self.heard()
        if self._express is not None and self._at_rest:
            peer = self.client[0] if self.client else ""
            answer = self._express.answer(data, peer, self.server_state.default_headers)
            if answer is not None:
                self.transport.writelines(answer)
                self._await_next()
                return
        if self._idle_timer is not None:  # what follows has timers of its own
            self._idle_timer.cancel()
            self._idle_timer = None
        was_in_head = self._in_head
        super().data_received(data)
        if self._long_body is not None:
            self.transport.set_protocol(self._long_body)
        if was_in_head and self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("the head is too large")
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        elif self._body_timer is None and self.cycle is not None and self.cycle.more_body:
            self._await_body()

    @property
    def _at_rest(self) -> bool:
        """Whether what comes now is the beginning of a request, and every other has its answer, which is read."""
        cycle = self.cycle
        answered = cycle is None or (cycle.response_complete and not cycle.more_body)
        return answered and not self._in_head and not self.flow.write_paused

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        extensions: dict[str, Any] = {INFORM: self.inform}
        if self._zero_copy:
            extensions[EXTENSION] = {}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_came()
        super().on_headers_complete()
        if self._zero_copy and (length := _declared_length(self.headers)) > SLAB:
            self._long_body = LongBody(self, length)
            self.cycle.receive = self._long_body.receive  # type: ignore[method-assign,assignment]

    def on_message_complete(self) -> None:
        self._body_came()
        super().on_message_complete()

    def _await_next(self) -> None:
        """After an answer that uvicorn knows nothing of: its own timers would count from an earlier one."""
        self._head_came()
        self._unset_keepalive_if_required()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_if_idle)

    def _look_if_idle(self) -> None:
        """One timer for many answers: it looks when the last one was asked for."""
        self._idle_timer = None
        silent = self.loop.time() - self._heard_at
        if silent >= self.timeout_keep_alive and not self.flow.write_paused:
            self.transport.close()
        else:
            again = max(self.timeout_keep_alive - silent, 1)
            self._idle_timer = self.loop.call_later(again, self._look_if_idle)

    def _await_body(self) -> None:
        """For a body that did not come whole with its head; the application has not asked for it yet."""
        self._body_timer = self.loop.call_later(BODY_TIMEOUT, self._look_after_body)
        if self._long_body is None:
            self.cycle.receive = partial(self._receive, self.cycle)  # type: ignore[method-assign,assignment]

    async def _receive(self, cycle: RequestResponseCycle) -> Message:
        """As uvicorn's own, for which a connection is whole or lost: of one whose client sends no more all that came is
        handed over, then the word that there is no rest, and still the answer can be sent."""
        if self._watch is not None and cycle.more_body and not cycle.body:
            return {"type": "http.disconnect"}
        return await RequestResponseCycle.receive(cycle)  # type: ignore[return-value]

    def _body_came(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

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
        if self._long_body is not None:
            self._long_body.feed(body)
            return
        if cycle.body or cycle.response_complete:
            super().on_body(body)
            return
        cycle.body = body  # type: ignore[assignment]  # what `receive` gives is `bytes(body)`: the same object
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def inform(self, headers: Mapping[str, str]) -> None:
        """Send a 104: uvicorn knows no answer before the answer. Of the draft on resumable uploads."""
        if not self.transport.is_closing():
            lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
            self.transport.write(
                f"HTTP/1.1 104 Upload Resumption Supported\r\n{''.join(lines)}\r\n".encode("latin-1")
            )

    def heard(self) -> None:
        self._heard_at = self.loop.time()

    def long_body_ended(self) -> None:
        """The parser never saw the body and still waits for it: the next request gets a new one."""
        self._long_body = None
        self.on_message_complete()
        self.transport.set_protocol(self)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem too, unless it would end up inside the answer to an earlier request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started):
            self.transport.write(malformed_request())
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """curl offers HTTP/2 this way; staying with HTTP/1.1 is an answer, and no news."""

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


def _declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return 0


def _answer(
    app: Application,
    protocol: ServerProtocol,
    cycle: RequestResponseCycle,
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Any], Awaitable[None]],
) -> Awaitable[None]:
    return app(scope, receive, Sender(protocol, cycle, send))
