"""What a request says about itself is believed only as far as it should be."""

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server, running

FORGED = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": 'for=203.0.113.9;host="evil.example";proto=https',
}


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("trusting") / "data"
    with running(data_dir, MEDIASVC_TRUSTED_PROXIES="127.0.0.0/8, 10.0.0.0/8, ::1") as server:
        yield server


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("named") / "data"
    env = {
        "MEDIASVC_PUBLIC_URL": "https://media.example.org/base/",
        "MEDIASVC_TRUSTED_PROXIES": "127.0.0.1",
        "MEDIASVC_CORS_ORIGINS": "https://app.example, http://localhost:3000/",
    }
    with running(data_dir, **env) as server:
        yield server


def put(server: Server, headers: dict[str, str], host: str = "test") -> wire.Answer:
    raw = wire.head("PUT", "/b/media/x", server.headers | {"Content-Length": "1"} | headers, host=host) + b"x"
    answer = wire.exchange(server.url, raw)
    assert answer.status in (200, 201), answer.content
    return answer


def base(answer: wire.Answer) -> str:
    return str(answer.json()["url"]).partition("/f/ast_")[0]


def logged_soon(server: Server, text: str) -> bool:
    deadline = time.monotonic() + 10
    while text not in server.logged():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_stranger_is_not_believed(server: Server) -> None:
    assert base(put(server, FORGED, host="media.test:8000")) == "http://media.test:8000"
    assert logged_soon(server, '"client": "127.0.0.1"')
    assert "203.0.113.9" not in server.logged()


def test_a_trusted_proxy_is_believed(trusting: Server) -> None:
    told = {
        "X-Forwarded-Host": "media.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.7",
    }
    assert base(put(trusting, told)) == "https://media.example"
    assert logged_soon(trusting, '"203.0.113.7"')
    assert base(put(trusting, told | {"X-Forwarded-Prefix": "/media"})) == "https://media.example/media"
    assert (
        base(put(trusting, {"Forwarded": "for=198.51.100.4;proto=https;host=m.example"}))
        == "https://m.example"
    )


def test_of_many_hops_the_last_untrusted_counts(trusting: Server) -> None:
    put(trusting, {"X-Forwarded-For": "192.0.2.66, 203.0.113.50, 10.1.2.3"})
    assert logged_soon(trusting, '"203.0.113.50"')
    assert '"192.0.2.66"' not in trusting.logged()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": 'evil"><script>'},
        {"X-Forwarded-Host": "evil/path"},
        {"X-Forwarded-Host": "user@evil"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Prefix": "//evil"},
        {"X-Forwarded-Prefix": "/a/../b"},
        {"X-Forwarded-Prefix": "/<script>"},
        {"X-Forwarded-For": "<script>"},
        {"Forwarded": ";;;===,,"},
    ],
    ids=str,
)
def test_nonsense_from_a_proxy_is_harmless(trusting: Server, headers: dict[str, str]) -> None:
    parts = urlsplit(base(put(trusting, headers)))
    assert parts.scheme in ("http", "https")
    assert not set(parts.netloc) & set('"<>/@')
    assert "evil" not in parts.path
    assert ".." not in parts.path


def test_the_public_url_wins(named: Server) -> None:
    answer = put(named, FORGED, host="evil.example")
    assert base(answer) == "https://media.example.org/base"
    assert b"evil" not in answer.content
    assert answer.headers["Location"].startswith("https://media.example.org/base/f/")
    text = httpx.put(named.url + "/u/x", content=b"1", headers=named.headers | {"Host": "evil.example"}).text
    assert text.startswith("https://media.example.org/base/f/")


@pytest.mark.parametrize(
    "host",
    ['evil"><script>', "evil/..", "a b", "user@evil", "", "x" * 5000, "[::1", "ex\xe4mple", "a:99999999"],
)
def test_a_hostile_host_is_harmless(server: Server, host: str) -> None:
    raw = wire.head("PUT", "/b/media/x", server.headers | {"Content-Length": "1"}, host=host) + b"x"
    answer = wire.exchange(server.url, raw)
    assert answer.status in (200, 201, 400)
    if answer.status != 400:
        assert not set(urlsplit(str(answer.json()["url"])).netloc) & set('"<>@/ ')
        assert b"script" not in answer.content
    assert wire.exchange(server.url, wire.head("GET", "/docs", {}, host=host)).content.find(b"evil") == -1


def test_only_named_origins_may_call(named: Server) -> None:
    for origin, allowed in (
        ("https://app.example", True),
        ("http://localhost:3000", True),
        ("https://evil.example", False),
        ("https://app.example.evil.example", False),
        ("http://app.example", False),
        ("null", False),
    ):
        headers = {"Origin": origin}
        for answer in (
            httpx.get(named.url + "/v1/assets", headers=headers | named.headers),
            httpx.get(named.url + "/v1/assets", headers=headers),
            httpx.get(named.url + "/v1/nothing", headers=headers),
            httpx.options(
                named.url + "/v1/assets", headers=headers | {"Access-Control-Request-Method": "POST"}
            ),
        ):
            assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
            assert "Origin" in answer.headers["Vary"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in httpx.get(named.url + "/healthz").headers["Vary"]
