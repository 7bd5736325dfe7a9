"""Downloads end to end, with the real catalogue and store: by sendfile, over TLS, and streamed."""

import asyncio
import hashlib
import http.client
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mediasvc import metrics
from mediasvc.catalogue.interface import Intent
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.access import ANONYMOUS, Caller
from mediasvc.core.asset import Asset, Blob, Rendition, etag_of
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import MediasvcError
from mediasvc.core.ids import new_asset_id, new_blob_id
from mediasvc.core.signing import Signer
from mediasvc.core.span import Span
from mediasvc.deliver.receipts import Receipts
from mediasvc.deliver.ways import Ways
from mediasvc.store.digests import Digests
from mediasvc.store.local import LocalStore
from mediasvc.web.download import Downloads, target_of
from tests.waiting import until

CONTENT = random.Random(8).randbytes(3 * 1024 * 1024 + 17)
TILE = b"RIFF....WEBP of a tile"
READER = Caller("key_1", frozenset(("assets:read",)))


class House:
    """A catalogue, a store, one private and one public asset, and Downloads in front of them."""

    def __init__(self, folder: Path) -> None:
        self.catalogue = SqliteCatalogue(folder / "catalogue.db")
        self.store = LocalStore(folder / "blobs")
        self.ids: dict[str, str] = {}
        self.blobs: dict[str, str] = {}
        self.errors: list[MediasvcError] = []
        self.receipts = Receipts(self.catalogue, heard=True)
        self.downloads = Downloads(
            self._beyond,
            self.catalogue,
            self.store,
            self._caller_of,
            Signer(["a secret of the tests"]),
            Ways("direct", self.store),
            self.receipts,
        )

    def streams(self) -> None:
        """From now on the store has no files."""
        self.downloads._carrier._store = Remote(self.store)  # type: ignore[assignment]
        self.downloads._ways = Ways("direct", self.downloads._carrier._store)

    async def _caller_of(self, authorization: bytes | None) -> Caller:
        return READER if authorization == b"Bearer msk_reader" else ANONYMOUS

    async def _beyond(self, scope: Any, receive: Any, send: Any) -> None:
        await self._short(send, 418, b"beyond")

    async def _short(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """What stands outside: starts and ends with the server, turns errors into answers."""
        if scope["type"] == "lifespan":
            await receive()
            await self.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.catalogue.close()
            await self.store.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.downloads(scope, receive, watched)
        except MediasvcError as error:
            self.errors.append(error)
            if started:
                raise
            await self._short(send, error.status, error.code.encode())

    async def open(self) -> None:
        await self.catalogue.start()
        await self.store.start()
        for bucket in ("media", "public"):
            async with self.catalogue.transaction() as tx:
                await tx.add_bucket(Bucket(bucket, 0, public=bucket == "public"))
            self.ids[bucket] = new_asset_id()
            blob = await self._keep(bucket, CONTENT)
            tile = Rendition("grid", await self._keep(bucket + "/grid", TILE), "image/webp", 512, 384)
            async with self.catalogue.transaction() as tx:
                await tx.close_intent(blob.id)
                await tx.add_asset(
                    Asset(
                        self.ids[bucket],
                        bucket,
                        "a b/ü.mp4",
                        "ü.mp4",
                        blob,
                        "video/mp4",
                        "processing",
                        0,
                        1000,
                    )
                )
            async with self.catalogue.transaction() as tx:
                await tx.close_intent(tile.blob.id)
                await tx.save_findings(
                    self.ids[bucket], 1, state="processing", facts={}, placeholder=None, renditions=[tile]
                )

    async def _keep(self, name: str, content: bytes) -> Blob:
        async def body() -> AsyncIterator[bytes]:
            yield content

        digests = Digests()
        self.blobs[name] = blob_id = new_blob_id()
        async with self.catalogue.transaction() as tx:
            await tx.open_intent(Intent(blob_id, "run_1"))
        await self.store.put(blob_id, body(), digests)
        return Blob(blob_id, digests.size, digests.sha256, digests.crc32)

    def path(self, name: str) -> Path:
        return self.store.files.path(self.blobs[name])


class Remote:
    """A store without files, as S3 is: the same blobs, only through `open`. Counts its readers."""

    files = presigned = None

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.readers = 0

    @asynccontextmanager
    async def open(self, blob_id: str, span: Span | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._store.open(blob_id, span) as chunks:
            self.readers += 1
            try:
                yield chunks
            finally:
                self.readers -= 1


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def way(connect_by: str) -> str:
    """The plan's name for it."""
    return "sendfile" if connect_by == "sendfile" else "stream"


@pytest.fixture(params=["sendfile", "stream", "tls"])
def connect_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(
    connect_by: str,
    house: House,
    serve: Callable[..., int],
    certificate: tuple[Path, Path],
) -> Callable[[], http.client.HTTPConnection]:
    """A new connection to the house, by each of the ways bytes leave it."""
    if connect_by == "tls":
        port = serve(house, lifespan="on", ssl_certfile=certificate[0], ssl_keyfile=certificate[1])
        context = ssl.create_default_context(cafile=str(certificate[0]))
        return lambda: http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    if connect_by == "stream":
        house.streams()
    port = serve(house, lifespan="on")
    return lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=20)


Connect = Callable[[], http.client.HTTPConnection]


def ask(
    connect: Connect, target: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = connect()
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, headers={"Authorization": "Bearer msk_reader", **sent})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_every_url_gives_the_bytes(house: House, connect: Connect) -> None:
    for target in (f"/f/{house.ids['media']}/any%20name", "/b/media/a%20b/u%CC%88.mp4"):
        status, headers, body = ask(connect, target)
        assert (status, body == CONTENT) == (200, True)
        assert headers["etag"] == etag_of(hashlib.sha256(CONTENT).hexdigest())
        assert headers["content-length"] == str(len(CONTENT))
        assert headers["content-type"] == "video/mp4"
        assert headers["last-modified"] == "Thu, 01 Jan 1970 00:16:40 GMT"
        assert headers["accept-ranges"] == "bytes"
    assert ask(connect, f"/i/grid/{house.ids['media']}.webp")[2] == TILE


@pytest.mark.parametrize(
    ("asked", "span"),
    [("bytes=0-1", (0, 2)), ("bytes=1000000-", (1_000_000, len(CONTENT))), ("bytes=-1", (-1, len(CONTENT)))],
)
def test_a_range_gives_those_bytes(house: House, connect: Connect, asked: str, span: tuple[int, int]) -> None:
    status, headers, body = ask(connect, f"/f/{house.ids['media']}/x", Range=asked)
    assert (status, body) == (206, CONTENT[span[0] : span[1]])
    assert headers["content-length"] == str(len(body))


def test_several_ranges_give_those_bytes_in_parts(house: House, connect: Connect) -> None:
    status, headers, body = ask(connect, f"/f/{house.ids['media']}/x", Range="bytes=5-9,1000000-2000000,-3")
    assert status == 206
    assert headers["content-length"] == str(len(body))
    boundary = headers["content-type"].partition("boundary=")[2].encode()
    first, *parts, last = body.split(b"--" + boundary)
    assert (first, last) == (b"", b"--\r\n")
    contents = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    assert contents == [CONTENT[5:10], CONTENT[1_000_000:2_000_001], CONTENT[-3:]]


def test_one_connection_serves_all_kinds_of_answers(house: House, connect: Connect) -> None:
    connection = connect()
    target, key = f"/f/{house.ids['media']}/x", {"Authorization": "Bearer msk_reader"}
    tag = etag_of(hashlib.sha256(CONTENT).hexdigest())
    for method, headers, status, body in (
        ("HEAD", {}, 200, b""),
        ("GET", {"If-None-Match": tag}, 304, b""),
        ("GET", {"Range": "bytes=0-3"}, 206, CONTENT[:4]),
        ("HEAD", {"Range": "bytes=0-3"}, 200, b""),
        ("GET", {"If-Match": '"x"'}, 412, b"precondition_failed"),
        ("GET", {"Range": "bytes=99999999-"}, 416, b"range_not_satisfiable"),
        ("GET", {}, 200, CONTENT),
        ("DELETE", {}, 418, b"beyond"),
    ):
        connection.request(method, target, headers={**key, **headers})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, body)
    connection.close()


