"""The layers around every request, each alone with a small application."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import BackgroundTasks
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc.core.access import ANONYMOUS, Caller
from mediasvc.core.errors import NotFound, TooLarge
from mediasvc.web import middleware
from mediasvc.web.cors import Cors
from mediasvc.web.deps import Desk
from mediasvc.web.middleware import JSON_LIMIT, Admitted, Drained, HeadAsGet, Problems


@dataclass
class Exchange:
    """What an application was given, and what it answered."""

    messages: list[Message] = field(default_factory=list)
    received: int = 0

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


def ask(
    app: ASGIApp,
    method: str = "GET",
    path: str = "/v1/assets",
    headers: dict[bytes, bytes] | None = None,
    body: Sequence[bytes] = (),
) -> Exchange:
    exchange, left = Exchange(), [*body]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": list((headers or {}).items())}
    scope["state"] = {"request_id": "abc"}

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        exchange.received += len(left[0])
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        exchange.messages.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return exchange


def answering(status: int = 200, body: bytes = b"hello", **headers: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    return app


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body, then answers with its size."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await answering(body=str(size).encode())(scope, receive, send)


# ---- Admitted


def admitted(app: ASGIApp = reading, *, caller: Caller = ANONYMOUS, limit: int | None = None) -> ASGIApp:
    async def caller_of(authorization: bytes | None) -> Caller:
        return caller

    return Problems(Admitted(app, caller_of, max_upload_size=limit))


KNOWN = Caller("key_1", frozenset({"assets:write"}))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/assets", 401),
        ("GET", "/v1/assets/ast_1", 200),
        ("HEAD", "/v1/assets/ast_1", 200),
        ("PATCH", "/v1/assets/ast_1", 401),
        ("GET", "/v1/assets/ast_1/tasks", 401),
        ("POST", "/v1/assets/check", 401),
        ("GET", "/v1/nothing", 401),
        ("PUT", "/b/media/x", 401),
        ("PUT", "/u/x", 401),
        ("GET", "/metrics", 401),
        ("OPTIONS", "/v1/assets", 200),
        ("GET", "/healthz", 200),
        ("GET", "/docs", 200),
        ("GET", "/nothing", 200),
    ],
)
def test_nobody_gets_past_without_a_key(method: str, path: str, status: int) -> None:
    exchange = ask(admitted(), method, path, {b"content-length": b"9"}, [b"x" * 9])
    assert exchange.status == status
    assert exchange.received == (9 if status == 200 else 0)


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [("PUT", "/b/media/x", 100), ("PUT", "/u/x", 100), ("POST", "/v1/assets", 100), ("POST", "/v1/keys", JSON_LIMIT),
     ("PATCH", "/v1/assets/ast_1", JSON_LIMIT), ("POST", "/v1/assets/check", JSON_LIMIT)],
)  # fmt: skip
def test_the_declared_size_is_judged_before_the_body(method: str, path: str, limit: int) -> None:
    app = admitted(caller=KNOWN, limit=100)
    for size, status in ((limit, 200), (limit + 1, 413)):
        exchange = ask(app, method, path, {b"content-length": b"%d" % size}, [b"x" * size])
        assert exchange.status == status
        assert (exchange.received == 0) == (status == 413)
    assert json.loads(exchange.body)["limit"] == limit


def test_a_body_without_a_length_stops_at_the_limit() -> None:
    app = admitted(caller=KNOWN, limit=100)
    assert ask(app, "PUT", "/b/media/x", body=[b"x" * 50] * 2).body == b"100"
    exchange = ask(app, "PUT", "/b/media/x", body=[b"x" * 50] * 10)
    assert (exchange.status, exchange.received) == (413, 150)


def test_the_limit_is_told_whatever_the_application_makes_of_it() -> None:
    async def muddled(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await reading(scope, receive, send)
        except TooLarge:
            await answering(400, b"cannot parse this")(scope, receive, send)

    exchange = ask(admitted(muddled, caller=KNOWN), "POST", "/v1/keys", body=[b" " * JSON_LIMIT, b" "])
    assert exchange.status == 413
    assert json.loads(exchange.body)["code"] == "too_large"


def test_what_a_key_opens_is_private() -> None:
    assert ask(admitted(answering(), caller=KNOWN)).headers[b"cache-control"] == b"private, no-cache"
    kept = admitted(answering(cache_control="no-store"), caller=KNOWN)
    assert ask(kept).headers[b"cache-control"] == b"no-store"
    assert b"cache-control" not in ask(admitted(answering()), path="/healthz").headers


# ---- Drained


def test_an_answer_after_the_body_keeps_the_connection() -> None:
    exchange = ask(Drained(reading), "PUT", headers={b"content-length": b"4"}, body=[b"12", b"34"])
    assert b"connection" not in exchange.headers


def test_an_early_answer_is_sent_whole_then_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.0)
    exchange = ask(Drained(answering(403)), "PUT", headers={b"content-length": b"40"}, body=[b"x" * 10] * 4)
    assert exchange.headers[b"connection"] == b"close"
    assert exchange.body == b"hello"
    assert exchange.received == 40
    assert [message.get("more_body", False) for message in exchange.messages[1:]] == [True, False]


@pytest.mark.parametrize(
    ("framing", "behind_proxy", "told"),
    [
        ({b"content-length": b"4000000"}, True, b"x-content-length"),
        ({b"transfer-encoding": b"chunked"}, True, b"x-content-length"),
        ({b"content-length": b"4000000"}, False, b"content-length"),
        ({b"content-length": b"40"}, True, b"content-length"),
    ],
    ids=["long", "chunked", "nobody between", "read whole"],
)
def test_a_proxy_does_not_learn_where_an_early_answer_ends(
    monkeypatch: pytest.MonkeyPatch, framing: dict[bytes, bytes], behind_proxy: bool, told: bytes
) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["behind_proxy"] = behind_proxy
        await answering(403, content_length="5")(scope, receive, send)

    headers = ask(Drained(app), "PUT", headers=framing, body=[b"x" * 10] * 4).headers
    assert headers[told] == b"5"
    assert len({b"content-length", b"x-content-length"} & headers.keys()) == 1


def test_reading_on_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(middleware, "DRAIN_LIMIT", 1000)
    exchange = ask(
        Drained(answering(403)), "PUT", headers={b"transfer-encoding": b"chunked"}, body=[b"x" * 100] * 99
    )
    assert exchange.received == 1000


def test_reading_on_is_bounded_in_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(middleware, "DRAIN_SECONDS", 0.01)

    async def run() -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "PUT", "headers": [(b"content-length", b"9")]}
        await asyncio.wait_for(Drained(answering(403))(scope, receive, send), 5)
        return sent

    assert not asyncio.run(run())[-1].get("more_body", False)


def test_who_waits_for_leave_is_not_waited_for() -> None:
    headers = {b"content-length": b"40", b"expect": b"100-continue"}
    assert ask(Drained(answering(403)), "PUT", headers=headers, body=[b"x" * 40]).received == 0


def test_who_got_leave_to_send_is_read_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LINGER_SECONDS", 0.0)

    async def looking(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await answering(404)(scope, receive, send)

    headers = {b"content-length": b"40", b"expect": b"100-continue"}
    assert ask(Drained(looking), "PUT", headers=headers, body=[b"x" * 10] * 4).received == 40


# ---- Problems, HeadAsGet


def test_an_error_from_below_is_a_problem() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotFound("gone")

    exchange = ask(Problems(failing))
    assert exchange.status == 404
    assert json.loads(exchange.body)["request_id"] == "abc"


def test_an_error_in_the_middle_of_an_answer_breaks_it_visibly() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise NotFound("gone")

    with pytest.raises(NotFound):
        ask(Problems(failing))


def test_head_is_get_without_a_body() -> None:
    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(body=scope["method"].encode(), content_length="3")(scope, receive, send)

    head = ask(HeadAsGet(telling), "HEAD")
    assert (head.body, head.headers[b"content-length"]) == (b"", b"3")
    assert ask(HeadAsGet(telling), "POST").body == b"POST"


# ---- CORS

ORIGIN = {b"origin": b"https://app.example"}


def test_where_everybody_may_call_no_answer_varies() -> None:
    app: Any = Cors(answering(), ["*"])
    assert b"vary" not in ask(app).headers
    told = ask(app, headers=ORIGIN).headers
    assert told[b"access-control-allow-origin"] == b"*"
    assert b"ETag" in told[b"access-control-expose-headers"]
    assert b"vary" not in told


@pytest.mark.parametrize(
    ("origin", "allowed"), [(b"https://app.example", True), (b"https://evil.example", False)]
)
def test_where_few_may_call_every_answer_varies(origin: bytes, allowed: bool) -> None:
    app: Any = Cors(answering(), ["https://app.example"])
    told = ask(app, headers={b"origin": origin}).headers
    assert told.get(b"access-control-allow-origin") == (origin if allowed else None)
    assert told[b"vary"] == b"Origin"
    assert ask(app).headers[b"vary"] == b"Origin"


@pytest.mark.parametrize(
    ("origin", "allowed"), [(b"https://app.example", True), (b"https://evil.example", False)]
)
def test_a_preflight_never_reaches_the_application(origin: bytes, allowed: bool) -> None:
    app: Any = Cors(answering(500), ["https://app.example"])
    exchange = ask(app, "OPTIONS", headers={b"origin": origin, b"access-control-request-method": b"PUT"})
    assert (exchange.status, exchange.body) == (204, b"")
    assert (b"access-control-allow-origin" in exchange.headers) is allowed


# ---- the bell


def test_the_bell_is_rung_in_the_event_loop() -> None:
    """An asyncio.Event set from a thread breaks, now and then."""
    rung: list[int] = []
    desk = Desk(None, ring=lambda: rung.append(threading.get_ident()), healthy=lambda: True)  # type: ignore[arg-type]
    tasks = BackgroundTasks()
    tasks.add_task(desk.ring_bell)
    asyncio.run(tasks())
    assert rung == [threading.get_ident()]
