"""What operators see: health, metrics, logs; and that nobody slow keeps others waiting."""

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def metric(api: httpx.Client, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", api.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_health_and_readiness(server: Server) -> None:
    assert httpx.get(server.url + "/healthz").json() == {"status": "ok"}
    ready = httpx.get(server.url + "/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"store": "ok", "catalogue": "ok", "dispatcher": "ok"}
    assert "no-store" in ready.headers["Cache-Control"]


@pytest.mark.parametrize(
    "name",
    ["mediasvc_uploads_total", "mediasvc_upload_bytes_total", "mediasvc_upload_seconds_count", "mediasvc_tasks",
     "mediasvc_downloads_total", "mediasvc_download_bytes_total", "mediasvc_requests_total",
     "mediasvc_request_seconds_count", "mediasvc_renditions_total", "mediasvc_swept_total"],
)  # fmt: skip
def test_every_metric_is_explained(api: httpx.Client, name: str) -> None:
    text = api.get("/metrics").text
    family = name.removesuffix("_total").removesuffix("_count")
    assert re.search(rf"^# HELP {family}(_total)? .+", text, re.MULTILINE)
    assert api.get("/metrics").headers["Content-Type"].startswith("text/plain")


def test_uploads_are_counted_by_door_and_outcome(api: httpx.Client) -> None:
    def count(door: str, outcome: str) -> float:
        return metric(api, f'mediasvc_uploads_total{{door="{door}",outcome="{outcome}"}}')

    doors = {"put": "stored", "dropbox": "stored", "form": "stored"}
    before = {door: count(door, outcome) for door, outcome in doors.items()}
    wrong = count("put", "checksum_mismatch")
    size = metric(api, 'mediasvc_upload_bytes_total{door="put"}')
    api.put("/b/media/counted", content=b"x" * 1000)
    api.put("/u/counted", content=b"x")
    api.post("/v1/assets", files={"f": ("f", b"x")})
    api.put("/b/media/counted", content=b"x", headers={"X-Checksum-Sha256": "0" * 64})
    assert {door: count(door, outcome) - before[door] for door, outcome in doors.items()} == dict.fromkeys(
        doors, 1
    )
    assert count("put", "checksum_mismatch") - wrong == 1
    assert metric(api, 'mediasvc_upload_bytes_total{door="put"}') - size == 1000


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}


def form(bucket: str, kind: bytes = b"text/plain", end: bytes = b"--edge--") -> bytes:
    return (
        b'--edge\r\nContent-Disposition: form-data; name="bucket"\r\n\r\n%b\r\n'
        b'--edge\r\nContent-Disposition: form-data; name="f"; filename="f"\r\nContent-Type: %b\r\n\r\n1\r\n%b'
    ) % (bucket.encode(), kind, end)


ANONYMOUS = {"Authorization": ""}
DRAFT = {"Upload-Complete": "?1"}
REFUSED: dict[str, tuple[str, str, tuple[str, str], bytes, dict[str, str]]] = {
    "put without a key": ("put", "unauthorised", ("PUT", "/b/media/x"), b"1", ANONYMOUS),
    "put elsewhere": ("put", "not_found", ("PUT", "/b/absent/x"), b"1", {}),
    "put too large": ("put", "too_large", ("PUT", "/b/picky/x"), b"12", {}),
    "put of a type": ("put", "type_not_allowed", ("PUT", "/b/picky/x"), b"1", {"Content-Type": "text/plain"}),
    "put of sniffed type": ("put", "type_not_allowed", ("PUT", "/b/picky/x"), b"1", {}),
    "put on a condition": ("put", "precondition_failed", ("PUT", "/b/media/x"), b"1", {"If-Match": '"x"'}),
    "put with bad digest": ("put", "bad_request", ("PUT", "/b/media/x"), b"1", {"X-Checksum-Sha256": "x"}),
    "put with wrong digest": ("put", "checksum_mismatch", ("PUT", "/b/media/x"), b"1", {"X-Checksum-Sha256": "0" * 64}),
    "put under a bad key": ("put", "bad_key", ("PUT", "/b/media/%FF"), b"1", {}),
    "draft without a key": ("draft", "unauthorised", ("PUT", "/b/media/x"), b"1", DRAFT | ANONYMOUS),
    "draft elsewhere": ("draft", "not_found", ("PUT", "/b/absent/x"), b"1", DRAFT),
    "drop without a key": ("dropbox", "unauthorised", ("PUT", "/u/x"), b"1", ANONYMOUS),
    "drop with bad lifetime": ("dropbox", "bad_request", ("PUT", "/u/x"), b"1", {"X-Expires-In": "soon"}),
    "form without a key": ("form", "unauthorised", ("POST", "/v1/assets"), form("media"), FORM | ANONYMOUS),
    "form elsewhere": ("form", "not_found", ("POST", "/v1/assets"), form("absent"), FORM),
    "form to a bad bucket": ("form", "bad_bucket", ("POST", "/v1/assets"), form("A"), FORM),
    "form of a type": ("form", "type_not_allowed", ("POST", "/v1/assets"), form("picky"), FORM),
    "form that breaks off": ("form", "bad_body", ("POST", "/v1/assets"), form("media", end=b""), FORM),
    "no form": ("form", "bad_request", ("POST", "/v1/assets"), b"1", {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def picky(api: httpx.Client) -> None:
    made = api.post("/v1/buckets", json={"name": "picky", "max_asset_size": 1, "allowed_types": ["image/*"]})
    assert made.status_code == 201


@pytest.mark.usefixtures("picky")
@pytest.mark.parametrize(("door", "code", "request_line", "body", "headers"), REFUSED.values(), ids=REFUSED)
def test_a_refused_upload_is_counted_once(
    api: httpx.Client,
    door: str,
    code: str,
    request_line: tuple[str, str],
    body: bytes,
    headers: dict[str, str],
) -> None:
    before = counted(api)
    refused = api.request(*request_line, content=body, headers=headers)
    assert refused.json()["code"] == code
    before[door, code] = before.get((door, code), 0) + 1
    assert counted(api) == before


def test_what_is_no_upload_is_not_counted(api: httpx.Client) -> None:
    before = counted(api)
    assert api.get("/b/media/absent").status_code == 404
    assert api.delete("/b/media/absent").status_code == 404
    assert api.get("/v1/assets", headers=ANONYMOUS).status_code == 401
    assert counted(api) == before


def counted(api: httpx.Client) -> dict[tuple[str, str], float]:
    """Uploads by door and outcome."""
    lines = re.findall(
        r'^mediasvc_uploads_total\{door="(\w+)",outcome="(\w+)"\} (\S+)$',
        api.get("/metrics").text,
        re.MULTILINE,
    )
    return {(door, outcome): float(count) for door, outcome, count in lines}


def test_downloads_are_counted_by_plan(api: httpx.Client) -> None:
    api.put("/b/public/counted", content=b"x" * 1000)
    before = api.get("/metrics").text
    api.get("/b/public/counted")
    after = api.get("/metrics").text
    assert before != after
    assert re.search(r'^mediasvc_downloads_total\{plan="\w+",status="200"\} [1-9]', after, re.MULTILINE)


def test_metrics_name_no_asset_and_no_key(api: httpx.Client) -> None:
    name = f"unmistakable-{secrets.token_hex(4)}"
    api.put(f"/b/media/{name}", content=b"1")
    api.get(f"/v1/{name}")
    api.request("PROPFIND", "/v1/assets")
    assert name not in api.get("/metrics").text


def lines_soon(server: Server, request_id: str) -> list[dict[str, object]]:
    deadline = time.monotonic() + 10
    while not (found := [line for line in server.logged().splitlines() if request_id in line]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [json.loads(line) for line in found]


def test_a_request_is_one_json_line(server: Server, api: httpx.Client) -> None:
    answer = api.put("/b/media/log%20me%0A%22", content=b"1", headers={"User-Agent": 'x"\\y'})
    (line,) = lines_soon(server, answer.headers["X-Request-Id"])
    assert line["event"] == "request"
    assert (line["method"], line["status"], line["client"]) == ("PUT", 201, "127.0.0.1")
    assert line["path"] == "/b/media/log%20me%0A%22"
    assert line["bytes"] == len(answer.content)
    assert float(str(line["ms"])) > 0


def test_every_line_of_the_log_is_json(server: Server, api: httpx.Client) -> None:
    for target in ("/v1/nothing", "/b/media/%FF", "/b/media/%1b%5b31m", '/v1/"quoted"', "/f/\\"):
        lines_soon(server, api.get(target).headers["X-Request-Id"])
    for line in server.logged().splitlines():
        assert {"event", "level", "timestamp"} <= set(json.loads(line)), line


def test_no_key_is_ever_written_down(server: Server, api: httpx.Client) -> None:
    secret = api.post("/v1/keys", json={"scopes": ["assets:read", "assets:write"]}).json()["secret"]
    with server.client(secret) as client:
        client.put("/b/media/leak", content=b"1")
        client.get("/v1/nothing")
        client.put("/b/media/a/../b", content=b"1")
        last = client.post("/v1/buckets", json={"name": "x"})
    wire.statuses(
        server.url, b"GET / HTTP/1.1\r\nAuthorization: Bearer " + secret.encode() + b"\r\nbroken\r\n\r\n"
    )
    lines_soon(server, last.headers["X-Request-Id"])
    for one in (secret, server.admin_key):
        assert one not in server.logged()
        for file in server.data_dir.rglob("*"):
            if file.is_file() and file.name != "admin.key":
                assert one.encode() not in file.read_bytes(), file


def test_the_blobs_are_named_by_us_and_readable_by_the_group_only(server: Server, api: httpx.Client) -> None:
    api.put("/b/media/secret-plans.html", content=b"<html>")
    for path in (server.data_dir / "blobs").rglob("*"):
        assert "secret" not in path.name
        assert path.suffix == "" or path.is_dir()
        assert path.stat().st_mode & 0o7777 in ((0o750,) if path.is_dir() else (0o640,)), path


# ---- slow clients


def test_fifty_slow_uploads_keep_nobody_waiting(server: Server) -> None:
    headers = server.headers | {"Content-Length": "1000000"}
    with ExitStack() as stack:
        slow = [stack.enter_context(wire.connect(server.url)) for _ in range(50)]
        for number, connection in enumerate(slow):
            connection.sendall(wire.head("PUT", f"/b/media/slow-{number}", headers) + b"x" * 100)
        for _ in range(20):
            for connection in slow:
                connection.sendall(b"y" * 10)
            assert httpx.get(server.url + "/healthz", timeout=5).status_code == 200
        assert httpx.put(server.url + "/b/media/quick", content=b"1", headers=server.headers).status_code in (
            200,
            201,
        )
    deadline = time.monotonic() + 20
    while server.run("fsck", "--json").returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_slow_readers_keep_nobody_waiting(server: Server, api: httpx.Client) -> None:
    api.put("/b/public/slow", content=bytes(10 << 20))
    with ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(wire.connect(server.url))
            connection.sendall(wire.head("GET", "/b/public/slow", {}))
        for _ in range(20):
            assert httpx.get(server.url + "/healthz", timeout=5).status_code == 200
