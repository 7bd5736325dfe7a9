"""Clients that send no more and still read, and clients that have gone: the same at first, not for long."""

import asyncio
import logging
import os
import random
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mediasvc.store.slabs import SLAB
from mediasvc.web import half_closed
from mediasvc.web.body import LongBody
from mediasvc.web.sendfile import EXTENSION
from tests.waiting import until
from tests.web.conftest import Serve

CONTENT = random.Random(9).randbytes(9 * 1024 * 1024 + 321)
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"


class App:
    """Tells how much came; or, at `/file`, sends one; at `/feed` begins an answer that has no end until `over`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.body = bytearray()
        self.free = asyncio.Event()
        self.free.set()
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        outcome = "cancelled"
        try:
            match scope["path"]:
                case "/file":
                    await self._file(send)
                    outcome = "sent"
                case "/feed":
                    outcome = await self._feed(receive, send)
                case _:
                    outcome = await self._take(receive, send)
        except ConnectionResetError:
            outcome = "client gone"
        finally:
            self.ended.append(outcome)

    async def _take(self, receive: Any, send: Any) -> str:
        more, cut = True, False
        while more and not cut:
            await self.free.wait()
            message = await receive()
            cut = message["type"] == "http.disconnect"
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await _say(send, 400 if cut else 201, b"%d" % len(self.body))
        return "cut" if cut else "whole"

    async def _file(self, send: Any) -> None:
        with self.path.open("rb", buffering=0) as file:
            headers = [(b"content-length", b"%d" % len(CONTENT))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": EXTENSION, "file": file, "offset": 0, "count": len(CONTENT)})

    async def _feed(self, receive: Any, send: Any) -> str:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun;", "more_body": True})
        told, over = asyncio.ensure_future(receive()), asyncio.ensure_future(self.over.wait())
        await asyncio.wait((told, over), return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            over.cancel()
            return str(told.result()["type"])
        await send({"type": "http.response.body", "body": b"over"})
        told.cancel()
        return "sent"

    def call(self, what: Callable[[], object]) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(what)


async def _say(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app(tmp_path: Path) -> App:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return App(path)


@pytest.fixture
def port(app: App, serve: Serve, caplog: pytest.LogCaptureFixture) -> Iterator[int]:
    caplog.set_level(logging.WARNING, "uvicorn.error")
    yield serve(app)
    assert not caplog.records


@contextmanager
def connected(port: int, sent: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        yield connection


def half_close(connection: socket.socket) -> bytes:
    """All that comes after the last byte was sent, until the server closes."""
    connection.shutdown(socket.SHUT_WR)
    return connection.makefile("rb").read()


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each."""
    read = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length
        read.append((int(head.split()[1]), received[: int(length[1])]))
        received = received[int(length[1]) :]
    return read


def put(length: int) -> bytes:
    return b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = len(CONTENT)
CUT = {
    "nothing": (put(10), 0),
    "half": (put(10) + b"12345", 5),
    "more than is read ahead": (put(500_000) + CONTENT[:400_000], 400_000),
    "nothing in chunks": (CHUNKED, 0),
    "in a chunk": (CHUNKED + b"5\r\nhello\r\n5\r\nwo", 7),
    "before the last chunk": (CHUNKED + b"5\r\nhello\r\n", 5),
    "nothing of a long one": (put(LONG), 0),
    "some of a long one": (put(LONG) + CONTENT[:700_001], 700_001),
    "a slab of a long one": (put(LONG) + CONTENT[:SLAB], SLAB),
    "slabs and some of a long one": (put(LONG) + CONTENT[: 2 * SLAB + 7], 2 * SLAB + 7),
    "nothing, and not asked for": (
        put(10).replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"),
        0,
    ),
}


@pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "later"])
@pytest.mark.parametrize(("sent", "size"), CUT.values(), ids=CUT)
def test_a_body_that_ends_too_early_is_handed_over_and_answered(
    port: int, app: App, sent: bytes, size: int, pause: float
) -> None:
    began = time.monotonic()
    with connected(port, sent) as connection:
        time.sleep(pause)
        received = half_close(connection).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answers(received) == [(400, b"%d" % size)]
    assert b"\r\nconnection: close\r\n" in received
    assert time.monotonic() - began < 5
    assert app.ended == ["cut"]
    assert app.body == (b"hellowo"[:size] if b"chunked" in sent else sent[len(sent) - size :])
    until(lambda: LongBody._at_once == 0)


WHOLE = {
    "none": (put(0), 0),
    "short": (put(3) + b"abc", 3),
    "in chunks": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", 3),
    "long": (put(LONG) + CONTENT, LONG),
}


