"""The nginx.conf we ship, in front of a real `mediasvc serve`."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.servers import Server, running

NGINX_CONF = Path(__file__).parents[2] / "nginx.conf"
KEY = "msk_" + "n" * 40
AUTH = {"Authorization": f"Bearer {KEY}"}
PHOTO = os.urandom(20_000_000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nginx_program() -> str:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "nginx is not installed (deploy/test installs it)"
        )
    return program


def configured(folder: Path, listen: int, upstream: int) -> Path:
    """The shipped file with its site lines, and nothing else, changed for a test."""
    site = {
        r"user .*;": "",
        r"pid .*;": f"pid {folder}/pid;",
        r"error_log .*;": f"error_log {folder}/error.log warn;",
        r"access_log .*;": f"access_log {folder}/access.log;",
        r"listen .*;": f"listen 127.0.0.1:{listen};",
        r"server .*;": f"server 127.0.0.1:{upstream};",
    }
    lines = ["daemon off;"]
    for line in NGINX_CONF.read_text().splitlines():
        if line.endswith("# site"):
            pattern = next(p for p in site if re.match(r"\s*" + p, line))
            line = site.pop(pattern)
        lines.append(line)
    assert not site
    assert not re.search(r"(?m)^[^#]* /(var|run|etc)/", "\n".join(lines))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    conf = folder / "nginx.conf"
    conf.write_text("\n".join(lines).replace("http {", f"http {{ {temporary}", 1))
    return conf


@dataclass
class Front:
    """nginx before a server: its address, its folder with the logs, and the server behind it."""

    url: str
    port: int
    folder: Path
    server: Server


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> Iterator[Front]:
    program = nginx_program()
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    data_dir = tmp_path_factory.mktemp("behind") / "data"
    env = {"MEDIASVC_ADMIN_KEY": KEY, "MEDIASVC_TRUSTED_PROXIES": "127.0.0.1/32"}
    with running(data_dir, **env) as server:
        listen = free_port()
        conf = configured(folder, listen, upstream=urlsplit(server.url).port or 80)
        command = [program, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(conf)]
        subprocess.run([*command, "-t", "-q"], check=True, capture_output=True)
        process = subprocess.Popen(command)
        try:
            wait_for(f"http://127.0.0.1:{listen}/healthz", process)
            yield Front(f"http://127.0.0.1:{listen}", listen, folder, server)
        finally:
            process.terminate()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "nginx did not start"
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError(f"{url} did not come up")


def blobs(front: Front) -> int:
    return sum(path.is_file() for path in (front.server.data_dir / "blobs").rglob("*"))


def test_what_goes_up_comes_down_and_nginx_writes_none_of_it_to_disk(front):
    up = httpx.put(f"{front.url}/b/media/photo.bin", content=PHOTO, headers=AUTH)
    assert up.status_code == 201
    assert up.headers["Location"].startswith(f"{front.url}/f/")
    down = httpx.get(up.headers["Location"], headers=AUTH)
    assert down.content == PHOTO
    part = httpx.get(f"{front.url}/b/media/photo.bin", headers=AUTH | {"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, PHOTO[1000:2000])
    assert "temporary file" not in (front.folder / "error.log").read_text()


def test_a_chunked_upload_and_a_form_arrive_whole(front):
    def pieces() -> Iterator[bytes]:
        yield from (PHOTO[at : at + 1_000_000] for at in range(0, len(PHOTO), 1_000_000))

    assert httpx.put(f"{front.url}/b/media/chunked", content=pieces(), headers=AUTH).json()["size"] == len(
        PHOTO
    )
    form = httpx.post(f"{front.url}/v1/assets", files={"file": ("form.bin", PHOTO)}, headers=AUTH)
    assert [asset["size"] for asset in form.json()["assets"]] == [len(PHOTO)]


@pytest.mark.parametrize("path", ["a%2Fb%20c%25", "double//slash", "%E5%86%99%E7%9C%9F%3F%23", "dir/"])
def test_the_address_reaches_the_service_as_it_was_written(front, path):
    url = f"http://127.0.0.1:{front.port}/b/media/{path}"
    assert httpx.put(url, content=path.encode(), headers=AUTH).status_code in (200, 201)
    assert httpx.get(url, headers=AUTH).text == path


def test_a_long_file_name_and_a_name_with_an_underscore_are_no_error(front):
    name = "%C3%A9" * 2500
    headers = AUTH | {"X-Meta-shot_by": "Ada", "Accept": "application/json"}
    up = httpx.put(f"{front.url}/u/{name}", content=b"x", headers=headers)
    assert up.status_code == 201
    assert up.json()["metadata"] == {"shot_by": "Ada"}


def test_headers_that_a_client_forged_are_not_believed(front):
    forged = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=1.2.3.4;host=evil.example;proto=https",
    }
    up = httpx.put(f"{front.url}/b/media/forged", content=b"x", headers=AUTH | forged)
    assert up.json()["url"].startswith(f"{front.url}/f/")


def test_an_upload_that_breaks_off_leaves_nothing(front):
    before = blobs(front)
    with socket.create_connection(("127.0.0.1", front.port)) as client:
        head = f"PUT /b/media/broken HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        client.sendall(f"{head}Content-Length: {len(PHOTO)}\r\n\r\n".encode() + PHOTO[:5_000_000])
    deadline = time.monotonic() + 10
    while blobs(front) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert blobs(front) == before
    assert httpx.get(f"{front.url}/b/media/broken", headers=AUTH).status_code == 404


def test_a_refusal_before_the_body_arrives_as_it_is(front):
    refused = httpx.put(
        f"{front.url}/b/media/refused", content=PHOTO, headers={"Authorization": "Bearer msk_no"}
    )
    assert refused.status_code == 401
    assert refused.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("GET / NONSENSE", 400), ("TRACE / HTTP/1.1", 405), (f"GET /{'a' * 40_000} HTTP/1.1", 414)],
    ids=["no HTTP", "method", "long address"],
)
def test_what_nginx_refuses_itself_is_problem_json_too(front, request_line, status):
    with socket.create_connection(("127.0.0.1", front.port)) as client:
        client.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = client.makefile("rb").read().decode()
    assert f" {status} " in answer.splitlines()[0]
    assert "application/problem+json" in answer
    assert f'"status":{status}' in answer


def test_while_the_service_is_away_the_answer_is_a_problem_that_says_when_to_come_back(front):
    # The last test of this module: the server does not come back.
    front.server.stop()
    answer = httpx.get(f"{front.url}/b/media/photo.bin", headers=AUTH)
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"]
    assert answer.json()["retryable"] is True
