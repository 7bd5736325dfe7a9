"""Plain downloads that the connection answers itself: the same answer as the long way, or none at all."""

import asyncio
import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from mediasvc.catalogue.interface import Transaction
from mediasvc.catalogue.memory import LOOK_EVERY
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.deliver.links import Terms
from mediasvc.deliver.ways import Ways
from mediasvc.web.express import Express
from mediasvc.web.observe import Observed
from mediasvc.web.protocol import ServerProtocol
from mediasvc.web.proxy import Proxied, Proxies
from mediasvc.web.sendfile import EXTENSION
from mediasvc.web.small_blobs import OFTEN
from tests.protocols.wire import read_answer
from tests.web.conftest import Serve
from tests.web.test_download import CONTENT, TILE, House, _next

PROXIES = Proxies([ip_network("127.0.0.1/32")])
FORWARDED = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: media.test")
KEY = "Authorization: Bearer msk_reader"
DATE = (b"date", b"Mon, 30 Nov 2026 00:00:00 GMT")
Headers = list[tuple[bytes, bytes]]


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.downloads._ways = Ways("nginx", house.store)
    return house


def request(target: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: media.test", *lines, "", "")).encode("latin-1")


def visit(house: House, story: Callable[[Express], Awaitable[None]]) -> None:
    async def told() -> None:
        await house.open()
        try:
            await story(Express(PROXIES, house.downloads.at_once))
        finally:
            await house.catalogue.close()
            await house.store.close()

    asyncio.run(told())


async def the_long_way(house: House, head: bytes) -> tuple[int, Headers, bytes]:
    """What the application answers to the same request."""
    line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = line.split(" ")
    path, _, query = target.partition("?")
    sent: list[Any] = []
    body = b""

    async def send(message: Any) -> None:
        nonlocal body
        sent.append(message)
        if message["type"] == EXTENSION:
            body += os.pread(message["file"].fileno(), message["count"], message["offset"])
        else:
            body += message.get("body", b"")

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            (n.lower().encode(), v.encode()) for n, _, v in (field.partition(": ") for field in fields)
        ],
        "client": ("127.0.0.1", 1),
        "state": {},
        "extensions": {EXTENSION: {}},
    }
    await Observed(Proxied(house.downloads, PROXIES))(scope, None, send)  # type: ignore[arg-type]
    return sent[0]["status"], alike(sent[0]["headers"]), body


def parsed(answer: bytes) -> tuple[bytes, Headers]:
    line, *fields = answer.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return line, [(name, value) for name, _, value in (field.partition(b": ") for field in fields)]


def alike(headers: Headers) -> Headers:
    """Without what is another each time."""
    return [pair for pair in headers if pair[0] not in (b"x-request-id", b"x-download-id", b"date")]


DOORS = (
    "/b/{bucket}/a%20b/%C3%BC.mp4",
    "/f/{id}/x",
    "/f/{id}/x?download",
    "/i/grid/{id}.webp",
    "/i/grid/{id}.webp?v=1",
)


@pytest.mark.parametrize("bucket", ["media", "public"])
@pytest.mark.parametrize("door", DOORS)
def test_what_nginx_is_told_is_what_the_long_way_tells(house: House, bucket: str, door: str) -> None:
    async def story(express: Express) -> None:
        target = door.format(bucket=bucket, id=house.ids[bucket])
        key = [KEY] if bucket == "media" else []
        head = request(
            target, *FORWARDED, *key, "User-Agent: curl/8", "Accept: */*", "Connection: Keep-Alive"
        )
        for number in (1, 2):
            answer = express.answer(head, "127.0.0.1", [DATE])
            assert answer is not None
            line, headers = parsed(answer[0])
            assert line == b"HTTP/1.1 200 OK"
            assert headers[0] == DATE
            assert (200, alike(headers), answer[1]) == await the_long_way(house, head)
            told = dict(headers)
            assert len(told) == len(headers)
            assert told[b"x-accel-redirect"].startswith(b"/_blobs/")
            assert told[b"x-download-id"].decode() in house.receipts._expected
            assert len(house.receipts._expected) == 2 * number

    visit(house, story)


