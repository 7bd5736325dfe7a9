"""Downloads are counted: those we send ourselves, those nginx tells of, and nobody else's."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.servers import BehindNginx, Server, behind_nginx, running

CONTENT = os.urandom(100_000)
LARGE = 30_000_000


def put(server: Server, content: bytes = CONTENT, key: str = "photo.bin") -> str:
    """Gives the new asset's id."""
    with server.client() as client:
        answer = client.put(f"/b/media/{key}", content=content)
        assert answer.status_code in (200, 201)
        return str(answer.json()["id"])


def downloads(server: Server, asset_id: str) -> tuple[int, int]:
    with server.client() as client:
        told = client.get(f"/v1/assets/{asset_id}").json()["downloads"]
    assert set(told) == {"count", "bytes"}
    return told["count"], told["bytes"]


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def outcome(server: Server, name: str) -> float:
    """How many of nginx's lines came to this."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    label = f'mediasvc_receipts_total{{outcome="{name}"}} '
    return next((float(line.removeprefix(label)) for line in lines if line.startswith(label)), 0.0)


def cut_off(server: Server, path: str) -> None:
    """Begin a download, see a little of it arrive, and go away."""
    port = urlsplit(server.url).port
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", port))
        key = server.admin_key
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        assert client.recv(10_000).startswith(b"HTTP/1.1 200")


def use(server: Server, asset_id: str) -> tuple[int, int]:
    """All that counts, and all that does not; gives what it should come to."""
    by_id, by_key = f"/f/{asset_id}/photo.bin", "/b/media/photo.bin"
    with server.client() as client:

        def get(path: str, status: int, **headers: str) -> httpx.Response:
            answer = client.get(
                path, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
            assert answer.status_code == status
            return answer

        begun = [
            get(by_id, 200),
            get(by_key, 200),
            get(by_id, 206, Range="bytes=0-"),
            get(by_key, 206, Range="bytes=0-1"),
            get(by_id, 206, Range="bytes=90000-90009,0-9"),
        ]
        resumed = [
            get(by_id, 206, Range="bytes=5-14"),
            get(by_key, 206, Range="bytes=-10"),
            get(by_id, 206, Range="bytes=1-3,8-9"),
        ]
        tag = begun[0].headers["ETag"]
        assert client.head(by_id).status_code == 200
        get(by_id, 304, If_None_Match=tag)
        get(by_id, 412, If_Match='"other"')
        get(by_id, 416, Range="bytes=200000-")
        get(by_id, 401, Authorization="Bearer msk_no")
        get(f"/v1/assets/{asset_id}", 200)
    return len(begun), sum(len(answer.content) for answer in begun + resumed)


@pytest.fixture(params=[running, behind_nginx], ids=["direct", "behind nginx"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with request.param(tmp_path / "data") as server:
        yield server


def test_an_answer_with_the_first_byte_counts_one_and_bytes_add_up(server: Server) -> None:
    asset_id = put(server)
    assert downloads(server, asset_id) == (0, 0)
    expected = use(server, asset_id)
    wait_until(lambda: downloads(server, asset_id) == expected)
    put(server, CONTENT[::-1])  # a new version of the same asset
    count, sent = use(server, asset_id)
    expected = expected[0] + count, expected[1] + sent
    assert wait_until(lambda: downloads(server, asset_id) == expected), downloads(server, asset_id)
    assert (outcome(server, "counted") > 0) == isinstance(server, BehindNginx)
    assert server.stop() == 0
    server.start()
    assert downloads(server, asset_id) == expected


def test_a_download_that_was_cut_off_counts_with_what_was_sent_of_it(server: Server) -> None:
    asset_id = put(server, bytes(LARGE))
    cut_off(server, f"/f/{asset_id}/zeros")
    assert wait_until(lambda: downloads(server, asset_id)[0] == 1)
    assert 0 < downloads(server, asset_id)[1] < LARGE


def test_an_empty_asset_is_downloaded_too(server: Server) -> None:
    asset_id = put(server, b"")
    with server.client() as client:
        assert client.get(f"/f/{asset_id}/nothing").content == b""
    assert wait_until(lambda: downloads(server, asset_id) == (1, 0))


@pytest.mark.parametrize("size", [5000, 64 * 1024, 0])
def test_few_bytes_that_many_ask_for_are_the_same_each_time_and_all_counted(
    server: Server, size: int
) -> None:
    asset_id = put(server, CONTENT[:size])
    time.sleep(1.1)  # Last-Modified is sent once it lies behind
    with server.client() as client:
        answers = [client.get(f"/f/{asset_id}/x") for _ in range(60)]
    assert {answer.content for answer in answers} == {CONTENT[:size]}
    for answer in answers:
        del answer.headers["Date"], answer.headers["X-Request-Id"]
    assert all(answer.headers == answers[0].headers for answer in answers), answers[0].headers
    assert wait_until(lambda: downloads(server, asset_id) == (60, 60 * size)), downloads(server, asset_id)
    if isinstance(server, BehindNginx):
        assert outcome(server, "counted") < 60, "not all of them were nginx's to send"


def test_a_link_with_a_row_is_counted_apart(server: Server) -> None:
    asset_id = put(server)
    with server.client() as client:
        wanted = {"expires_in": 600, "max_downloads": 5}
        url = client.post(f"/v1/assets/{asset_id}/links", json=wanted).json()["url"]
        client.get(f"/f/{asset_id}/x")
        with server.client(anonymous=True) as reader:
            assert reader.get(url).content == CONTENT
            assert reader.get(url, headers={"Range": "bytes=9-"}).content == CONTENT[9:]

        def link() -> tuple[int, int]:
            (listed,) = client.get(f"/v1/assets/{asset_id}/links").json()["links"]
            return listed["downloads"]["count"], listed["downloads"]["bytes"]

        assert wait_until(lambda: link() == (1, 2 * len(CONTENT) - 9)), link()
        assert wait_until(lambda: downloads(server, asset_id) == (2, 3 * len(CONTENT) - 9))


def test_what_was_counted_last_is_written_down_at_sigterm(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        asset_id = put(server)
        with server.client() as client:
            client.get(f"/f/{asset_id}/x")
        assert server.stop() == 0
        server.start()
        assert downloads(server, asset_id) == (1, len(CONTENT))


class Nginx:
    """What stands between a client and the service: takes hand-overs, and sends what lines it likes."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))

    def handed_over(self, asset_id: str, **headers: str) -> str:
        """The id of a download that is ours to deliver."""
        asked = self._server.headers | {"X-Forwarded-For": "192.0.2.1"} | headers
        answer = httpx.get(f"{self._server.url}/f/{asset_id}/x", headers=asked)
        assert "X-Accel-Redirect" in answer.headers
        download_id = answer.headers["X-Download-Id"]
        assert download_id.startswith(f"{asset_id}.")
        return download_id

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def tell(self, download_id: str, *, status: int = 200, sent: object = 1, complete: bool = True) -> None:
        said = f'"id":"{download_id}","st":{status},"b":{sent},"ok":"{"OK" if complete else ""}"'
        self.send(f"<190>Nov 24 19:51:34 nginx: {{{said}}}".encode())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def handing_over(tmp_path: Path, port: int) -> Iterator[Server]:
    env = {
        "MEDIASVC_DELIVERY": "nginx",
        "MEDIASVC_TRUSTED_PROXIES": "127.0.0.1/32",
        "MEDIASVC_RECEIPTS": f"127.0.0.1:{port}",
    }
    with running(tmp_path / "data", **env) as server:
        yield server


