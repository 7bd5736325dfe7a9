"""Uploads through the nginx we ship: what their heads tell is decided before their bodies move."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.protocols import wire
from tests.protocols.test_refusals import REFUSALS, Refusal
from tests.servers import BehindNginx, Server, behind_nginx, running

HUGE = 400 << 20
AT_MOST = 4 << 20
IN_THE_MIDDLE = 32 << 20  # what a body decides itself: all buffers of the way are full by then

BODY = {"404 form", "404 form, default bucket", "404 form, prefix", "413 bucket, form", "413 key, form"}
BODY |= {"413 quota, form", "415 sniffed", "415 form", "400 malformed form", "400 bucket after a file"}
ELSEWHERE = {"401 JSON", "413 JSON", "413 server", "413 server, form"}  # no upload; another server
HEAD = sorted(REFUSALS.keys() - BODY - ELSEWHERE)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BehindNginx]:
    """nginx and a server, with the buckets that the refusals are about."""
    with behind_nginx(tmp_path_factory.mktemp("preflight") / "data") as server:
        with server.client() as api:
            for policy in (
                {"name": "small", "max_asset_size": 1 << 16},
                {"name": "quota", "quota_bytes": 1 << 16},
                {"name": "full", "quota_assets": 0},
                {"name": "images", "allowed_types": ["image/*"]},
                {"name": "other"},
            ):
                assert api.post("/v1/buckets", json=policy).status_code == 201
            assert api.put("/b/media/taken", content=b"1").status_code == 201
        yield server


@pytest.fixture(scope="module")
def keys(front: BehindNginx) -> dict[str, str]:
    wanted = {
        "reader": {"scopes": ["assets:read"]},
        "foreign": {"scopes": ["assets:write"], "bucket": "other"},
        "narrow": {"scopes": ["assets:write"], "bucket": "media", "prefix": "mine/"},
        "light": {"scopes": ["assets:write"], "max_asset_size": 1 << 16},
    }
    with front.client() as api:
        made = {name: api.post("/v1/keys", json=body).json()["secret"] for name, body in wanted.items()}
    return made | {"admin": front.admin_key}


def headers_of(refusal: Refusal, keys: dict[str, str]) -> dict[str, str]:
    key = keys.get(str(refusal.key), refusal.key)
    return refusal.headers | ({"Authorization": f"Bearer {key}"} if key else {})


def sent_through(
    front: Server, refusal: Refusal, keys: dict[str, str], *, chunked: bool = False, blind: bool = False
) -> wire.Answer:
    return wire.flood(
        front.url,
        refusal.method,
        refusal.target,
        headers_of(refusal, keys),
        HUGE,
        chunked=chunked,
        first=refusal.first,
        blind=blind,
    )


def is_told(answer: wire.Answer, refusal: Refusal) -> None:
    problem = answer.json()
    assert (answer.status, problem["code"], problem["status"]) == (
        refusal.status,
        refusal.code,
        refusal.status,
    )
    assert problem.get("limit_source") == refusal.source
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"] == problem["request_id"]
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert "X-Content-Length" not in answer.headers


def length_tells(kind: str, chunked: bool) -> bool:
    return not chunked or kind not in ("413 bucket", "413 key", "413 quota")


@pytest.mark.parametrize("blind", [False, True], ids=["looking", "blind"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("kind", HEAD)
def test_a_refused_upload_costs_next_to_nothing(
    front: BehindNginx, keys: dict[str, str], kind: str, chunked: bool, blind: bool
) -> None:
    answer = sent_through(front, REFUSALS[kind], keys, chunked=chunked, blind=blind)
    is_told(answer, REFUSALS[kind])
    if length_tells(kind, chunked):
        assert answer.sent <= AT_MOST
        assert answer.headers["Connection"] == "close"
    else:
        assert answer.sent <= IN_THE_MIDDLE


@pytest.mark.parametrize("blind", [False, True], ids=["looking", "blind"])
@pytest.mark.parametrize("kind", [*sorted(BODY), "401 JSON"])
def test_what_only_the_body_tells_is_told_in_the_middle_and_the_rest_is_not_waited_for(
    front: BehindNginx, keys: dict[str, str], kind: str, blind: bool
) -> None:
    answer = sent_through(front, REFUSALS[kind], keys, blind=blind)
    is_told(answer, REFUSALS[kind])
    assert answer.sent <= IN_THE_MIDDLE


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
@pytest.mark.parametrize("kind", [kind for kind in HEAD if REFUSALS[kind].method == "PUT"])
def test_curl_sees_the_answer(
    front: BehindNginx, keys: dict[str, str], tmp_path: Path, kind: str, expect: str
) -> None:
    refusal = REFUSALS[kind]
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(HUGE)
    headers = headers_of(refusal, keys) | {"Content-Type": refusal.headers.get("Content-Type", "")}
    named = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "--path-as-is", "-T", f"{tmp_path}/huge", "-H", expect, *named]
    done = subprocess.run(
        [*command, "-w", "\n%{size_upload}", front.url + refusal.target], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    body, _, size = done.stdout.rpartition(b"\n")
    assert json.loads(body)["code"] == refusal.code
    assert int(size) <= (0 if "100" in expect else AT_MOST)


def statuses(front: Server, raw: bytes, body: bytes = b"") -> list[int]:
    """The statuses of all answers, 1xx too, until the final one; `body` is sent after a 100."""
    found: list[int] = []
    with wire.connect(front.url) as connection:
        connection.sendall(raw)
        reader = connection.makefile("rb")
        while not found or found[-1] < 200:
            line = reader.readline()
            if line.startswith(b"HTTP/1.1 "):
                found.append(int(line.split()[1]))
                if found[-1] == 100:
                    connection.sendall(body)
    return found


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_leave_to_send_is_given_once_and_only_to_what_was_let_in(front: BehindNginx, size: int) -> None:
    waiting = {"Content-Length": str(size), "Expect": "100-continue"}
    let_in = wire.head("PUT", "/b/media/waiting", front.headers | waiting)
    assert statuses(front, let_in, bytes(size))[0] == 100
    assert statuses(front, let_in, bytes(size))[-1] == 200
    assert statuses(front, let_in, bytes(size)).count(100) == 1
    assert statuses(front, wire.head("PUT", "/b/media/waiting", waiting)) == [401]


def test_a_refused_upload_is_counted_once_however_often_nginx_asks(
    front: BehindNginx, keys: dict[str, str]
) -> None:
    def counted() -> float:
        line = 'mediasvc_uploads_total{door="put",outcome="unauthorised"} '
        with front.client() as api:
            return sum(
                float(told[len(line) :]) for told in api.get("/metrics").text.split("\n") if line in told
            )

    before = counted()
    is_told(sent_through(front, REFUSALS["401 no key"], keys), REFUSALS["401 no key"])
    assert counted() == before + 1


def test_what_the_disk_cannot_hold_is_refused_before_it_comes(front: BehindNginx) -> None:
    head = wire.head("PUT", "/b/media/vast", front.headers | {"Content-Length": str(1 << 50)})
    answer = wire.exchange(front.url, head)
    assert (answer.status, answer.json()["code"]) == (507, "store_full")


def test_a_browser_may_read_the_refusal_and_learns_how_to_log_in(front: BehindNginx) -> None:
    head = wire.head("PUT", "/b/media/x", {"Origin": "http://a.example", "Content-Length": str(HUGE)})
    answer = wire.exchange(front.url, head)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="mediasvc"'
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_upload_that_is_let_in_arrives_whole_and_its_preflight_took_no_room(front: BehindNginx) -> None:
    with front.client() as api:
        assert api.post("/v1/buckets", json={"name": "exact", "quota_bytes": 2_000_000}).status_code == 201
        for content in (b"1" * 2_000_000, b"2" * 2_000_000):
            up = api.put("/b/exact/x", content=content)
            assert up.status_code in (200, 201), up.text
            assert api.get("/b/exact/x").content == content
        posted = api.post("/v1/assets", files={"file": ("f.bin", bytes(2_000_000))})
        assert [asset["size"] for asset in posted.json()["assets"]] == [2_000_000]


@pytest.mark.parametrize(
    "path", ["/.preflight", "/%2epreflight", "/.preflight?x", "//.preflight", "/.preflight/../.preflight"]
)
def test_from_outside_there_is_no_preflight(front: BehindNginx, path: str) -> None:
    forged = {"X-Preflight-Method": "PUT", "X-Preflight-Target": "/b/media/x"}
    for method in ("GET", "PUT"):
        answer = wire.exchange(
            front.url, wire.head(method, path, front.headers | forged | {"Content-Length": "0"})
        )
        assert (answer.status, answer.json()["code"]) == (404, "not_found")


def test_forged_preflight_headers_change_nothing(front: BehindNginx) -> None:
    forged = {
        "X-Preflight-Method": "DELETE",
        "X-Preflight-Target": "/b/media/taken",
        "X-Preflight-Length": "1",
    }
    with front.client() as api:
        assert api.put("/b/media/forged", content=bytes(2_000_000), headers=forged).status_code == 201
        assert api.put("/b/small/forged", content=bytes(2_000_000), headers=forged).status_code == 413
        assert api.get("/b/media/taken").content == b"1"


def test_openapi_says_nothing_of_it(front: BehindNginx) -> None:
    assert "preflight" not in httpx.get(f"{front.url}/openapi.json").text


def test_a_preflight_counts_against_no_rate_but_sees_that_it_is_used_up(tmp_path: Path) -> None:
    with behind_nginx(tmp_path / "data", MEDIASVC_RATE_LIMIT="5/hour") as server, server.client() as api:
        for number in range(5):
            assert api.put(f"/b/media/{number}", content=bytes(2_000_000)).status_code == 201
        refusal = Refusal(429, "rate_limited", key="admin", source="key")
        answer = sent_through(server, refusal, {"admin": server.admin_key})
        is_told(answer, refusal)
        assert 0 < int(answer.headers["Retry-After"]) <= 3600
        assert answer.sent <= AT_MOST


@contextmanager
def nginx_before(front: BehindNginx, folder: Path, upstream: str) -> Iterator[str]:
    """The same nginx.conf before another service; gives the address."""
    conf = (front.nginx_dir / "nginx.conf").read_text().replace(str(front.nginx_dir), str(folder))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = conf.replace(f"listen {front.url.removeprefix('http://')};", f"listen 127.0.0.1:{port};")
    inner = conf.partition("upstream app {")[2].partition("server ")[2].partition(";")[0]
    conf = conf.replace(f"server {inner};", f"server {upstream.removeprefix('http://')};")
    (folder / "nginx.conf").write_text(conf)
    program = ["nginx", "-p", str(folder), "-e", "stderr", "-c", f"{folder}/nginx.conf", "-g", "daemon off;"]
    process = subprocess.Popen(program)
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_a_service_that_does_not_trust_nginx_gets_its_uploads_all_the_same(
    front: BehindNginx, tmp_path: Path
) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with running(tmp_path / "data") as server, nginx_before(front, folder, server.url) as url:
        assert httpx.get(f"{server.url}/.preflight", headers=server.headers).status_code == 404
        up = httpx.put(f"{url}/b/media/x", content=bytes(2_000_000), headers=server.headers)
        assert up.status_code == 201
        assert httpx.put(f"{url}/b/media/x", content=bytes(2_000_000)).status_code == 401


def test_a_small_body_is_not_asked_about_and_its_refusal_arrives_all_the_same(
    front: BehindNginx,
) -> None:
    with front.client("msk_" + "0" * 40) as stranger:
        for size in (1, 90_000):
            refused = stranger.put("/b/media/x", content=bytes(size))
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorised")
            assert int(refused.headers["Content-Length"]) == len(refused.content)
            assert "X-Content-Length" not in refused.headers


def test_nothing_is_left_of_them_all(front: BehindNginx) -> None:
    with front.client() as api:
        for bucket in ("small", "quota", "full", "images", "other"):
            assert api.get("/v1/assets", params={"bucket": bucket}).json()["assets"] == []
    checked = front.run("fsck", "--json")
    assert checked.returncode == 0, checked.stdout
    assert "request_error" not in front.logged()
