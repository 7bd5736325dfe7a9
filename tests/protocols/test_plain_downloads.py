"""A plain download is answered on a shorter way than others: nobody can tell, by the answer, the log or the metrics."""

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.protocols import wire
from tests.protocols.delivery.conftest import PHOTO, finished, link
from tests.servers import Server, running

BODY = b"few bytes, that lie in memory"
FORWARDED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "media.test"}
UNUSUAL = {"X-Whatever": "a header that has no meaning"}
PLACES = (
    "private b",
    "private f",
    "public b",
    "public f",
    "public i",
    "link",
    "download",
    "none",
    "not public",
)


@pytest.fixture(scope="module", params=["direct", "nginx"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Asked directly, and as nginx asks."""
    env = {"MEDIASVC_TRUSTED_PROXIES": "127.0.0.1/32", "MEDIASVC_DELIVERY": request.param}
    with running(tmp_path_factory.mktemp("plain") / "data", **env) as server:
        yield server


@pytest.fixture(scope="module")
def targets(server: Server) -> dict[str, str]:
    with server.client() as api:
        private = api.put("/b/media/a%20b/ü.txt", content=BODY).json()
        public = api.put("/b/public/x.bin", content=BODY).json()
        picture = finished(api, api.put("/b/public/photo.jpg", content=PHOTO).json()["id"])
        urls = {
            "private b": "/b/media/a%20b/%C3%BC.txt",
            "private f": private["url"],
            "public b": "/b/public/x.bin",
            "public f": public["url"],
            "public i": picture["renditions"]["thumb"]["url"],
            "link": link(api, private["id"]),
            "download": public["url"] + "?download",
            "none": "/b/media/none",
            "not public": private["url"],
        }
    time.sleep(1.1)  # Last-Modified is sent once it lies behind
    return {name: re.sub(r"^https?://[^/]+", "", url) for name, url in urls.items()}


def told(answer: wire.Answer) -> dict[str, str]:
    """The headers, without those that differ from one answer to the next."""
    return {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id", "x-download-id")}


def line_of(server: Server, answer: wire.Answer) -> dict[str, object]:
    deadline = time.monotonic() + 10
    while answer.headers["x-request-id"] not in server.logged():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (line,) = (line for line in server.logged().splitlines() if answer.headers["x-request-id"] in line)
    return {k: v for k, v in json.loads(line).items() if k not in ("request_id", "ms", "timestamp")}


def counted(server: Server) -> dict[str, float]:
    with server.client() as api:
        text = api.get("/metrics").text
    lines = (
        line.rpartition(" ")
        for line in text.splitlines()
        if re.match(r"mediasvc_(downloads|requests)_total", line)
    )
    return {name: float(value) for name, _, value in lines}


@pytest.mark.parametrize("forwarded", [{}, FORWARDED], ids=["asked directly", "forwarded"])
@pytest.mark.parametrize("place", PLACES)
def test_the_shorter_way_cannot_be_told(
    server: Server, targets: dict[str, str], place: str, forwarded: dict[str, str]
) -> None:
    key = server.headers if place in ("private b", "private f", "none") else {}
    answers, lines, counts = [], [], []
    for headers in ({}, UNUSUAL, {}, UNUSUAL):
        before = counted(server)
        answer = wire.exchange(server.url, wire.head("GET", targets[place], key | forwarded | headers))
        lines.append(line_of(server, answer))
        after = counted(server)
        counts.append({name: value - before.get(name, 0) for name, value in after.items()})
        answers.append((answer.status, told(answer), answer.content))
        if not httpx.codes.is_success(answer.status):  # the problem names its request
            answers[-1] = (answer.status, told(answer), b"")
    assert answers[1:] == answers[:-1]
    assert lines[1:] == lines[:-1]
    assert counts[1:] == counts[:-1]
    status, headers, content = answers[0]
    assert status == {"none": 404, "not public": 401}.get(place, 200)
    handed_over = status == 200 and server.env["MEDIASVC_DELIVERY"] == "nginx" and bool(forwarded)
    assert ("x-accel-redirect" in headers) == handed_over
    assert lines[0]["client"] == ("203.0.113.7" if forwarded else "127.0.0.1")
    if status == 200 and not handed_over and place != "public i":
        assert content == BODY