def test_lost_bytes_are_not_found_and_counted(house: House, connect: Connect) -> None:
    assert ask(connect, f"/f/{house.ids['media']}/x", "HEAD")[0] == 200
    before = metrics.blobs_missing._value.get()
    house.path("media").unlink()
    assert ask(connect, f"/f/{house.ids['media']}/x")[::2] == (404, b"not_found")
    assert ask(connect, f"/f/{house.ids['media']}/x", Range="bytes=0-1,5-6")[0] == 404
    assert metrics.blobs_missing._value.get() == before + 2
    if house.downloads._carrier._store.files is not None:  # of another store a look would cost a request
        assert ask(connect, f"/f/{house.ids['media']}/x", "HEAD")[0] == 404
    assert ask(connect, f"/f/{house.ids['public']}/x")[0] == 200


def test_bytes_that_fell_short_are_never_a_whole_answer(house: House, connect: Connect) -> None:
    assert ask(connect, f"/f/{house.ids['media']}/x", "HEAD")[0] == 200
    with house.path("media").open("r+b") as file:
        file.truncate(2_000_000)
    try:
        status, _, _ = ask(connect, f"/f/{house.ids['media']}/x")
    except (http.client.IncompleteRead, ConnectionError, ssl.SSLError):
        return
    assert status == 503


