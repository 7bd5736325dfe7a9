"""The page's cookie: whose it is, when it ends, and on which requests it counts."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mediasvc.bootstrap import make_key, sha256_of
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.access import ANONYMOUS, Caller, Key
from mediasvc.core.errors import Unauthorised
from mediasvc.core.signing import Signer
from mediasvc.web.caller import caller_resolver
from mediasvc.web.session import COOKIE, LIFETIME, Remembered, Sessions, from_elsewhere

pytestmark = pytest.mark.anyio
SECRET = "msk_" + "s" * 40
ADMIN = "msk_" + "a" * 40
NOW = 1_800_000_000.0
SIGNER = Signer(["a secret of the tests"])


@dataclass
class World:
    catalogue: SqliteCatalogue
    key: Key
    now: float = NOW

    def sessions(self, *, admin: str | None = ADMIN, signer: Signer = SIGNER) -> Sessions:
        return Sessions(self.catalogue, signer, admin, lambda: self.now)

    async def cookie(self, secret: str = SECRET) -> str:
        begun = await self.sessions().begin(secret)
        assert begun is not None
        return begun[0]

    async def caller(self, cookie: str, **how: Any) -> Caller:
        return await self.sessions(**how).caller(cookie.encode("latin-1"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    catalogue = SqliteCatalogue(tmp_path / "catalogue.db", clock=lambda: world.now)
    await catalogue.start()
    world = World(catalogue, make_key(SECRET, name="page", scopes=frozenset({"assets:read"}), now=NOW))
    async with catalogue.transaction() as tx:
        await tx.add_key(replace(world.key, expires_at=NOW + 3600))
    yield world
    await catalogue.close()


async def test_a_cookie_names_its_key_and_holds_no_secret(world: World) -> None:
    cookie = await world.cookie()
    assert (await world.caller(cookie)).key_id == world.key.id
    assert SECRET not in cookie
    assert sha256_of(SECRET) not in cookie


async def test_an_unknown_key_begins_nothing(world: World) -> None:
    assert await world.sessions().begin("msk_" + "x" * 40) is None


async def test_a_session_ends_with_its_key(world: World) -> None:
    begun = await world.sessions().begin(SECRET)
    assert begun is not None
    cookie, seconds = begun
    assert seconds == 3600
    world.now = NOW + 3599
    assert not (await world.caller(cookie)).anonymous
    world.now = NOW + 3600
    assert await world.caller(cookie) == ANONYMOUS


async def test_a_revoked_key_ends_it_at_once(world: World) -> None:
    cookie = await world.cookie()
    caller = await world.caller(cookie)
    assert await world.sessions().lives(caller)
    async with world.catalogue.transaction() as tx:
        await tx.revoke_key(world.key.id, NOW)
    assert await world.caller(cookie) == ANONYMOUS
    assert not await world.sessions().lives(caller)


async def test_the_fixed_key_has_sessions_that_end_when_it_changes(world: World) -> None:
    begun = await world.sessions().begin(ADMIN)
    assert begun is not None
    cookie, seconds = begun
    assert seconds == LIFETIME
    assert (await world.caller(cookie)).has("keys:admin")
    assert await world.caller(cookie, admin="msk_" + "b" * 40) == ANONYMOUS
    assert await world.caller(cookie, admin=None) == ANONYMOUS
    world.now += LIFETIME
    assert await world.caller(cookie) == ANONYMOUS


async def test_what_was_signed_with_another_secret_is_nothing(world: World) -> None:
    cookie = await world.cookie()
    assert await world.caller(cookie, signer=Signer(["another secret of the tests"])) == ANONYMOUS
    both = Signer(["another secret of the tests", "a secret of the tests"])
    assert not (await world.caller(cookie, signer=both)).anonymous


async def test_nothing_in_a_cookie_can_be_changed(world: World) -> None:
    key_id, ends, signed_by, signature = (await world.cookie()).split(".")
    admin = (await world.cookie(ADMIN)).split(".")
    for forged in (
        [key_id, str(int(ends) + 1), signed_by, signature],
        [admin[0], ends, signed_by, signature],
        [key_id, *admin[1:]],
        [key_id, ends, "00000000", signature],
        [key_id, ends, signed_by, signature[:-1] + ("A" if signature[-1] != "A" else "B")],
        [key_id, ends, signed_by],
        [key_id, "9" * 400, signed_by, signature],
        [key_id, "²", signed_by, signature],
        [key_id, "-1", signed_by, signature],
        ["key_none", ends, signed_by, signature],
        [],
        ["\xff\xfe"],
    ):
        assert await world.caller(".".join(forged)) == ANONYMOUS, forged


OWN = ("origin", "http://media.example")


def scope_of(method: str, headers: dict[str, str], *, path: str = "/v1/assets") -> dict[str, Any]:
    sent = {"host": "media.example"} | headers
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "state": {},
    }


async def authorization(scope: dict[str, Any], public_url: str | None = None) -> list[bytes]:
    """Every Authorization header that arrives behind `Remembered`."""
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"authorization")

    async def nothing(*_: Any) -> Any: ...

    await Remembered(app, public_url)(scope, nothing, nothing)
    return seen


HERE = {"cookie": f"a=b; {COOKIE}=it; c=d"}


@pytest.mark.parametrize(
    ("method", "headers", "counts"),
    [
        ("GET", HERE, True),
        ("HEAD", HERE, True),
        (
            "GET",
            HERE | {"origin": "http://evil.example"},
            True,
        ),  # CORS keeps the answer from it: no credentials
        ("POST", HERE | {"origin": "http://media.example"}, True),
        ("PATCH", HERE | {"origin": "http://media.example"}, True),
        # What is taken for another method by whoever reads on, where something between lets only these pass.
        ("HEAD", HERE | {"x-http-method-override": "DELETE"}, False),
        ("GET", HERE | {"x-http-method-override": "PATCH", "origin": "http://evil.example"}, False),
        ("HEAD", HERE | {"x-http-method-override": "DELETE", "origin": "http://media.example"}, True),
        ("POST", HERE, False),
        ("DELETE", HERE, False),
        ("POST", HERE | {"origin": "null"}, False),
        ("POST", HERE | {"origin": "http://evil.example"}, False),
        ("POST", HERE | {"origin": "https://media.example"}, False),
        ("POST", HERE | {"origin": "http://media.example:8000"}, False),
        ("POST", HERE | {"origin": "http://media.example.evil.example"}, False),
        ("POST", HERE | {"host": "evil example", "origin": "http://evil example"}, False),
        ("GET", {"cookie": f"x{COOKIE}=it"}, False),
        ("GET", {}, False),
    ],
)
async def test_a_cookie_counts_for_reading_and_from_our_own_pages(
    method: str, headers: dict[str, str], counts: bool
) -> None:
    assert await authorization(scope_of(method, headers)) == ([b"Session it"] if counts else [])


async def test_a_key_counts_more_than_a_cookie() -> None:
    scope = scope_of("GET", HERE | {"authorization": "Bearer other"})
    assert await authorization(scope) == [b"Bearer other"]


async def test_our_origin_is_that_of_the_public_url() -> None:
    scope = scope_of("POST", HERE | {"origin": "https://files.example"})
    assert await authorization(scope, "https://files.example:443/under/a/path") == [b"Session it"]
    assert await authorization(scope_of("POST", HERE | dict([OWN])), "https://files.example") == []
    assert from_elsewhere(scope, None)
    assert not from_elsewhere(scope_of("POST", {}), None)


async def test_who_came_with_a_cookie_is_not_asked_for_a_password_by_the_browser() -> None:
    """A 401 that offers Basic opens the browser's own dialogue."""

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        raise Unauthorised("send an API key")

    async def answered(headers: dict[str, str], path: str = "/v1/assets") -> dict[bytes, bytes]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any: ...

        await Remembered(refusing, None)(scope_of("GET", headers, path=path), receive, send)
        assert sent[0]["status"] == 401
        return dict(sent[0]["headers"])

    for headers, path in ((HERE, "/v1/assets"), ({}, "/v1/session")):
        assert (await answered(headers, path))[b"www-authenticate"] == b'Session realm="mediasvc"'
    with pytest.raises(Unauthorised):
        await answered({})


async def test_every_layer_finds_the_caller_behind_the_cookie(world: World) -> None:
    caller_of = caller_resolver(world.catalogue, ADMIN, world.sessions())
    cookie = await world.cookie()
    assert (await caller_of(b"Session " + cookie.encode())).key_id == world.key.id
    assert await caller_of(b"Session " + cookie.encode() + b"x") == ANONYMOUS
    assert await caller_resolver(world.catalogue, ADMIN)(b"Session " + cookie.encode()) == ANONYMOUS
