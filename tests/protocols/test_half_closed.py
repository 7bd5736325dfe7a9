"""Clients that end their side of the connection with the request, as `nc -N` does, and read on."""

import hashlib
import os
import secrets
import socket
import time

import httpx
import pytest

from tests.protocols import wire
from tests.protocols.uploading import OCTETS, TUS, create, offset_of
from tests.servers import Server

MIB = 1 << 20
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def ask(server: Server, method: str, target: str, body: bytes = b"", **headers: str) -> wire.Answer:
    """Send all, end our side, read the answer; and the server ends its own after it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with wire.connect(server.url) as connection:
        connection.sendall(wire.head(method, target, server.headers | named) + body)
        connection.shutdown(socket.SHUT_WR)
        answer = wire.read_answer(connection, method)
        assert connection.recv(1) == b""
    return answer


def put(size: int) -> tuple[str, str, dict[str, str], bytes]:
    return "PUT", "/b/media/cut", {"Content_Length": str(size)}, bytes(size // 2)


CHUNKED = {"Transfer_Encoding": "chunked"}
IN_A_FORM = {"Content_Type": "multipart/form-data; boundary=x"}
CUT = {
    "short": put(10),
    "long": put(5 * MIB),
    "nothing": ("PUT", "/b/media/cut", {"Content_Length": "10"}, b""),
    "in a chunk": ("PUT", "/b/media/cut", CHUNKED, b"5\r\nhel"),
    "between chunks": ("PUT", "/b/media/cut", CHUNKED, b"5\r\nhello\r\n"),
    "form": ("POST", "/v1/assets", {**IN_A_FORM, "Content_Length": "500"}, FORM + b"hel"),
    "long form": (
        "POST",
        "/v1/assets",
        {**IN_A_FORM, "Content_Length": str(5 * MIB)},
        FORM + bytes(3 * MIB),
    ),
    "json": (
        "POST",
        "/v1/keys",
        {"Content_Type": "application/json", "Content_Length": "50"},
        b'{"scopes": [',
    ),
}


@pytest.mark.parametrize(("method", "target", "headers", "body"), CUT.values(), ids=CUT)
def test_a_body_that_ends_too_early_is_a_problem(
    each_server: Server, api: httpx.Client, method: str, target: str, headers: dict[str, str], body: bytes
) -> None:
    began = time.monotonic()
    answer = ask(each_server, method, target, body, **headers)
    assert time.monotonic() - began < 5
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "bad_body"
    assert answer.headers["Connection"] == "close"
    assert api.get("/b/media/cut").status_code == 404
    assert "Traceback" not in each_server.logged()


@pytest.mark.parametrize("size", [0, 3, 100_000, 5 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_whole_body_is_stored(each_server: Server, api: httpx.Client, size: int, chunked: bool) -> None:
    url, content = f"/b/media/{secrets.token_hex(6)}", os.urandom(size)
    headers = CHUNKED if chunked else {"Content_Length": str(size)}
    body = b"".join(wire.pieces(size, chunked=True, first=content)) if chunked else content
    answer = ask(each_server, "PUT", url, body, **headers)
    assert (answer.status, answer.json()["sha256"]) == (201, hashlib.sha256(content).hexdigest())
    assert api.get(url).content == content


@pytest.mark.parametrize("size", [3, 50_000, 20 * MIB])
def test_a_download_arrives_whole(each_server: Server, api: httpx.Client, size: int) -> None:
    url, content = f"/b/media/{secrets.token_hex(6)}", os.urandom(size)
    api.put(url, content=content)
    for _ in range(3):  # the long way, and then by the short one
        answer = ask(each_server, "GET", url)
        assert answer.status == 200
        assert answer.content == content


@pytest.mark.parametrize("size", [3, 70_000, 3 * MIB])
def test_what_came_of_an_upload_is_kept_and_its_writer_let_go(
    each_server: Server, api: httpx.Client, size: int
) -> None:
    content = os.urandom(size)
    url = create(api, size + 1)
    began = time.monotonic()
    said = {**TUS, **OCTETS, "Upload-Offset": "0", "Content-Length": str(size + 1)}
    answer = ask(each_server, "PATCH", httpx.URL(url).path, content, **said)
    assert answer.status == 400
    assert offset_of(api, url) == size
    assert time.monotonic() - began < 5


def test_a_feed_goes_on(each_server: Server, api: httpx.Client) -> None:
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("GET", "/v1/events", each_server.headers))
        received = connection.recv(4096)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(2.5)  # long enough to find out that somebody is there
        key = secrets.token_hex(6)
        api.put(f"/b/media/{key}", content=b"x")
        while key.encode() not in received:
            piece = connection.recv(4096)
            assert piece, received
            received += piece
    assert b"\r\n0" in received


def test_a_long_download_ends_for_a_client_that_closes(each_server: Server, api: httpx.Client) -> None:
    url = f"/b/media/{secrets.token_hex(6)}"
    api.put(url, content=bytes(50 * MIB))
    for _ in range(3):
        with each_server.request_ends("GET", url), wire.connect(each_server.url) as connection:
            connection.sendall(wire.head("GET", url, each_server.headers))
