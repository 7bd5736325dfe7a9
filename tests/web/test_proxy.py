"""Proxy headers: who is believed, and which of several values counts."""

import asyncio
import ipaddress
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from mediasvc.web.proxy import Proxied, Proxies
from mediasvc.web.urls import base_url

TRUSTED = [ipaddress.ip_network(one) for one in ("127.0.0.0/8", "10.0.0.0/8", "::1/128")]


def seen(headers: dict[str, str], client: str = "127.0.0.1", trusted: Any = TRUSTED) -> Scope:
    """The scope as the application sees it."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope: Scope = {
        "type": "http",
        "client": (client, 1),
        "scheme": "http",
        "headers": [(b"host", b"inner"), *raw],
    }
    scope["state"] = {}
    asyncio.run(Proxied(app, Proxies(trusted))(scope, None, None))  # type: ignore[arg-type]
    return found[0]


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"X-Forwarded-For": "203.0.113.1"}, "203.0.113.1"),
        ({"X-Forwarded-For": "6.6.6.6, 203.0.113.1"}, "203.0.113.1"),
        ({"X-Forwarded-For": "6.6.6.6, 203.0.113.1, 10.0.0.9"}, "203.0.113.1"),
        ({"X-Forwarded-For": "10.0.0.1, 10.0.0.2"}, "10.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.1:4711"}, "203.0.113.1"),
        ({"X-Forwarded-For": "[2001:db8::1]:4711"}, "2001:db8::1"),
        ({"X-Forwarded-For": "2001:db8::1"}, "2001:db8::1"),
        ({"Forwarded": "for=203.0.113.1"}, "203.0.113.1"),
        ({"Forwarded": 'for=6.6.6.6, for="[2001:db8::1]:80";proto=https'}, "2001:db8::1"),
        ({"Forwarded": "FOR=203.0.113.1;By=10.0.0.1"}, "203.0.113.1"),
        ({"X-Forwarded-For": ""}, "127.0.0.1"),
        ({}, "127.0.0.1"),
    ],
    ids=str,
)
def test_the_client_is_the_last_address_that_is_no_proxy(headers: dict[str, str], client: str) -> None:
    assert seen(headers)["client"][0] == client


@pytest.mark.parametrize("client", ["203.0.113.99", "::2", "unix", "11.0.0.1"])
def test_a_stranger_is_not_believed(client: str) -> None:
    scope = seen(
        {"X-Forwarded-For": "1.1.1.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}, client
    )
    assert scope["client"][0] == client
    assert base_url(scope, None) == "http://inner"


@pytest.mark.parametrize(
    ("headers", "client", "behind"),
    [
        ({"X-Forwarded-For": "203.0.113.1"}, "127.0.0.1", True),
        ({"Forwarded": "for=203.0.113.1"}, "10.0.0.1", True),
        ({"X-Forwarded-For": "203.0.113.1"}, "203.0.113.99", False),
        ({"X-Forwarded-For": "127.0.0.1"}, "203.0.113.99", False),
        ({}, "127.0.0.1", False),
        ({"X-Forwarded-For": ""}, "127.0.0.1", False),
    ],
    ids=["proxy", "proxy in other words", "stranger", "forger", "neighbour", "proxy that names nobody"],
)
def test_only_what_a_trusted_proxy_passed_on_came_through_one(
    headers: dict[str, str], client: str, behind: bool
) -> None:
    assert seen(headers, client)["state"].get("behind_proxy", False) is behind


def test_without_trusted_proxies_nobody_is() -> None:
    assert base_url(seen({"X-Forwarded-Host": "evil"}, trusted=[]), None) == "http://inner"


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "m.example"}, "https://m.example"),
        ({"X-Forwarded-Proto": "http, HTTPS", "X-Forwarded-Host": "evil, m.example"}, "https://m.example"),
        ({"X-Forwarded-Prefix": "/media/"}, "http://inner/media"),
        ({"X-Forwarded-Prefix": "/a/b"}, "http://inner/a/b"),
        ({"X-Forwarded-Prefix": "//evil"}, "http://inner"),
        ({"X-Forwarded-Prefix": "/a/../b"}, "http://inner"),
        ({"X-Forwarded-Prefix": "evil"}, "http://inner"),
        ({"X-Forwarded-Proto": "ftp"}, "http://inner"),
        ({"Forwarded": "proto=https;host=m.example:8443"}, "https://m.example:8443"),
        ({"Forwarded": 'host="m.example"', "X-Forwarded-Host": "other"}, "http://m.example"),
    ],
    ids=str,
)
def test_urls_begin_as_the_proxy_says(headers: dict[str, str], base: str) -> None:
    assert base_url(seen(headers), None) == base


@pytest.mark.parametrize("host", [b'evil"><script>', b"a/b", b"user@host", b"", b"a b", b"\xff", b"a:123456"])
def test_a_host_that_is_none_is_replaced_by_ours(host: bytes) -> None:
    scope = {"scheme": "http", "headers": [(b"host", host)], "server": ("127.0.0.1", 8000)}
    assert base_url(scope, None) == "http://127.0.0.1:8000"


def test_the_setting_wins() -> None:
    assert (
        base_url({"scheme": "http", "headers": [(b"host", b"evil")]}, "https://m.example")
        == "https://m.example"
    )