@pytest.mark.parametrize(("sent", "size"), WHOLE.values(), ids=WHOLE)
def test_a_whole_body_is_answered_and_then_the_connection_ends(
    port: int, app: App, sent: bytes, size: int
) -> None:
    with connected(port, sent) as connection:
        received = half_close(connection)
    assert answers(received) == [(201, b"%d" % size)]
    assert app.ended == ["whole"]


def test_an_answer_that_takes_its_time_arrives(port: int, app: App) -> None:
    app.free.clear()
    with connected(port, put(3) + b"abc") as connection:
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        app.call(app.free.set)
        received = connection.makefile("rb").read()
    assert answers(received) == [(201, b"3")]
    assert b"\r\nconnection: close\r\n" in received


def test_what_was_asked_ahead_is_answered_in_order(port: int, app: App) -> None:
    with connected(port, put(3) + b"abc" + GET % b"file" + put(2) + b"de" + put(9) + b"fgh") as connection:
        (one, two, three, four) = answers(half_close(connection))
    assert (one, three, four) == ((201, b"3"), (201, b"5"), (400, b"8"))
    assert two == (200, CONTENT)


def test_half_a_head_after_a_request_is_let_be(port: int) -> None:
    with connected(port, GET % b"file" + b"GET /fi") as connection:
        assert answers(half_close(connection)) == [(200, CONTENT)]


def test_what_follows_a_long_body_is_answered(port: int) -> None:
    with connected(port, put(LONG) + CONTENT + put(2) + b"d") as connection:
        assert answers(half_close(connection)) == [(201, b"%d" % LONG), (400, b"%d" % (LONG + 1))]


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", put(2) + b"ab"], ids=["nothing", "half a head", "answered"]
)
def test_without_a_request_the_connection_ends_at_once(port: int, sent: bytes) -> None:
    with connected(port, sent) as connection:
        if sent.startswith(b"PUT"):
            assert connection.recv(1000).startswith(b"HTTP/1.1 201")
        assert half_close(connection) == b""


@pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "later"])
def test_a_file_arrives_whole(port: int, app: App, pause: float) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", port))
        slow.sendall(GET % b"file")
        time.sleep(pause)
        assert half_close(slow).partition(b"\r\n\r\n")[2] == CONTENT
    assert app.ended == ["sent"]


@pytest.mark.parametrize("read", [0, 100_000])
def test_a_file_for_a_client_that_closed_is_not_sent_on(port: int, app: App, read: int) -> None:
    """Without a reset: it has read all that came."""
    with connected(port, put(0)) as connection:
        half_close(connection)
    before = descriptors()
    for _ in range(10):
        with connected(port, GET % b"file") as connection:
            for _ in range(read // 1000):
                connection.recv(1000)
    until(lambda: len(app.ended) == 11)
    assert set(app.ended[1:]) == {"client gone"}
    until(lambda: descriptors() <= before)
    until(lambda: app.loop is not None and len(asyncio.all_tasks(app.loop)) == 1)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_silent_answer_goes_on_for_who_still_reads(
    port: int, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_closed, "LOOK", 0.05)
    with connected(port, GET % b"feed") as connection:
        connection.shutdown(socket.SHUT_WR)
        until(lambda: app.loop is not None)
        time.sleep(0.3)
        app.call(app.over.set)
        received = connection.makefile("rb").read()
    assert received.endswith(b"6\r\nbegun;\r\n04\r\nover\r\n0\r\n\r\n")
    assert app.ended == ["sent"]


@pytest.mark.parametrize("manner", ["closes", "resets", "closes later", "resets after its last byte"])
def test_a_silent_answer_ends_for_who_has_gone(port: int, app: App, manner: str) -> None:
    began = time.monotonic()
    with connected(port, GET % b"feed") as connection:
        if manner != "closes":
            while not connection.recv(1000).endswith(b"begun;\r\n"):
                pass
        if manner == "resets after its last byte":
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.1)
        if manner.startswith("resets"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: len(app.ended) == 1)
    assert app.ended == ["http.disconnect"]
    assert time.monotonic() - began < 5


def test_over_tls_a_connection_ends_as_a_whole(
    app: App, serve: Serve, certificate: tuple[Path, Path]
) -> None:
    port = serve(app, ssl_certfile=certificate[0], ssl_keyfile=certificate[1])
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname="localhost"
    ) as client:
        client.sendall(put(10) + b"12345")
        until(lambda: len(app.body) == 5)
        client.unwrap()
    until(lambda: app.ended == ["cut"])
