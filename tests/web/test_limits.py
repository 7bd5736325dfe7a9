"""Requests are counted for each key and each address, in bounded memory, before a body is read."""

from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from mediasvc import settings
from mediasvc.core.access import ANONYMOUS, Caller
from mediasvc.core.errors import Forbidden, RateLimited, StartupRefused
from mediasvc.web.limits import Limited, RateLimits, Windows, network_of
from mediasvc.web.middleware import Problems
from mediasvc.web.preflight import Welcome, is_preflight
from tests.web.test_middleware import answering, ask, reading

ONE, TWO = Caller("key_1"), Caller("key_2")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    return Clock()


def refused(limits: RateLimits, caller: Caller, address: str = "192.0.2.1") -> RateLimited | None:
    try:
        limits.count(caller, address)
    except RateLimited as error:
        return error
    return None


def test_a_key_gets_its_rate_and_a_refusal_that_says_when(clock: Clock) -> None:
    limits = RateLimits("3/minute", clock)
    assert [refused(limits, ONE) for _ in range(3)] == [None] * 3
    clock.now += 20.5
    error = refused(limits, ONE)
    assert error is not None
    assert (error.limit, error.limit_source, error.retry_after) == (3, "key", 40)
    assert "3 per 1 minute" in error.detail
    clock.now += 39.4
    assert refused(limits, ONE)
    clock.now += 0.2
    assert refused(limits, ONE) is None


def test_one_does_not_pay_for_another(clock: Clock) -> None:
    limits = RateLimits("1/minute", clock)
    for caller, address in (
        (ONE, "192.0.2.1"),
        (TWO, "192.0.2.1"),
        (ANONYMOUS, "192.0.2.1"),
        (ANONYMOUS, "192.0.2.2"),
        (ANONYMOUS, ""),
    ):
        assert refused(limits, caller, address) is None
        error = refused(limits, caller, address)
        assert error is not None
        assert error.limit_source == ("server" if caller is ANONYMOUS else "key")
    assert refused(limits, ONE, "198.51.100.1"), "a key is one caller, wherever it comes from"


def test_to_look_costs_nothing(clock: Clock) -> None:
    limits = RateLimits("2/second", clock)
    for _ in range(10):
        limits.look(ONE, "192.0.2.1")
    limits.count(ONE, "192.0.2.1")
    limits.look(ONE, "192.0.2.1")
    limits.count(ONE, "192.0.2.1")
    with pytest.raises(RateLimited):
        limits.look(ONE, "192.0.2.1")
    clock.now += 1.1
    limits.look(ONE, "192.0.2.1")


def test_windows_are_bounded_and_the_oldest_gives_way(clock: Clock) -> None:
    windows = Windows(clock, most=3)
    for name in "abcd":
        assert windows.incr(name, 60) == 1
        assert windows.incr(name, 60) == 2
    assert len(windows) == 3
    assert [windows.get(name) for name in "abcd"] == [0, 2, 2, 2]
    clock.now += 61
    assert windows.get("b") == 0
    assert windows.incr("b", 60) == 1, "a window that is over begins anew"
    assert windows.incr("e", 60) == 1
    assert [windows.get(name) for name in "be"] == [1, 1]
    assert len(windows) == 3


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("<script>", "<script>"),
        ("not:an:address", "not:an:address"),
        ("x" * 5000, "x" * 64),
    ],
)
def test_with_ipv6_a_network_is_one_caller(address: str, network: str) -> None:
    assert network_of(address) == network


# ---- around the application


async def nobody(authorization: bytes | None) -> Caller:
    return ONE if authorization == b"Bearer one" else ANONYMOUS


def test_what_is_too_much_is_refused_before_a_body_is_read() -> None:
    app = Problems(Limited(reading, nobody, RateLimits("1/day")))
    assert ask(app, "PUT", "/b/media/x", body=[b"12", b"3"]).received == 3
    exchange = ask(app, "PUT", "/b/media/x", body=[b"12", b"3"])
    assert (exchange.status, exchange.received) == (429, 0)
    assert int(exchange.headers[b"retry-after"]) > 80_000
    assert b'"code": "rate_limited"' in exchange.body
    assert ask(app, "PUT", "/b/media/x", {b"authorization": b"Bearer one"}).status == 200
    assert ask(app, "PUT", "/b/media/x", {b"authorization": b"Bearer unknown"}).status == 429


def asked_first(app: ASGIApp) -> ASGIApp:
    """The head of an upload, as nginx asks about it before it takes the body."""

    async def preflight(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {**scope["state"], "preflight": True}}, receive, send)

    return preflight


def test_an_upload_that_nginx_asks_about_first_counts_once() -> None:
    async def welcoming(scope: Scope, receive: Receive, send: Send) -> None:
        if is_preflight(scope):
            raise Welcome
        await answering()(scope, receive, send)

    app = Problems(Limited(welcoming, nobody, RateLimits("2/day")))
    for _ in range(2):
        for _ in range(3):
            with pytest.raises(Welcome):
                ask(asked_first(app))
        assert ask(app).status == 200
    assert ask(asked_first(app)).status == 429


async def forbidding(scope: Scope, receive: Receive, send: Send) -> None:
    raise Forbidden("the key lacks the scope assets:write")


@pytest.mark.parametrize("refusing", [forbidding, Problems(forbidding)], ids=["raised", "answered"])
def test_an_upload_that_is_refused_before_it_comes_counts_too(refusing: ASGIApp) -> None:
    app = Problems(Limited(refusing, nobody, RateLimits("2/day")))
    assert [ask(asked_first(app)).status for _ in range(4)] == [403, 403, 429, 429]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_monitoring_is_never_turned_away(path: str) -> None:
    app = Problems(Limited(answering(), nobody, RateLimits("1/day")))
    assert [ask(app, path=path).status for _ in range(5)] == [200] * 5
    assert [ask(app, path=path + "/").status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("text", "limit", "seconds"),
    [
        ("100/second", 100, 1),
        ("5/minute", 5, 60),
        ("10 per hour", 10, 3600),
        ("10 / 2 hours", 10, 7200),
        ("1000/DAY", 1000, 86400),
        (" 7/10seconds ", 7, 10),
    ],
)
def test_every_rate_that_the_settings_take_is_one(text: str, limit: int, seconds: int, clock: Clock) -> None:
    limits = RateLimits(settings.read({"MEDIASVC_RATE_LIMIT": text}).rate_limit, clock)
    assert [refused(limits, ONE) for _ in range(limit)] == [None] * limit
    clock.now += seconds - 0.5
    assert refused(limits, ONE)
    clock.now += 0.6
    assert refused(limits, ONE) is None


@pytest.mark.parametrize(
    "text",
    ["100", "0/second", "-1/second", "1e3/second", "100/fortnight", "1/0 second", "1/second;5/minute", "often"],
)  # fmt: skip
def test_what_is_no_rate_stops_the_start(text: str) -> None:
    with pytest.raises(StartupRefused, match=r"MEDIASVC_RATE_LIMIT must be .* such as 100/second"):
        settings.read({"MEDIASVC_RATE_LIMIT": text})
