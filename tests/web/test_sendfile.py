"""Files over real sockets: every byte in place, however the client behaves."""

import asyncio
import http.client
import importlib.metadata
import inspect
import json
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mediasvc.web import protocol, sendfile
from mediasvc.web.sendfile import EXTENSION, FileBroken
from tests.waiting import until

CONTENT = random.Random(8).randbytes(9 * 1024 * 1024 + 123)


class FileServer:
    """An application that sends spans of one file; `?` of the URL says which: `start-stop,start-stop`.

    `ended` gets what came of each request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.promised = len(CONTENT)
        self.ended: list[str] = []
        self.offered: list[bool] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.current_thread().name
        self.offered.append(EXTENSION in scope.get("extensions", {}))
        try:
            await self._answer(scope, send)
        except ConnectionResetError:
            self.ended.append("client gone")
        except FileBroken:
            self.ended.append("file broken")
        else:
            self.ended.append("sent")

    async def _answer(self, scope: Any, send: Any) -> None:
        spans = [(0, self.promised)]
        if query := scope["query_string"].decode():
            spans = [tuple(map(int, span.split("-"))) for span in query.split(",")]  # type: ignore[misc]
        between = b"|"
        length = sum(stop - start for start, stop in spans) + len(between) * (len(spans) - 1)
        headers = [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with self.path.open("rb", buffering=0) as file:
            for number, (start, stop) in enumerate(spans, 1):
                more = number < len(spans)
                message = {"file": file, "offset": start, "count": stop - start, "more_body": more}
                await send({"type": EXTENSION, **message})
                if more:
                    await send({"type": "http.response.body", "body": between, "more_body": True})


@pytest.fixture
def files(tmp_path: Path) -> FileServer:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return FileServer(path)


@pytest.fixture
def port(files: FileServer, serve: Callable[..., int]) -> int:
    return serve(files)


def get(port: int, target: str = "/", method: str = "GET") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, target)
        return connection.getresponse().read()
    finally:
        connection.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


SPANS = {
    "all": [(0, len(CONTENT))],
    "one byte": [(7, 8)],
    "no byte": [(5, 5)],
    "a page": [(4096, 8192)],
    "across turns": [(1, sendfile.MAX_TURN * 2 + 2)],
    "the end": [(len(CONTENT) - 3, len(CONTENT))],
    "several": [(0, 10), (5_000_000, 9_000_000), (3, 4)],
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
def test_spans_arrive_as_they_are(port: int, spans: list[tuple[int, int]]) -> None:
    query = ",".join(f"{start}-{stop}" for start, stop in spans)
    assert get(port, f"/?{query}") == b"|".join(CONTENT[start:stop] for start, stop in spans)


def test_head_sends_no_byte_of_the_file_and_keeps_the_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("HEAD", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["content-length"], answer.read()) == (200, str(len(CONTENT)), b"")
    connection.request("GET", "/?0-10")
    assert connection.getresponse().read() == CONTENT[:10]
    connection.close()


def test_requests_sent_ahead_are_answered_in_order(port: int) -> None:
    spans = [(0, 3), (100, 4_000_000), (9, 9), (5, 70_000)]
    requests = b"".join(b"GET /?%d-%d HTTP/1.1\r\nHost: x\r\n\r\n" % span for span in spans)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(requests)
        answers = client.makefile("rb")
        for start, stop in spans:
            head = b"".join(iter(answers.readline, b"\r\n"))
            length = re.search(rb"content-length: (\d+)", head)
            assert length
            assert int(length[1]) == stop - start
            assert answers.read(stop - start) == CONTENT[start:stop]


def test_a_connection_that_is_to_be_closed_is_closed_after_the_last_byte(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = client.makefile("rb").read()
    assert received.partition(b"\r\n\r\n")[2] == CONTENT


def test_http_1_0_gets_the_file_and_the_end(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /?0-300000 HTTP/1.0\r\n\r\n")
        received = client.makefile("rb").read()
    assert received.partition(b"\r\n\r\n")[2] == CONTENT[:300_000]


def test_many_clients_at_once_each_get_their_own_bytes(port: int, files: FileServer) -> None:
    rng = random.Random(1)
    spans = [sorted(rng.sample(range(len(CONTENT)), 2)) for _ in range(60)]
    with ThreadPoolExecutor(12) as clients:
        bodies = list(clients.map(lambda span: get(port, f"/?{span[0]}-{span[1]}"), spans))
    assert all(body == CONTENT[start:stop] for body, (start, stop) in zip(bodies, spans, strict=True))
    until(lambda: len(files.ended) == 60)
    assert set(files.ended) == {"sent"}


def test_a_slow_reader_gets_everything_and_holds_nobody_up(port: int) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        slow.settimeout(20)
        slow.sendall(b"GET /?0-6000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = slow.recv(1000)
        assert get(port, "/?0-100000") == CONTENT[:100_000]
        while piece := slow.recv(65536):
            received += piece
    assert received.partition(b"\r\n\r\n")[2] == CONTENT[:6_000_000]


@pytest.mark.parametrize("manner", ["closes", "resets"])
def test_a_client_that_leaves_stops_the_work_at_once(port: int, files: FileServer, manner: str) -> None:
    get(port, "/?0-1")
    before = descriptors()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(100)
        if manner == "resets":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    until(lambda: len(files.ended) == 21)
    assert set(files.ended[1:]) == {"client gone"}
    until(lambda: descriptors() <= before)
    until(lambda: files.loop is not None and len(asyncio.all_tasks(files.loop)) == 1)


def test_a_client_that_leaves_while_it_waits_is_noticed(port: int, files: FileServer) -> None:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(10)
    time.sleep(0.1)  # long enough for every buffer on the way to be full
    assert not files.ended
    client.close()
    until(lambda: files.ended == ["client gone"])


def test_a_file_that_falls_short_breaks_the_answer_off(port: int, files: FileServer) -> None:
    files.promised += 1000
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        get(port)
    until(lambda: files.ended == ["file broken"])
    files.promised -= 1000
    assert get(port) == CONTENT


def test_a_file_that_shrinks_under_way_breaks_the_answer_off(port: int, files: FileServer) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(10)
        os.truncate(files.path, 1000)
        received = len(client.makefile("rb").read())
    assert received < len(CONTENT)
    assert files.ended == ["file broken"]


def test_what_is_not_in_the_page_cache_is_sent_by_a_thread(
    port: int, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    plain = sendfile._sendfile

    def watched(*span: int) -> int:
        threads.add(threading.current_thread().name)
        return plain(*span)

    monkeypatch.setattr(sendfile, "_in_page_cache", lambda *span: False)
    monkeypatch.setattr(sendfile, "_sendfile", watched)
    before = descriptors()
    assert get(port) == CONTENT
    assert threads
    assert not threads & {files.thread, threading.current_thread().name}
    until(lambda: descriptors() <= before + 1)  # the executor's own wake-up pipe may be new


def test_a_disk_that_fails_breaks_the_answer_off(
    port: int, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*span: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sendfile, "_sendfile", failing)
    with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionResetError)):
        get(port)
    assert files.ended == ["file broken"]


def test_more_than_was_announced_is_never_sent(serve: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(CONTENT[:100])
    refused = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"status": 200, "headers": [(b"content-length", b"5")]}
        await send({"type": "http.response.start", **start})
        with (tmp_path / "blob").open("rb") as file:
            try:
                await send({"type": EXTENSION, "file": file})
            except RuntimeError as error:
                refused.append(error)
            await send({"type": EXTENSION, "file": file, "offset": 3, "count": 5})

    assert get(serve(app)) == CONTENT[3:8]
    assert len(refused) == 1


def test_over_tls_the_extension_is_not_offered(
    serve: Callable[..., int], certificate: tuple[Path, Path]
) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    port = serve(app, ssl_certfile=certificate[0], ssl_keyfile=certificate[1])
    context = ssl.create_default_context(cafile=str(certificate[0]))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    connection.close()
    assert EXTENSION not in seen[0].get("extensions", {})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.3)


HEAD = b"GET /?0-3 HTTP/1.1\r\nHost: x\r\n"
UNFINISHED = {
    "nothing": (b"", b""),
    "half a line": (b"", HEAD[:8]),
    "half a head": (b"", HEAD),
    "a blank line after an answer": (HEAD + b"\r\n", b"\r\n"),
    "half a second head": (HEAD + b"\r\n", b"GET"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("answered", "begun"), UNFINISHED.values(), ids=UNFINISHED)
def test_a_head_that_never_ends_closes_the_connection(
    serve: Callable[..., int], files: FileServer, answered: bytes, begun: bytes
) -> None:
    port = serve(files, timeout_keep_alive=3600)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(answered)
        if answered:
            assert client.recv(1000)
            until(lambda: files.ended == ["sent"])
        client.sendall(begun)
        while client.recv(1000):
            pass


@pytest.mark.usefixtures("impatient")
def test_a_long_answer_is_no_late_head(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        received = client.makefile("rb").read()
    assert received.partition(b"\r\n\r\n")[2] == CONTENT


REFUSED = {
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "both length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a head without end": b"GET / HTTP/1.1\r\nX: " + b"x" * 71_000,
    "a URL without end": b"GET /" + b"x" * 71_000,
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_what_never_becomes_a_request_is_a_problem(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent[:1000])
        time.sleep(0.1)  # two pieces; and no more than the server reads, so that its answer is not reset away
        client.sendall(sent[1000:])
        received = client.makefile("rb").read()
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


def test_a_head_without_end_behind_a_request_cuts_the_connection(port: int, files: FileServer) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionError):
            client.sendall(b"GET /" + b"x" * 50_000_000)
    until(lambda: files.ended == ["client gone"])


def test_uvicorn_is_the_one_whose_private_classes_we_know() -> None:
    assert importlib.metadata.version("uvicorn").startswith("0.54.")
    made = inspect.signature(HttpToolsProtocol._start_asgi_task)
    assert list(made.parameters) == ["self", "cycle", "app"]
    held = inspect.getsource(RequestResponseCycle)
    for name in ("disconnected", "expected_content_length", "chunked_encoding", "response_started", "flow"):
        assert f"self.{name} = " in held


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


POST = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"12345"], ids=["nothing of it", "half of it"])
def test_a_body_that_never_ends_closes_the_connection(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT", 0.3)
    with socket.create_connection(("127.0.0.1", serve(reads_all)), timeout=20) as client:
        client.sendall(POST + sent)
        assert client.recv(1000) == b""


def test_a_body_that_pauses_and_goes_on_is_waited_for(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT", 1.0)
    with socket.create_connection(("127.0.0.1", serve(reads_all)), timeout=20) as client:
        client.sendall(POST)
        for byte in b"0123456789":
            time.sleep(0.2)
            client.sendall(bytes([byte]))
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_body_nobody_reads_yet_is_not_held_against_the_client(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT", 0.2)

    async def reads_late(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1)
        await reads_all(scope, receive, send)

    body = bytes(4 << 20)
    with socket.create_connection(("127.0.0.1", serve(reads_late)), timeout=20) as client:
        client.sendall(POST.replace(b"10", str(len(body)).encode()) + body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