def test_a_client_that_leaves_closes_what_was_opened(house: House, connect: Connect) -> None:
    target = f"/f/{house.ids['media']}/x"
    assert ask(connect, target, "HEAD")[0] == 200
    for _ in range(5):
        connection = connect()
        connection.request("GET", target, headers={"Authorization": "Bearer msk_reader"})
        connection.sock.recv(1)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    until(lambda: _open_blobs(house) == 0)
    if isinstance(remote := house.downloads._carrier._store, Remote):
        until(lambda: remote.readers == 0)
    assert ask(connect, target)[2] == CONTENT
    assert not house.errors


def _open_blobs(house: House) -> int:
    held = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            held += descriptor.readlink() == house.path("media")
        except FileNotFoundError:
            continue
    return held


def sample(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_downloads_and_their_bytes_are_counted(house: House, connect: Connect, way: str) -> None:
    def counted() -> tuple[float, float]:
        return sample("mediasvc_downloads_total", plan=way, status="206"), sample(
            "mediasvc_download_bytes_total", plan=way
        )

    downloads, sent = counted()
    ask(connect, f"/f/{house.ids['media']}/x", Range="bytes=0-9")
    until(lambda: counted() == (downloads + 1, sent + 10))


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/b",
        b"/b/media",
        b"/b//x",
        b"/f/ast_1",
        b"/i/grid",
        b"/i/grid/x",
        b"/i/s/sig/w1/ast_1.jpg",
        b"/v1/assets",
    ],
)
def test_what_is_no_download_goes_on(path: bytes) -> None:
    assert target_of(path) is None


class Fleeting:
    """A store whose blob goes away between the look at the catalogue and the look at the disk."""

    files = None

    def __init__(self, store: LocalStore, vanish: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._vanish = vanish

    @asynccontextmanager
    async def open(self, blob_id: str, span: Span | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._vanish()
        async with self._store.open(blob_id, span) as chunks:
            yield chunks


def test_an_asset_replaced_while_we_looked_gives_its_next_version(house: House) -> None:
    async def replaced_in_between() -> tuple[int, bytes]:
        await house.open()
        asset = await house.catalogue.asset(house.ids["media"])
        assert asset
        done = False

        async def vanish() -> None:
            nonlocal done
            if done:
                return
            done = True
            blob = await house._keep("next", b"the next version")
            async with house.catalogue.transaction() as tx:
                await tx.close_intent(blob.id)
                await tx.replace_asset(_next(asset, blob))
            await house.store.delete(asset.blob.id)

        house.downloads._carrier._store = Fleeting(house.store, vanish)  # type: ignore[assignment]
        try:
            return await _ask_in_process(house, f"/f/{asset.id}/x")
        finally:
            await house.catalogue.close()
            await house.store.close()

    assert asyncio.run(replaced_in_between()) == (200, b"the next version")


def _next(asset: Asset, blob: Blob) -> Asset:
    return Asset(
        asset.id,
        asset.bucket,
        asset.key,
        asset.name,
        blob,
        "text/plain",
        "ready",
        0,
        2000,
        version=asset.version + 1,
    )


async def _ask_in_process(house: House, path: str) -> tuple[int, bytes]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.3"},
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer msk_reader")],
    }
    await house.downloads(scope, receive, send)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)
