"""The question nginx asks before it takes the body of an upload."""

import asyncio
import ipaddress
from dataclasses import dataclass, field

import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc.web.preflight import PATH, REFUSALS, Preflight, Welcome, is_preflight, is_question
from mediasvc.web.proxy import Proxies

TRUSTED = [ipaddress.ip_network("10.0.0.0/8")]
UPLOAD = {"x-preflight-method": "PUT", "x-preflight-target": "/b/media/x", "x-preflight-length": "400"}
ON = UPLOAD | {"x-preflight-answer": "yes"}


@dataclass
class Told:
    """What came back, piece by piece."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)


def ask(
    app: ASGIApp, headers: dict[str, str] = UPLOAD, *, path: str = PATH, client: str = "10.0.0.1"
) -> Told:
    told = Told()

    async def receive() -> Message:
        raise AssertionError("nginx sends no body")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            told.status = message["status"]
            told.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            told.pieces.append(message["body"])

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": (client, 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "state": {},
    }
    asyncio.run(Preflight(app, Proxies(TRUSTED))(scope, receive, send))  # type: ignore[arg-type]
    return told


def answering(response: Response) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await response(scope, receive, send)

    return app


def refusing(status: int, content: object = None, **headers: str) -> ASGIApp:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return answering(
        JSONResponse(content or {"code": "no"}, status, told, media_type="application/problem+json")
    )


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("this must not be asked")


@pytest.mark.parametrize("status", sorted(REFUSALS))
def test_every_refusal_is_a_403_to_the_question_and_itself_to_whoever_asks_on(status: int) -> None:
    app = refusing(status, {"code": "no", "detail": "nö"}, Retry_After="3", Connection="close")
    question = ask(app)
    assert (question.status, question.pieces) == (403, [b""])
    answer = ask(app, ON)
    assert (answer.status, b"".join(answer.pieces).decode()) == (status, '{"code":"no","detail":"nö"}')
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "3"


def test_the_answer_is_all_there_before_it_ends_and_its_end_is_not_known_to_nginx() -> None:
    answer = ask(refusing(401, {"code": "no"}, Connection="close"), ON)
    assert answer.pieces == [b'{"code":"no"}', b""]
    assert answer.headers["x-content-length"] == "13"
    assert not {"content-length", "connection"} & answer.headers.keys()


def test_what_is_welcome_after_all_is_to_be_sent_again() -> None:
    answer = ask(refusing(201), ON)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert b'"retryable": true' in answer.pieces[0]


def test_only_the_question_is_kept_from_the_log() -> None:
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(is_question(scope))
        raise Welcome

    ask(app)
    ask(app, ON)
    assert seen == [True, False]


@pytest.mark.parametrize("status", [200, 201, 307, 405, 409, 410, 422, 500, 503])
def test_all_else_is_left_to_the_upload_itself(status: int) -> None:
    assert ask(refusing(status)).status == 204


def test_whoever_wants_the_body_has_let_it_in() -> None:
    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except Exception:
            await refusing(400)(scope, receive, send)

    assert ask(reading).status == 204


def test_whoever_is_about_to_change_something_says_welcome() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert is_preflight(scope)
        raise Welcome

    assert ask(app).status == 204


def test_a_refusal_stays_one_though_the_rest_of_the_body_is_read_over() -> None:
    async def draining(scope: Scope, receive: Receive, send: Send) -> None:
        await refusing(413)(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    assert ask(draining).status == 403


def test_the_application_sees_the_upload_as_it_would_come_without_nginx() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        raise Welcome

    target = "/b/media/a%2Fb//%C3%A9%0A?q=%20"
    ask(app, UPLOAD | {"x-preflight-target": target, "authorization": "Bearer x"})
    (scope,) = seen
    assert (scope["method"], scope["path"]) == ("PUT", "/b/media/a/b//é\n")
    assert (scope["raw_path"], scope["query_string"]) == (b"/b/media/a%2Fb//%C3%A9%0A", b"q=%20")
    assert scope["headers"] == [(b"authorization", b"Bearer x"), (b"content-length", b"400")]


@pytest.mark.parametrize("length", ["", "4x", "-1"])
def test_a_length_that_is_none_is_not_passed_on(length: str) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        raise Welcome

    ask(app, UPLOAD | {"x-preflight-length": length})
    assert seen[0]["headers"] == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/b/media/x"),
        ("GET", "/b/media/x"),
        ("POST", "/v1/keys"),
        ("PUT", "/v1/assets"),
        ("PUT", PATH),
    ],
)
def test_what_takes_no_upload_is_not_even_tried(method: str, target: str) -> None:
    assert ask(never, UPLOAD | {"x-preflight-method": method, "x-preflight-target": target}).status == 204


@pytest.mark.parametrize("client", ["203.0.113.1", "unix", "::1"])
def test_for_a_stranger_there_is_nothing_here(client: str) -> None:
    assert ask(answering(Response(status_code=404)), client=client).status == 404


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-preflight-method": "PUT"}, UPLOAD | {"x-preflight-target": "b"}, UPLOAD | {"x-preflight-target": "/é"}],
    ids=["nothing", "no target", "no address", "not ASCII"],
)  # fmt: skip
def test_where_nothing_is_asked_there_is_nothing_here(headers: dict[str, str]) -> None:
    assert ask(answering(Response(status_code=404)), headers).status == 404


def test_any_other_request_passes_whatever_its_headers_say() -> None:
    assert ask(answering(Response(status_code=200)), path="/b/media/x").status == 200
