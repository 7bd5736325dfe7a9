"""HTTP by hand: what well-behaved libraries do not do, and how many bytes it takes."""

import fcntl
import http.client
import re
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire, and how many bytes of a body had gone over it by then."""

    status: int
    headers: httpx.Headers
    content: bytes
    sent: int = 0

    def json(self) -> dict[str, object]:
        return httpx.Response(self.status, content=self.content).json()


def connect(url: str, timeout: float = 30) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout)


def head(method: str, target: str, headers: dict[str, str], *, host: str = "test") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "surrogateescape")


def read_answer(connection: socket.socket, method: str = "GET", sent: int = 0) -> Answer:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    content = response.read()
    return Answer(response.status, httpx.Headers(response.getheaders()), content, sent)


def exchange(url: str, raw: bytes, method: str = "GET") -> Answer:
    """Send bytes as they are, read one answer."""
    with connect(url) as connection:
        connection.sendall(raw)
        return read_answer(connection, method)


def statuses(url: str, raw: bytes) -> list[int]:
    """Send bytes as they are; the statuses of all answers until the server closes."""
    with connect(url) as connection:
        connection.sendall(raw)
        received = read_to_end(connection)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def read_to_end(connection: socket.socket) -> bytes:
    received = bytearray()
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)


def pieces(size: int, *, chunked: bool, first: bytes = b"") -> Iterator[bytes]:
    """A body of `size` bytes that begins with `first`, framed if `chunked`."""
    piece, left = bytes(1 << 16), size
    while left:
        now = first or piece
        first, now = b"", now[:left]
        left -= len(now)
        yield b"%x\r\n%b\r\n" % (len(now), now) if chunked else now
    if chunked:
        yield b"0\r\n\r\n"


def flood(
    url: str,
    method: str,
    target: str,
    headers: dict[str, str],
    size: int,
    *,
    chunked: bool = False,
    first: bytes = b"",
    blind: bool = False,
) -> Answer:
    """Upload `size` bytes as fast as they go, until an answer comes (`blind`: until the server hangs up)."""
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
    sent = gone = 0
    with connect(url) as connection:
        connection.sendall(head(method, target, headers | framing))
        connection.setblocking(False)
        body = pieces(size, chunked=chunked, first=first)
        waiting, deadline = memoryview(next(body, b"")), time.monotonic() + 60
        while waiting and time.monotonic() < deadline:
            readable, writable, _ = select.select([connection], [connection], [], 0.05)
            gone = max(gone, sent - _held_back(connection))
            if readable and not blind:
                break
            if not writable:
                continue
            try:
                count = connection.send(waiting)
            except (ConnectionResetError, BrokenPipeError):
                break
            sent += count
            waiting = waiting[count:] or memoryview(next(body, b""))
        connection.settimeout(30)
        return read_answer(connection, method, gone if blind else sent)


def _held_back(connection: socket.socket) -> int:
    """Bytes that the kernel took from us and the other side has not: several megabytes, if they come blindly."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0])
