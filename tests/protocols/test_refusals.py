"""A refused upload costs little: decided before the body where the head tells, else as soon as the body does."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server, running

HUGE = 400 << 20
AT_MOST = 8 << 20


@dataclass
class Refusal:
    """One upload that must be refused, and how."""

    status: int
    code: str
    method: str = "PUT"
    target: str = "/b/media/refused"
    key: str | None = "admin"
    headers: dict[str, str] = field(default_factory=dict)
    first: bytes = b""
    source: str | None = None


def form(*fields: tuple[str, str], kind: str = "application/octet-stream") -> bytes:
    """How a form with a huge file begins."""
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields]
    parts.append(
        f'--edge\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\nContent-Type: {kind}\r\n\r\n'
    )
    return "".join(parts).encode()


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}
POST = {"method": "POST", "target": "/v1/assets", "headers": FORM}

REFUSALS = {
    "401 no key": Refusal(401, "unauthorised", key=None),
    "401 unknown key": Refusal(401, "unauthorised", key="msk_" + "0" * 40),
    "401 drop box": Refusal(401, "unauthorised", target="/u/x", key=None),
    "401 form": Refusal(401, "unauthorised", key=None, first=form(), **POST),
    "401 JSON": Refusal(401, "unauthorised", "POST", "/v1/keys", None),
    "403 scope": Refusal(403, "forbidden", key="reader"),
    "403 scope, drop box": Refusal(403, "forbidden", target="/u/x", key="reader"),
    "403 scope, form": Refusal(403, "forbidden", key="reader", first=form(), **POST),
    "404 bucket": Refusal(404, "not_found", target="/b/nowhere/x"),
    "404 foreign bucket": Refusal(404, "not_found", key="foreign"),
    "404 foreign drop box": Refusal(404, "not_found", target="/u/x", key="foreign"),
    "404 prefix": Refusal(404, "not_found", key="narrow"),
    "404 form": Refusal(404, "not_found", first=form(("bucket", "nowhere")), **POST),
    "404 form, default bucket": Refusal(404, "not_found", key="foreign", first=form(), **POST),
    "404 form, query": Refusal(404, "not_found", "POST", "/v1/assets?bucket=nowhere", headers=FORM, first=form()),
    "404 form, prefix": Refusal(404, "not_found", key="narrow", first=form(), **POST),
    "412 create only": Refusal(412, "precondition_failed", target="/b/media/taken", headers={"If-None-Match": "*"}),
    "412 replace only": Refusal(412, "precondition_failed", target="/b/media/free", headers={"If-Match": "*"}),
    "413 server": Refusal(413, "too_large", source="server"),
    "413 server, form": Refusal(413, "too_large", first=form(), source="server", **POST),
    "413 bucket": Refusal(413, "too_large", target="/b/small/x", source="bucket:small"),
    "413 bucket, form": Refusal(
        413, "too_large", first=form(("bucket", "small")), source="bucket:small", **POST
    ),
    "413 key": Refusal(413, "too_large", key="light", source="key"),
    "413 key, form": Refusal(413, "too_large", key="light", first=form(), source="key", **POST),
    "413 quota": Refusal(413, "quota_exceeded", target="/b/quota/x", source="bucket:quota"),
    "413 quota, form": Refusal(
        413, "quota_exceeded", first=form(("bucket", "quota")), source="bucket:quota", **POST
    ),
    "413 quota of assets": Refusal(413, "quota_exceeded", target="/b/full/x", source="bucket:full"),
    "413 JSON": Refusal(413, "too_large", "POST", "/v1/keys", source="server", first=b"[" + b" " * 1000),
    "415 declared": Refusal(
        415, "type_not_allowed", target="/b/images/x", headers={"Content-Type": "video/mp4"}
    ),
    "415 sniffed": Refusal(
        415, "type_not_allowed", target="/b/images/x.png", headers={"Content-Type": "image/png"},
        first=b"%PDF-1.7\n" + bytes(5000),
    ),
    "415 form": Refusal(
        415, "type_not_allowed", first=form(("bucket", "images"), kind="video/mp4"), **POST
    ),
    "400 bad key": Refusal(400, "bad_key", target="/b/media/a/../b"),
    "400 bad header": Refusal(400, "bad_request", headers={"X-Expires-In": "soon"}),
    "400 no form": Refusal(400, "bad_request", "POST", "/v1/assets", headers={"Content-Type": "text/plain"}),
    "400 malformed form": Refusal(400, "bad_body", first=b"no boundary here\r\n" * 100, **POST),
    "400 bucket after a file": Refusal(
        400, "bad_request", first=form() + b"x\r\n" + form(("bucket", "media")), **POST
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a limit of its own, and the buckets the refusals are about."""
    with running(
        tmp_path_factory.mktemp("refusals") / "data", MEDIASVC_MAX_UPLOAD_SIZE=str(1 << 20)
    ) as server:
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
def roomy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """No limit of the server's own, so that the others are met."""
    with running(tmp_path_factory.mktemp("roomy") / "data") as server:
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
def keys(small_server: Server, roomy_server: Server) -> dict[tuple[str, str], str]:
    wanted = {
        "reader": {"scopes": ["assets:read"]},
        "foreign": {"scopes": ["assets:write"], "bucket": "other"},
        "narrow": {"scopes": ["assets:write"], "bucket": "media", "prefix": "mine/"},
        "light": {"scopes": ["assets:write"], "max_asset_size": 1 << 16},
    }
    secrets = {}
    for server in (small_server, roomy_server):
        secrets[server.url, "admin"] = server.admin_key
        with server.client() as api:
            for name, body in wanted.items():
                secrets[server.url, name] = api.post("/v1/keys", json=body).json()["secret"]
    return secrets


