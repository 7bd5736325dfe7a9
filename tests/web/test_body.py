"""Long bodies reach the application as they come: all of what came, also from the slow and from those who leave."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from mediasvc.store.slabs import SLAB, slab_of
from mediasvc.web.body import MANY, SHARE, LongBody
from tests.waiting import until
from tests.web.conftest import Serve

CONTENT = os.urandom(5 * SLAB + 1234)


class Receiver:
    """An application that keeps what it receives. Where `free` is cleared it waits before it asks for more."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.in_slabs = True
        self.gone = False
        self.ended = False
        self.free = asyncio.Event()
        self.free.set()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        more = True
        while more:
            await self.free.wait()
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                break
            self.in_slabs &= slab_of(message["body"]) is not None
            self.pieces.append(bytes(message["body"]))
            more = message["more_body"]
        else:
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})
        self.ended = True

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@contextmanager
def sending(port: int, *, length: int = len(CONTENT)) -> Iterator[socket.socket]:
    """A connection on which the head of a request has been sent."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
        yield connection


def answered(connection: socket.socket) -> bool:
    answer = b""
    while not answer.endswith(b"\r\n\r\nok"):
        piece = connection.recv(1000)
        assert piece, answer
        answer += piece
    return answer.startswith(b"HTTP/1.1 200")


def test_a_body_arrives_in_slabs(serve: Serve) -> None:
    app = Receiver()
    with sending(serve(app)) as connection:
        connection.sendall(CONTENT)
        assert answered(connection)
    assert app.body == CONTENT
    assert app.in_slabs


LEFT = {
    "one byte": 1,
    "part of a slab": 700_001,
    "a slab": SLAB,
    "a slab and a part": SLAB + 5,
    "more": 3 * SLAB + 9,
}


@pytest.mark.parametrize("size", LEFT.values(), ids=LEFT)
def test_what_came_before_the_client_left_is_handed_over_first(serve: Serve, size: int) -> None:
    app = Receiver()
    with sending(serve(app)) as connection:
        connection.sendall(CONTENT[:size])
    until(lambda: app.ended)
    assert app.gone
    assert app.body == CONTENT[:size]


def test_what_came_before_a_reset_is_handed_over_first(serve: Serve) -> None:
    """What the kernel still had is lost with a reset; what we had is not."""
    app = Receiver()
    with sending(serve(app)) as connection:
        connection.sendall(CONTENT[:700_001])
        until(lambda: len(app.body) == 700_001)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: app.ended)
    assert app.gone
    assert app.body == CONTENT[:700_001]


def test_an_application_that_is_busy_gets_it_later(serve: Serve) -> None:
    app = Receiver()
    with sending(serve(app)) as connection:
        connection.sendall(CONTENT[:100_000])
        until(lambda: len(app.body) == 100_000)
        app.free.clear()
        connection.sendall(CONTENT[100_000:300_000])
        until(lambda: len(app.body) == 300_000)  # the one it waited for already
        connection.sendall(CONTENT[300_000:400_000])
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.1)  # the server has noticed
        assert app.loop is not None
        app.loop.call_soon_threadsafe(app.free.set)
        until(lambda: app.ended)
    assert app.gone
    assert app.body == CONTENT[:400_000]


def test_a_slow_client_is_heard_before_the_slab_is_full(serve: Serve) -> None:
    app = Receiver()
    with sending(serve(app)) as connection:
        for sent in (1, 70_001, 70_002, 900_000, SLAB - 1, SLAB + 1, 2 * SLAB):
            connection.sendall(CONTENT[len(app.body) : sent])
            until(lambda sent=sent: len(app.body) == sent)  # type: ignore[misc]
        connection.sendall(CONTENT[2 * SLAB :])
        assert answered(connection)
    assert app.body == CONTENT


def test_after_a_pause_slabs_begin_where_they_did(serve: Serve) -> None:
    """At multiples of their size, where the disk takes them past the page cache."""
    app = Receiver()
    with sending(serve(app)) as connection:
        connection.sendall(CONTENT[:1000])
        until(lambda: len(app.body) == 1000)
        connection.sendall(CONTENT[1000:])
        assert answered(connection)
    assert app.body == CONTENT
    ends = [sum(map(len, app.pieces[: count + 1])) for count in range(len(app.pieces))]
    assert ends[-1] == len(CONTENT)
    assert set(range(SLAB, len(CONTENT), SLAB)) <= set(ends)


def test_the_next_request_is_heard_after_a_slow_body(serve: Serve) -> None:
    app = Receiver()
    with sending(serve(app)) as connection:
        connection.sendall(CONTENT[:1000])
        until(lambda: len(app.body) == 1000)
        connection.sendall(CONTENT[1000:])
        assert answered(connection)
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nend")
        assert answered(connection)
    assert app.body == CONTENT + b"end"


def test_many_bodies_at_once_share_the_memory(serve: Serve) -> None:
    """One is in the middle of a slab when many others come; all arrive whole, and in smaller pieces."""
    receivers: list[Receiver] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        receivers.append(Receiver())
        await receivers[-1](scope, receive, send)

    port = serve(app)
    with sending(port) as first, ExitStack() as stack:
        first.sendall(CONTENT[: SLAB // 2])
        time.sleep(0.1)
        others = [stack.enter_context(sending(port)) for _ in range(2 * MANY)]
        for other in others:
            other.sendall(CONTENT[:SLAB])
        first.sendall(CONTENT[SLAB // 2 :])
        for other in others:
            other.sendall(CONTENT[SLAB:])
        assert all(answered(connection) for connection in (first, *others))
    assert all(receiver.body == CONTENT for receiver in receivers)
    assert min(len(receiver.pieces[0]) for receiver in receivers) <= SHARE
    until(lambda: LongBody._at_once == 0)
