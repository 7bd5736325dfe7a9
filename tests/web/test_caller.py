"""Who is behind an Authorization header."""

import asyncio
import base64
import hashlib
from types import SimpleNamespace

import pytest

from mediasvc.core.access import ADMIN_KEY_ID, ANONYMOUS, Caller, Key
from mediasvc.web.caller import caller_resolver, secret_in

SECRET = "msk_" + "s" * 40


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (None, None),
        (b"", None),
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"BEARER abc", b"abc"),
        (b"Bearer", None),
        (b"Bearer ", None),
        (basic(":abc"), b"abc"),
        (basic("user:abc"), b"abc"),
        (basic("user:a:b"), b"a:b"),
        (basic("abc"), None),
        (basic(":"), None),
        (b"Basic %%%", None),
        (b"Basic", None),
        (b"Digest abc", None),
        (b"abc", None),
        (b"Bearer \xff\xfe", b"\xff\xfe"),
    ],
)
def test_the_key_in_a_header(header: bytes | None, secret: bytes | None) -> None:
    assert secret_in(header) == secret


def resolved(header: bytes | None, *, admin: str | None = None) -> Caller:
    key = Key("key_1", hashlib.sha256(SECRET.encode()).hexdigest(), "msk_", frozenset({"assets:read"}), 0.0)

    async def key_by_secret(digest: str) -> Key | None:
        return key if digest == key.secret_sha256 else None

    catalogue = SimpleNamespace(key_by_secret=key_by_secret)
    return asyncio.run(caller_resolver(catalogue, admin)(header))  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 1000, 1024, 5000])
def test_a_key_may_be_as_long_as_the_settings_have_it(length: int) -> None:
    for header in (b"Bearer " + b"k" * length, basic(f"{'n' * length}:{'k' * length}")):
        assert resolved(header, admin="k" * length).key_id == ADMIN_KEY_ID
        assert resolved(header[:-1] + b"x", admin="k" * length) is ANONYMOUS


def test_a_known_key_is_its_bearer() -> None:
    assert resolved(f"Bearer {SECRET}".encode()).key_id == "key_1"
    assert resolved(basic(f":{SECRET}")).scopes == {"assets:read"}


@pytest.mark.parametrize("header", [None, b"Bearer other", b"Basic %%%", b"Bearer \xff"])
def test_everybody_else_is_nobody(header: bytes | None) -> None:
    assert resolved(header) == ANONYMOUS
    assert resolved(header, admin="msk_" + "a" * 40) == ANONYMOUS


def test_the_fixed_key_may_do_everything() -> None:
    caller = resolved(b"Bearer " + b"msk_" + b"a" * 40, admin="msk_" + "a" * 40)
    assert not caller.anonymous
    assert caller.has("keys:admin")