def headers_of(refusal: Refusal, server: Server, keys: dict[tuple[str, str], str]) -> dict[str, str]:
    key = keys.get((server.url, str(refusal.key)), refusal.key)
    return refusal.headers | ({"Authorization": f"Bearer {key}"} if key else {})


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_upload_costs_little_and_says_why(
    small_server: Server,
    roomy_server: Server,
    keys: dict[tuple[str, str], str],
    refusal: Refusal,
    chunked: bool,
) -> None:
    server = small_server if refusal.source == "server" else roomy_server
    answer = wire.flood(
        server.url,
        refusal.method,
        refusal.target,
        headers_of(refusal, server, keys),
        HUGE,
        chunked=chunked,
        first=refusal.first,
    )
    problem = answer.json()
    assert (answer.status, problem["code"]) == (refusal.status, refusal.code), problem
    assert problem.get("limit_source") == refusal.source
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Connection"] == "close"
    assert answer.sent <= AT_MOST
    assert httpx.get(server.url + "/healthz").status_code == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("target", "status"), [("/v1/nothing", 404), ("/b/media/x", 405), ("/docs", 405)])
def test_a_body_nobody_asked_for_costs_little(
    roomy_server: Server, target: str, status: int, chunked: bool
) -> None:
    """Where nothing takes large bodies, the declared length may be what is refused first."""
    answer = wire.flood(roomy_server.url, "POST", target, roomy_server.headers, HUGE, chunked=chunked)
    assert answer.status in ({status} if chunked else {status, 413})
    assert answer.sent <= AT_MOST


BLIND = ["401 no key", "403 scope, form", "404 form", "412 create only", "413 bucket, form", "415 sniffed"]