@pytest.fixture
def nginx(handing_over: Server, port: int) -> Iterator[Nginx]:
    nginx = Nginx(handing_over, port)
    yield nginx
    nginx.close()


def test_no_line_counts_twice_not_even_after_kill_9(handing_over: Server, nginx: Nginx) -> None:
    asset_id = put(handing_over)
    download_id = nginx.handed_over(asset_id)
    for _ in range(5):
        nginx.tell(download_id, sent=70)
    assert wait_until(lambda: downloads(handing_over, asset_id) == (1, 70))
    assert outcome(handing_over, "unknown") == 4
    handing_over.kill()
    handing_over.start()
    nginx.tell(download_id, sent=70)
    assert wait_until(lambda: outcome(handing_over, "unknown") == 1)
    assert handing_over.stop() == 0
    handing_over.start()
    assert downloads(handing_over, asset_id) == (1, 70)


def test_a_line_that_is_lost_is_no_more_than_that(handing_over: Server, nginx: Nginx) -> None:
    asset_id = put(handing_over)
    nginx.handed_over(asset_id)
    nginx.tell(nginx.handed_over(asset_id, Range="bytes=2-"), status=206, sent=9)
    nginx.tell(nginx.handed_over(asset_id), sent=8, complete=False)
    nginx.tell(nginx.handed_over(asset_id), sent=0, complete=False)
    nginx.tell(nginx.handed_over(asset_id), status=404, sent=200)
    assert wait_until(lambda: downloads(handing_over, asset_id) == (1, 17))
    assert outcome(handing_over, "failed") == 1


def test_hostile_datagrams_are_dropped_and_nobody_notices(handing_over: Server, nginx: Nginx) -> None:
    asset_id, gone = put(handing_over), put(handing_over, key="gone")
    ours, of_the_gone = nginx.handed_over(asset_id), nginx.handed_over(gone)
    with handing_over.client() as client:
        assert client.delete(f"/v1/assets/{gone}").status_code == 204
    for sent in (-1, 2**63, "1e3", "null", "true", '"7"', "[" * 500):
        nginx.tell(ours, sent=sent)
    for datagram in (b"", os.urandom(60_000), b"{" * 1000, b"<190>nginx: \xff{", b'{"id":{}}'):
        nginx.send(datagram)
    malformed = 12 + 2
    forged = (f"{asset_id}.{'0' * 24}", asset_id, ours + " ", f"{ours}' OR 1=1", "../../etc/passwd")
    for download_id in forged:
        nginx.tell(download_id)
    nginx.tell(of_the_gone, sent=5)
    nginx.tell(ours, sent=6)
    assert wait_until(lambda: downloads(handing_over, asset_id) == (1, 6))
    assert outcome(handing_over, "malformed") == malformed
    assert outcome(handing_over, "unknown") == len(forged) - 2
    assert outcome(handing_over, "counted") == 2
    assert handing_over.stop() == 0
    assert '"level": "error"' not in handing_over.logged()


def test_a_flood_of_lines_holds_nobody_up(handing_over: Server, nginx: Nginx) -> None:
    asset_id = put(handing_over)
    ours = nginx.handed_over(asset_id)
    with handing_over.client() as client:
        for _ in range(50):
            for _ in range(400):
                nginx.tell("flood")
            assert client.get("/healthz").status_code == 200
    # The kernel drops what nobody has room for: a receipt may be lost, so it is told until it is heard.
    assert wait_until(lambda: nginx.tell(ours) or downloads(handing_over, asset_id) == (1, 1))