@pytest.mark.parametrize("bucket", ["media", "public"])
@pytest.mark.parametrize("delivery", ["direct", "nginx"])
def test_a_few_bytes_are_sent_at_once_to_whoever_asks_directly(
    house: House, bucket: str, delivery: Any
) -> None:
    house.downloads._ways = Ways(delivery, house.store)

    async def story(express: Express) -> None:
        head = request(f"/i/grid/{house.ids[bucket]}.webp", *([KEY] if bucket == "media" else []))
        answer = express.answer(head, "127.0.0.1", [])
        assert answer is not None
        _, headers = parsed(answer[0])
        assert dict(headers)[b"content-length"] == b"%d" % len(TILE)
        assert not [name for name, _ in headers if name.startswith((b"x-accel", b"x-download"))]
        assert (200, alike(headers), answer[1]) == await the_long_way(house, head)
        assert answer[1] == TILE
        assert express.answer(request(PLAIN, KEY), "127.0.0.1", []) is None, "that is large"
        assert express.answer(head, "192.0.2.1", []) is not None
        assert express.answer(request(PLAIN, *FORWARDED, KEY), "192.0.2.1", []) is None, (
            "that is no proxy of ours"
        )

    visit(house, story)


def test_a_few_bytes_count_as_a_download(house: House) -> None:
    house.downloads._ways = Ways("direct", house.store)

    async def story(express: Express) -> None:
        asset = await house.catalogue.asset(house.ids["media"])
        assert asset is not None
        few = await house._keep("few", b"few")
        async with house.catalogue.transaction() as tx:
            await tx.close_intent(few.id)
            await tx.replace_asset(_next(asset, few))
        for _ in range(2):
            answer = express.answer(request(f"/f/{asset.id}/x", KEY), "192.0.2.1", [])
            assert answer is not None
            assert answer[1] == b"few"
        await house.receipts.write_down()
        counted = await house.catalogue.asset(asset.id)
        assert counted is not None
        assert (counted.downloads, counted.downloaded_bytes) == (2, 6)

    visit(house, story)


async def until_dated(express: Express, head: bytes, peer: str = "127.0.0.1") -> None:
    """Until a new version's Last-Modified may be told: what is decided before does not last."""
    async with asyncio.timeout(5):
        while True:
            answer = express.answer(head, peer, [])
            assert answer is not None
            if b"last-modified" in answer[0]:
                return
            await asyncio.sleep(0.2)


def a_new_second(house: House) -> None:
    """What was asked for until now is not counted any more."""
    house.downloads._carrier._small_blobs._ends = 0.0


async def popular(express: Express, head: bytes, peer: str = "127.0.0.1") -> tuple[bytes, bytes | bytearray]:
    for _ in range(OFTEN):
        express.answer(head, peer, [])
    answer = express.answer(head, peer, [])
    assert answer is not None
    return answer


@pytest.mark.parametrize("bucket", ["media", "public"])
def test_few_bytes_that_many_ask_for_pass_through_nginx(house: House, bucket: str) -> None:
    async def story(express: Express) -> None:
        key = [KEY] if bucket == "media" else []
        target = f"/i/grid/{house.ids[bucket]}.webp"
        head = request(target, *FORWARDED, *key)
        await until_dated(express, head)
        a_new_second(house)
        for _ in range(OFTEN):
            answer = express.answer(head, "127.0.0.1", [])
            assert answer is not None
            assert b"x-accel-redirect" in answer[0]
            assert answer[1] == b""
        expected = dict(house.receipts._expected)
        for _ in range(2):
            answer = express.answer(head, "127.0.0.1", [])
            assert answer is not None
            assert not [
                name for name, _ in parsed(answer[0])[1] if name.startswith((b"x-accel", b"x-download"))
            ]
            asked_directly = await the_long_way(house, request(target, *key))
            assert (200, alike(parsed(answer[0])[1]), answer[1]) == asked_directly
            assert answer[1] == TILE
        assert house.receipts._expected == expected, "nginx has nothing to tell of those"
        large = request(f"/f/{house.ids[bucket]}/x", *FORWARDED, *key)
        assert b"x-accel-redirect" in (await popular(express, large))[0]
        a_new_second(house)
        answer = express.answer(head, "127.0.0.1", [])
        assert answer is not None
        assert b"x-accel-redirect" in answer[0]

    visit(house, story)