@pytest.mark.parametrize("kind", BLIND)
def test_a_client_that_does_not_look_up_is_stopped_and_still_gets_the_answer(
    roomy_server: Server, keys: dict[tuple[str, str], str], kind: str
) -> None:
    refusal = REFUSALS[kind]
    answer = wire.flood(
        roomy_server.url,
        refusal.method,
        refusal.target,
        headers_of(refusal, roomy_server, keys),
        HUGE,
        first=refusal.first,
        blind=True,
    )
    assert answer.status == refusal.status
    assert answer.sent <= AT_MOST


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
@pytest.mark.parametrize(
    "kind", [kind for kind, one in REFUSALS.items() if one.method == "PUT" and not one.first]
)
def test_curl_sees_the_answer(
    small_server: Server,
    roomy_server: Server,
    keys: dict[tuple[str, str], str],
    tmp_path: Path,
    kind: str,
    expect: str,
) -> None:
    refusal = REFUSALS[kind]
    server = small_server if refusal.source == "server" else roomy_server
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(HUGE)
    headers = headers_of(refusal, server, keys) | {"Content-Type": refusal.headers.get("Content-Type", "")}
    command = [
        "curl",
        "-sS",
        "--path-as-is",
        "-T",
        str(tmp_path / "huge"),
        "-H",
        expect,
        "-w",
        "\n%{size_upload}",
    ]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, server.url + refusal.target], capture_output=True, timeout=60)
    body, _, size = done.stdout.rpartition(b"\n")
    assert json.loads(body)["code"] == refusal.code
    assert int(size) <= (0 if "100" in expect else AT_MOST)


@pytest.mark.parametrize("kind", ["401 form", "403 scope, form", "404 form", "413 bucket, form", "415 form"])
def test_curl_sees_the_answer_to_a_form(
    roomy_server: Server, keys: dict[tuple[str, str], str], tmp_path: Path, kind: str
) -> None:
    refusal = REFUSALS[kind]
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(HUGE)
    bucket = {"404 form": "nowhere", "413 bucket, form": "small", "415 form": "images"}.get(kind, "media")
    command = ["curl", "-sS", "-F", f"bucket={bucket}", "-F", f"f=@{tmp_path}/huge;type=video/mp4"]
    for name, value in headers_of(refusal, roomy_server, keys).items():
        if name == "Authorization":
            command += ["-H", f"{name}: {value}"]
    command += ["-w", "\n%{size_upload}", roomy_server.url + "/v1/assets"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    body, _, size = done.stdout.rpartition(b"\n")
    assert json.loads(body)["code"] == refusal.code
    assert int(size) <= AT_MOST


def test_nothing_is_left_of_them_all(small_server: Server, roomy_server: Server) -> None:
    for server in (small_server, roomy_server):
        with server.client() as api:
            for bucket in ("small", "quota", "full", "images", "other"):
                assert api.get("/v1/assets", params={"bucket": bucket}).json()["assets"] == []
            assert [asset["key"] for asset in api.get("/v1/assets").json()["assets"]] == ["taken"]
            assert api.put("/b/media/after", content=b"works").status_code == 201
        checked = server.run("fsck", "--json")
        assert checked.returncode == 0, checked.stdout


def test_the_limit_is_named(small_server: Server) -> None:
    with small_server.client() as api:
        problem = api.put("/b/media/x", content=bytes(2 << 20)).json()
    assert (problem["limit"], problem["limit_source"], problem["retryable"]) == (1 << 20, "server", False)


def test_what_just_fits_is_taken(small_server: Server) -> None:
    with small_server.client() as api:
        assert api.put("/b/media/full", content=bytes(1 << 20)).status_code == 201
        assert api.put("/b/media/full", content=iter([bytes(1 << 20)])).status_code == 200
        assert api.put("/b/media/over", content=iter([bytes((1 << 20) + 1)])).status_code == 413


@pytest.mark.parametrize("status", [401, 413])
def test_the_connection_works_again_after_a_small_refused_body(
    small_server: Server, keys: dict[tuple[str, str], str], status: int
) -> None:
    """Small bodies are read over; the client may keep its connection or not, but never gets a wrong answer."""
    with small_server.client() as api:
        headers = {"Authorization": "Bearer wrong"} if status == 401 else {}
        target = "/b/small/x" if status == 413 else "/b/media/x"
        for _ in range(3):
            assert api.put(target, content=bytes((1 << 16) + 1), headers=headers).status_code == status
            assert api.get("/b/media/taken").content == b"1"
