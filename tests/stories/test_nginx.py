"""The nginx.conf we ship, in front of a real `mediasvc serve`."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.servers import BehindNginx, behind_nginx

NGINX_CONF = Path(__file__).parents[2] / "nginx.conf"
KEY = "msk_" + "n" * 40
AUTH = {"Authorization": f"Bearer {KEY}"}
PHOTO = os.urandom(20_000_000)


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> Iterator[BehindNginx]:
    with behind_nginx(tmp_path_factory.mktemp("nginx") / "data", MEDIASVC_ADMIN_KEY=KEY) as server:
        yield server


def connection(front: BehindNginx) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(front.url).port or 80), timeout=30)


def blobs(front: BehindNginx) -> int:
    return sum(path.is_file() for path in (front.data_dir / "blobs").rglob("*"))


def test_what_goes_up_comes_down_and_nginx_writes_none_of_it_to_disk(front):
    up = httpx.put(f"{front.url}/b/media/photo.bin", content=PHOTO, headers=AUTH)
    assert up.status_code == 201
    assert up.headers["Location"].startswith(f"{front.url}/f/")
    down = httpx.get(up.headers["Location"], headers=AUTH)
    assert down.content == PHOTO
    part = httpx.get(f"{front.url}/b/media/photo.bin", headers=AUTH | {"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, PHOTO[1000:2000])
    assert "temporary file" not in front.logged()
    assert not list((front.nginx_dir / "client_body").iterdir())


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
    url = f"{front.url}/b/media/{path}"
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
    with connection(front) as client:
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
    with connection(front) as client:
        client.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = client.makefile("rb").read().decode()
    assert f" {status} " in answer.splitlines()[0]
    assert "application/problem+json" in answer
    assert f'"status":{status}' in answer


@pytest.mark.skipif(os.geteuid() != 0, reason="opens the logs of the system's nginx: needs root")
def test_the_file_is_good_as_it_stands_on_debian():
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx is not installed")
    done = subprocess.run([program, "-t", "-q", "-c", NGINX_CONF], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def block(name: str) -> list[str]:
    """The lines of a location, without comments."""
    after = NGINX_CONF.read_text().partition(f"    location {name} {{")[2].partition("\n    }\n")[0]
    return [line.split(" # ")[0].strip() for line in after.splitlines()]


def test_all_three_ways_tell_the_client_the_same():
    ways = ("/_blobs/", "@s3", "@s3cache")
    told = [
        {line for line in block(way) if "add_header" in line and "Accept-Ranges" not in line} for way in ways
    ]
    assert told[0] == told[1] == told[2]
    assert not any("always" in line for line in told[0])


def test_both_ways_to_the_store_hide_the_same():
    hidden = [[line for line in block(name) if "proxy_hide_header" in line] for name in ("@s3", "@s3cache")]
    assert hidden[0] == hidden[1] != []
