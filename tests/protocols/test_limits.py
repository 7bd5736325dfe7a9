"""Requests are limited where the operator says so, cheaply and with an answer that says when to come back."""

import gzip
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server, behind_nginx, running

BIG = 50 << 20


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"MEDIASVC_RATE_LIMIT": "20/day", "MEDIASVC_TRUSTED_PROXIES": "127.0.0.1"}
    with running(tmp_path_factory.mktemp("limited") / "data", **env) as server:
        yield server


@pytest.fixture(scope="module")
def keys(limited: Server) -> list[str]:
    """Secrets of keys that nobody has used."""
    made = [limited.run("keys", "create", "--scope", "assets:write", "--bucket", "media") for _ in range(3)]
    assert all(result.returncode == 0 for result in made), made
    return [result.stdout.strip() for result in made]


def use_up(client: httpx.Client, url: str = "/v1/assets", **more: object) -> httpx.Response:
    """Ask until it is too much; gives the refusal."""
    for count in range(21):
        answer = client.get(url, **more)  # type: ignore[arg-type]
        assert (answer.status_code == 429) == (count == 20), (count, answer.text)
    return answer


def told(answer: httpx.Response | wire.Answer, source: str) -> None:
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (problem["code"], problem["retryable"]) == ("rate_limited", True)
    assert (problem["limit"], problem["limit_source"]) == (20, source)
    assert 80_000 < int(answer.headers["Retry-After"]) <= 86_400
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_key_that_asks_too_often_is_told_when_to_come_back(limited: Server, keys: list[str]) -> None:
    with limited.client(keys[0]) as client, limited.client(keys[1]) as other:
        refusal = use_up(client, headers={"Origin": "https://app.example", "X-Forwarded-For": "203.0.113.1"})
        told(refusal, "key")
        assert refusal.headers["Access-Control-Allow-Origin"] == "*"
        assert "Retry-After" in refusal.headers["Access-Control-Expose-Headers"]
        elsewhere = client.get("/v1/assets", headers={"X-Forwarded-For": "203.0.113.2"})
        assert elsewhere.status_code == 429, "the key is what counts, not the address"
        assert other.get("/v1/assets").status_code != 429


def test_what_comes_from_an_address_without_a_key_counts_together(limited: Server) -> None:
    here = {"X-Forwarded-For": "203.0.113.7"}
    with limited.client(anonymous=True) as client:
        told(use_up(client, "/f/ast_nothing/x", headers=here), "server")
        for unknown in ({}, {"Authorization": "Bearer msk_guessed"}, {"Authorization": "nonsense"}):
            assert client.get("/docs", headers=here | unknown).status_code == 429
        assert client.get("/docs", headers={"X-Forwarded-For": "203.0.113.8"}).status_code == 200
        # What stands left of our proxy's own entry is the client's invention.
        forged = {"X-Forwarded-For": "203.0.113.9, 203.0.113.7"}
        assert client.get("/docs", headers=forged).status_code == 429


def test_monitoring_and_preflights_go_on(limited: Server) -> None:
    here = {"X-Forwarded-For": "203.0.113.20"}
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"}
    with limited.client(anonymous=True) as client:
        use_up(client, "/docs", headers=here)
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401)):
            assert client.get(path, headers=here).status_code == status
        assert client.options("/b/media/x", headers=here | asking).status_code == 204


def test_an_upload_too_many_costs_no_body(limited: Server, keys: list[str]) -> None:
    with limited.client(keys[2]) as client:
        use_up(client)
    headers = {"Authorization": f"Bearer {keys[2]}", "Content-Length": str(BIG)}
    answer = wire.exchange(
        limited.url, wire.head("PUT", "/b/media/big", headers | {"Expect": "100-continue"})
    )
    told(answer, "key")
    assert answer.headers["Connection"] == "close"
    began = wire.head("PUT", "/b/media/big", headers) + b"x" * 1000
    told(wire.exchange(limited.url, began), "key")


def test_who_waits_as_told_is_served(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("second") / "data"
    with running(data_dir, MEDIASVC_RATE_LIMIT="5/second") as server, server.client() as client:
        answers = [client.get("/v1/buckets") for _ in range(60)]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert {answer.status_code for answer in answers} == {200, 429}
        time.sleep(int(refused.headers["Retry-After"]))
        assert client.get("/v1/buckets").status_code == 200


def test_behind_nginx_an_upload_counts_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """nginx asks about its head before, which is no request of the client's."""
    data_dir = tmp_path_factory.mktemp("proxied") / "data"
    with behind_nginx(data_dir, MEDIASVC_RATE_LIMIT="20/day") as server, server.client() as client:
        for number in range(20):
            assert client.put(f"/b/media/{number}", content=b"x").status_code == 201
        refusal = client.put("/b/media/many", content=b"x", headers={"Origin": "https://app.example"})
        assert refusal.status_code == 429
        told(refusal, "key")
        assert refusal.headers["Access-Control-Allow-Origin"] == "*"
        told(client.get("/b/media/1"), "key")


# ---- compression


def test_json_and_pages_are_compressed_and_bytes_never(server: Server) -> None:
    text = b'{"some": "json"}\n' * 10_000
    with server.client() as client:
        for number in range(20):
            client.put(f"/b/public/listed/{number}", content=b"x")
        put = client.put("/b/public/data.json", content=text, headers={"Accept-Encoding": "gzip"})
        listing = client.get("/v1/assets?bucket=public", headers={"Accept-Encoding": "gzip"})
        plain = client.get("/v1/assets?bucket=public", headers={"Accept-Encoding": "identity"})
        assert listing.headers["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in plain.headers
        assert "Accept-Encoding" in listing.headers["Vary"]
        assert "Accept-Encoding" in plain.headers["Vary"]
        assert listing.json() == plain.json()
        for url in ("/openapi.json", "/docs/assets/swagger-ui.css"):
            assert client.get(url, headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"
        # The tag in an answer to PUT is that of the bytes, and has to match them.
        assert put.headers["ETag"] == f'"{put.json()["sha256"][:32]}"'
        for method in ("GET", "HEAD"):
            answer = client.request(method, "/b/public/data.json", headers={"Accept-Encoding": "gzip"})
            assert "Content-Encoding" not in answer.headers
            assert "Vary" not in answer.headers
            assert answer.headers["Content-Length"] == str(len(text))
            assert answer.headers["ETag"] == put.headers["ETag"]


def test_head_tells_the_length_that_get_has(server: Server) -> None:
    with server.client() as client:
        headers = {"Accept-Encoding": "gzip"}
        got, head = (client.request(method, "/openapi.json", headers=headers) for method in ("GET", "HEAD"))
        names = ("Content-Length", "Content-Encoding", "Content-Type", "Vary")
        assert {name: got.headers.get(name) for name in names} == {
            name: head.headers.get(name) for name in names
        }
        assert head.content == b""


def test_a_compressed_page_is_revalidated(server: Server) -> None:
    url, headers = "/docs/assets/swagger-ui-bundle.js", {"Accept-Encoding": "gzip"}
    raw = wire.exchange(server.url, wire.head("GET", url, headers | {"Connection": "close"}))
    assert raw.headers["ETag"].startswith('W/"')
    with server.client(anonymous=True) as client:
        assert (
            gzip.decompress(raw.content) == client.get(url, headers={"Accept-Encoding": "identity"}).content
        )
        again = client.get(url, headers=headers | {"If-None-Match": raw.headers["ETag"]})
        assert (again.status_code, again.headers["ETag"]) == (304, raw.headers["ETag"])
        assert "Accept-Encoding" in again.headers["Vary"]