def test_what_many_ask_for_and_is_not_in_memory_is_nginx_s(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediasvc.web.carrier.read_at_once", lambda *_: None)

    async def story(express: Express) -> None:
        head = request(f"/i/grid/{house.ids['public']}.webp", *FORWARDED)
        await until_dated(express, head)
        assert b"x-accel-redirect" in (await popular(express, head))[0]

    visit(house, story)


def test_what_many_ask_for_is_still_nginx_s_where_it_is_slowed_down(house: House) -> None:
    async def story(express: Express) -> None:
        async with house.catalogue.transaction() as tx:
            await saved(tx, "public", download_rate=1000)
        head = request(f"/i/grid/{house.ids['public']}.webp", *FORWARDED)
        await until_dated(express, head)
        a_new_second(house)
        told = dict(parsed((await popular(express, head))[0])[1])
        assert told[b"x-accel-limit-rate"] == b"1000"
        assert told[b"x-limit-key"]

    visit(house, story)


@pytest.mark.parametrize("asked", [(), FORWARDED], ids=["directly", "through nginx"])
def test_what_many_ask_for_is_read_once_in_a_second(
    house: House, asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not asked:
        house.downloads._ways = Ways("direct", house.store)

    async def story(express: Express) -> None:
        opened = list[str]()
        quick = house.store.files.open

        def watched(blob_id: str) -> Any:
            opened.append(blob_id)
            return quick(blob_id)

        monkeypatch.setattr(house.store.files, "open", watched)
        heads = [request(f"/i/grid/{house.ids[name]}.webp", *asked, KEY) for name in ("media", "public")]
        for head in heads:
            await until_dated(express, head)
        for _ in range(2):
            a_new_second(house)
            opened.clear()
            for head in heads:
                assert (await popular(express, head))[1] == TILE
            counts = [opened.count(house.blobs[name]) for name in ("media/grid", "public/grid")]
            assert counts == [1, 1] if asked else counts == [OFTEN + 1] * 2
            for head in heads * 3:
                answer = express.answer(head, "127.0.0.1", [])
                assert answer is not None
                assert answer[1] == TILE
            assert len(opened) == sum(counts)
        house.path("media/grid").unlink()
        a_new_second(house)
        assert express.answer(heads[0], "127.0.0.1", []) is None, "what is lost shows"

    visit(house, story)


@pytest.mark.parametrize("change", ["closed", "deleted"])
@pytest.mark.parametrize("asked", [(), FORWARDED], ids=["directly", "through nginx"])
def test_bytes_in_memory_are_for_nobody_who_may_not_have_them(
    house: House, change: str, asked: tuple[str, ...]
) -> None:
    house.downloads._ways = Ways("nginx", house.store)

    async def story(express: Express) -> None:
        head = request(f"/i/grid/{house.ids['public']}.webp", *asked)
        private = request(f"/i/grid/{house.ids['media']}.webp", *asked)
        with_key = request(f"/i/grid/{house.ids['media']}.webp", *asked, KEY)
        await until_dated(express, head)
        assert (await popular(express, head))[1] == TILE
        assert (await popular(express, with_key))[1] == TILE
        assert express.answer(private, "127.0.0.1", []) is None
        async with house.catalogue.transaction() as tx:
            await (closed if change == "closed" else deleted)(tx, house)
        assert express.answer(head, "127.0.0.1", []) is None
        assert express.answer(head, "127.0.0.1", []) is None

    visit(house, story)


PLAIN = "/b/media/a%20b/%C3%BC.mp4"


@pytest.mark.parametrize(
    "head",
    [
        request(PLAIN, *FORWARDED, KEY, method="HEAD"),
        request(PLAIN, *FORWARDED, KEY, method="PUT"),
        *(
            request(PLAIN, *FORWARDED, KEY, line)
            for line in (
                "Range: bytes=0-1",
                "If-None-Match: *",
                "If-Modified-Since: Mon, 30 Nov 2026 00:00:00 GMT",
                "Origin: https://app.test",
                "Cookie: mediasvc=1",
                "X-Missed-Blob: 0",
                "X-Preflight-Method: PUT",
                "Connection: close",
                "Connection: keep-alive, x-forwarded-for",
                "Upgrade: h2c",
                "Expect: 100-continue",
                "Content-Length: 5",
                "Transfer-Encoding: chunked",
                "X-Whatever: 1",
                "authorization: Bearer msk_other",
                "X-Forwarded-For: 198.51.100.1",
                "User-Agent: " + "long " * 400,
                "Accept:*/*",
                "Accept:  */*",
                " folded",
                "Accept: a\nRange: bytes=0-1",
                "Accept: a\rRange: bytes=0-1",
                "No colon",
                ": no name",
                "",
            )
        ),
        request(PLAIN, *FORWARDED),
        request(PLAIN, *FORWARDED, "Authorization: Bearer msk_nobody"),
        request("/b/media/none", *FORWARDED, KEY),
        request("/b/media/%ff", *FORWARDED, KEY),
        request(PLAIN + "#part", *FORWARDED, KEY),
        request("http://media.test" + PLAIN, *FORWARDED, KEY),
        request(PLAIN + " x", *FORWARDED, KEY),
        request(PLAIN + "\xfc", *FORWARDED, KEY),
        request("/healthz", *FORWARDED, KEY),
        request("/v1/assets", *FORWARDED, KEY),
        request("/f/ast_1/x?exp=1&sig=0", *FORWARDED, KEY),
        request(PLAIN, *FORWARDED, KEY) * 2,
        request(PLAIN, *FORWARDED, KEY) + b"more",
        request(PLAIN, *FORWARDED, KEY)[:-2],
        request(PLAIN, *FORWARDED, KEY)[:-1],
        request(PLAIN, *FORWARDED, KEY).replace(b"HTTP/1.1", b"HTTP/1.0"),
        request(PLAIN, *FORWARDED, KEY).replace(b"\r\n", b"\n"),
        b"",
    ],
)
def test_what_is_out_of_the_ordinary_is_left_alone(house: House, head: bytes) -> None:
    async def story(express: Express) -> None:
        assert express.answer(request(PLAIN, *FORWARDED, KEY), "127.0.0.1", []) is not None
        expected = dict(house.receipts._expected)
        assert express.answer(head, "127.0.0.1", []) is None
        assert house.receipts._expected == expected

    visit(house, story)


@pytest.mark.parametrize("trouble", ["lost", "damaged", "away"])
def test_a_blob_that_is_not_there_whole_is_left_to_the_long_way(
    house: House, trouble: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(express: Express) -> None:
        path = house.path("media")
        match trouble:
            case "lost":
                path.unlink()
            case "damaged":
                path.write_bytes(b"short")
            case "away":
                path.unlink()
                path.symlink_to(path.name)  # a loop: neither there nor missing
        assert express.answer(request(PLAIN, *FORWARDED, KEY), "127.0.0.1", []) is None
        assert house.receipts._expected == {}

    visit(house, story)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [ValueError, OSError, sqlite3.DatabaseError])
def test_what_nobody_expected_is_left_to_the_long_way(
    house: House, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(express: Express) -> None:
        async def broken(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(house.catalogue, "source_at", broken)
        assert express.answer(request(PLAIN, *FORWARDED, KEY), "127.0.0.1", []) is None

    visit(house, story)


def test_what_has_to_be_waited_for_goes_the_long_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(express: Express) -> None:
        quick, begun = house.catalogue.source_at, list[str]()

        async def slow(bucket: str, key: str) -> Any:
            begun.append(key)
            await asyncio.sleep(0)
            return await quick(bucket, key)

        monkeypatch.setattr(house.catalogue, "source_at", slow)
        assert express.answer(request(PLAIN, *FORWARDED, KEY), "127.0.0.1", []) is None
        assert begun == ["a b/ü.mp4"]
        assert (await the_long_way(house, request(PLAIN, *FORWARDED, KEY)))[0] == 200

    visit(house, story)


# --- what was decided a moment ago


async def closed(tx: Transaction, house: House) -> None:
    await saved(tx, "public", public=False)


async def saved(tx: Transaction, name: str, **fields: Any) -> None:
    bucket = await tx.bucket(name)
    assert bucket is not None
    await tx.save_bucket(replace(bucket, **fields))


async def deleted(tx: Transaction, house: House) -> None:
    await tx.delete_asset(house.ids["public"])


async def replaced(tx: Transaction, house: House) -> None:
    asset = await tx.asset(house.ids["public"])
    assert asset is not None
    await tx.close_intent(house.blobs["next"])
    await tx.replace_asset(_next(asset, replace(asset.blob, id=house.blobs["next"])))


@pytest.mark.parametrize("change", [closed, deleted, replaced])
@pytest.mark.parametrize("by", ["us", "another process"])
def test_it_is_decided_anew_once_anything_has_changed(
    house: House, change: Callable[[Transaction, House], Awaitable[None]], by: str, tmp_path: Path
) -> None:
    async def story(express: Express) -> None:
        head = request(f"/f/{house.ids['public']}/x", *FORWARDED)
        await house._keep("next", CONTENT)
        before = express.answer(head, "127.0.0.1", [])
        assert before is not None
        catalogue = house.catalogue if by == "us" else SqliteCatalogue(tmp_path / "catalogue.db")
        if by != "us":
            await catalogue.start()
        async with catalogue.transaction() as tx:
            await change(tx, house)
        if by != "us":
            await catalogue.close()
            await asyncio.sleep(2 * LOOK_EVERY)
        after = express.answer(head, "127.0.0.1", [])
        if change is replaced:
            assert after is not None
            assert house.blobs["next"].encode() in after[0]
            assert house.blobs["public"].encode() in before[0]
        else:
            assert after is None

    visit(house, story)


def test_it_is_no_other_urls(house: House) -> None:
    async def story(express: Express) -> None:
        shown = []
        for query in ("", "?download", ""):
            head = request(f"/i/grid/{house.ids['public']}.webp{query}", *FORWARDED)
            answer = express.answer(head, "127.0.0.1", [])
            assert answer is not None
            shown.append(dict(parsed(answer[0])[1])[b"x-content-disposition"].partition(b";")[0])
        assert shown == [b"inline", b"attachment", b"inline"]

    visit(house, story)


def test_it_is_nobody_elses(house: House) -> None:
    async def story(express: Express) -> None:
        assert express.answer(request(PLAIN, *FORWARDED, KEY), "127.0.0.1", []) is not None
        assert express.answer(request(PLAIN, *FORWARDED), "127.0.0.1", []) is None
        head = request(f"/i/grid/{house.ids['public']}.webp")
        handed = express.answer(request(f"/i/grid/{house.ids['public']}.webp", *FORWARDED), "127.0.0.1", [])
        direct = express.answer(head, "127.0.0.1", [])
        assert handed is not None
        assert direct is not None
        assert (handed[1], direct[1]) == (b"", TILE), "who asks us directly is never told where blobs lie"
        assert b"x-accel" not in direct[0]

    visit(house, story)


def test_what_ends_by_itself_is_not_kept(house: House) -> None:
    async def story(express: Express) -> None:
        async with house.catalogue.transaction() as tx:
            asset = await tx.asset(house.ids["public"])
            assert asset is not None
            await tx.save_asset(replace(asset, expires_at=time.time() + 0.5))
        head = request(f"/f/{house.ids['public']}/x", *FORWARDED)
        assert express.answer(head, "127.0.0.1", []) is not None
        await asyncio.sleep(0.6)
        assert express.answer(head, "127.0.0.1", []) is None

    visit(house, story)


def test_a_link_is_looked_at_each_time(house: House) -> None:
    async def story(express: Express) -> None:
        url = Terms(house.ids["media"], int(time.time()) + 2).url(house.downloads._signer, 0, "x")
        assert express.answer(request(url, *FORWARDED), "127.0.0.1", []) is not None
        await asyncio.sleep(2.1)
        assert express.answer(request(url, *FORWARDED), "127.0.0.1", []) is None

    visit(house, story)


def test_everybody_is_limited_by_their_own_address(house: House) -> None:
    async def story(express: Express) -> None:
        async with house.catalogue.transaction() as tx:
            await saved(tx, "public", download_rate=1000)
        for address in ("203.0.113.7", "203.0.113.8"):
            head = request(f"/f/{house.ids['public']}/x", f"X-Forwarded-For: {address}")
            answer = express.answer(head, "127.0.0.1", [])
            assert answer is not None
            assert dict(parsed(answer[0])[1])[b"x-limit-key"] == address.encode()

    visit(house, story)


# --- the connection

QUICK = request("/b/media/quick", *FORWARDED)
LONG = request("/b/media/quick", *FORWARDED, "X-Whatever: 1")


async def _beyond(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"long"})


def quick(*_: Any, **__: Any) -> tuple[bytes, bytes]:
    return b"content-length: 0\r\nx-quick: yes\r\n", b""


def ask(connection: socket.socket, head: bytes) -> bytes:
    connection.sendall(head)
    answer = read_answer(connection)
    assert "date" in answer.headers
    return b"quick" if "x-quick" in answer.headers else answer.content


def test_both_ways_take_turns_on_one_connection(serve: Serve) -> None:
    port = serve(_beyond, http=partial(ServerProtocol, express=Express(PROXIES, quick)))
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for _ in range(3):
            assert ask(connection, QUICK) == b"quick"
            assert ask(connection, QUICK) == b"quick"
            assert ask(connection, LONG) == b"long"
        connection.sendall(LONG[:30])
        time.sleep(0.05)
        assert ask(connection, LONG[30:]) == b"long"
        connection.sendall(LONG + QUICK)
        both = b""
        while both.count(b"\r\n\r\nlong") < 2:
            more = connection.recv(65536)
            assert more, both
            both += more
        assert b"x-quick" not in both
        assert ask(connection, QUICK) == b"quick"


def test_whoever_does_not_read_gets_no_more(serve: Serve) -> None:
    asked, body = list[str](), bytes(64 * 1024)

    def few(*_: Any, **__: Any) -> tuple[bytes, bytes]:
        asked.append("quick")
        return b"content-length: %d\r\n" % len(body), body

    port = serve(_beyond, http=partial(ServerProtocol, express=Express(PROXIES, few)))
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            for _ in range(2000):
                connection.sendall(QUICK)
                time.sleep(0.0005)
        time.sleep(0.2)
        assert 0 < len(asked) < 400, "64 KiB more than the socket's buffers hold, not 128 MB"


@pytest.mark.parametrize("before", [b"", LONG], ids=["at once", "after the long way"])
def test_a_connection_in_use_stays_and_an_idle_one_goes(
    serve: Serve, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediasvc.web.protocol.HEAD_TIMEOUT", 0.5)
    port = serve(_beyond, http=partial(ServerProtocol, express=Express(PROXIES, quick)), timeout_keep_alive=1)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        if before:
            assert ask(connection, before) == b"long"
        for _ in range(8):
            time.sleep(0.25)
            assert ask(connection, QUICK) == b"quick"
        assert connection.recv(1) == b""


def test_a_connection_stays_as_long_after_an_answer_that_took_long(serve: Serve) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.9)
        await _beyond(scope, receive, send)

    port = serve(slow, http=partial(ServerProtocol, express=Express(PROXIES, quick)), timeout_keep_alive=1)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        assert ask(connection, QUICK) == b"quick"
        assert ask(connection, LONG) == b"long"
        time.sleep(0.6)
        assert ask(connection, QUICK) == b"quick"
