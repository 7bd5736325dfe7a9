"""One server's life from its first start on an empty disk, written down call by call, and how to judge a disk."""

import asyncio
import hashlib
import re
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from mediasvc.bootstrap import open_house
from mediasvc.catalogue.interface import AssetQuery
from mediasvc.ingest.fsck import Fsck
from mediasvc.ingest.sweep import sweep
from mediasvc.settings import Settings
from tests.servers import Server
from tests.stories.disk_model import Disk, Step, steps, tracing


def picture() -> bytes:
    """A PNG of 64 × 48 pixels."""
    rows = b"".join(b"\0" + bytes((7 * x + 3 * y) % 256 for x in range(64 * 3)) for y in range(48))
    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@dataclass(frozen=True)
class State:
    """What was acknowledged: assets as `bucket/key` → SHA-256, names of buckets, and how many keys there are."""

    assets: Mapping[str, str]
    buckets: frozenset[str]
    keys: int


@dataclass(frozen=True)
class History:
    """`states[n]` is what had been acknowledged by the n-th answer of the life; before the first: `None`."""

    root: Path
    steps: list[Step]
    states: list[State]
    answers: list[str]  # their request ids

    def answered(self, step: Step) -> int | None:
        """Which answer the step sends, if it is one of ours."""
        if step.call == "answer" and (match := re.search(rb"x-request-id: (\w+)", step.data)):
            request_id = match[1].decode()
            return self.answers.index(request_id) if request_id in self.answers else None
        return None

    def moments(self, disk: Disk) -> Iterator[tuple[Step, int | None]]:
        """Every step that matters, right after it was made, and which answer of ours was sent last by then."""
        last: int | None = None
        for step in disk.play():
            answered = self.answered(step)
            last = last if answered is None else answered
            yield step, last

    def known(self, last: int | None) -> tuple[State | None, State | None]:
        """What was acknowledged by then, and what the request under way may make of it."""
        if last is None:
            return None, None
        return self.states[last], self.states[min(last + 1, len(self.states) - 1)]


def live(folder: Path) -> History:
    """Uploads by every door, replacements, deletions, a bucket, a key, a picture; then SIGTERM."""
    trace = folder / "trace"
    life = _Life(Server(folder / "data"))
    life.server.start(wrapper=tracing(trace), wait=60)
    with life.server.client() as client:
        life.first(client.get("/v1/buckets"))
        for number in range(5):
            life.put(client, "media", f"small/{number}.txt", f"text {number} ".encode() * (1 + 500 * number))
        life.put(client, "media", "large.bin", hashlib.shake_128(b"large").digest(1_300_000))
        life.put(client, "media", "picture.png", picture())
        life.put(client, "media", "small/1.txt", b"replaced " * 100)
        life.form(client, {"one.txt": b"1" * 900, "two.txt": b"2" * 5000, "three.bin": bytes(30_000)})
        life.delete(client, "media", "small/2.txt")
        life.bucket(client, "made-later")
        life.put(client, "made-later", "in/it.txt", b"in a new bucket")
        life.key(client)
        life.put(client, "media", "small/1.txt", b"replaced again " * 300)
        life.delete(client, "media", "large.bin")
        for number in range(3):
            life.put(client, "media", f"last/{number}.txt", f"last {number} ".encode() * 50)
        life.until_idle(client)
    assert life.server.stop() == 0
    return History(folder, steps(trace, folder / "data"), life.states, life.answers)


class _Life:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.states: list[State] = []
        self.answers: list[str] = []

    def _noted(self, answer: httpx.Response, state: State) -> None:
        assert answer.is_success, answer.text
        self.answers.append(answer.headers["x-request-id"])
        self.states.append(state)

    def _now(self, **changed: str | None) -> State:
        assets = {name: digest for name, digest in {**self.states[-1].assets, **changed}.items() if digest}
        return replace(self.states[-1], assets=assets)

    def first(self, answer: httpx.Response) -> None:
        self._noted(answer, State({}, frozenset({"media", "public"}), 1))

    def put(self, client: httpx.Client, bucket: str, key: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self._noted(
            client.put(f"/b/{bucket}/{key}", content=content), self._now(**{f"{bucket}/{key}": digest})
        )

    def delete(self, client: httpx.Client, bucket: str, key: str) -> None:
        self._noted(client.delete(f"/b/{bucket}/{key}"), self._now(**{f"{bucket}/{key}": None}))

    def form(self, client: httpx.Client, files: Mapping[str, bytes]) -> None:
        sent = [("file", (name, content)) for name, content in files.items()]
        new = {f"media/form/{name}": hashlib.sha256(content).hexdigest() for name, content in files.items()}
        answer = client.post("/v1/assets", data={"prefix": "form/"}, files=sent)
        self._noted(answer, self._now(**new))

    def bucket(self, client: httpx.Client, name: str) -> None:
        made = client.post("/v1/buckets", json={"name": name})
        self._noted(made, replace(self.states[-1], buckets=self.states[-1].buckets | {name}))

    def key(self, client: httpx.Client) -> None:
        made = client.post("/v1/keys", json={"scopes": ["assets:read"]})
        self._noted(made, replace(self.states[-1], keys=self.states[-1].keys + 1))

    def until_idle(self, client: httpx.Client) -> None:
        deadline = time.monotonic() + 60
        while self._picture(client)["state"] == "processing":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert set(self._picture(client)["renditions"]) == {"thumb", "grid", "preview"}

    @staticmethod
    def _picture(client: httpx.Client) -> dict[str, Any]:
        asked = {"bucket": "media", "prefix": "picture"}
        found: list[dict[str, Any]] = client.get("/v1/assets", params=asked).json()["assets"]
        return found[0]


def judge(data_dir: Path, expected: State | None, possible: State | None) -> None:
    """Start on a disk as a crash left it, and sweep: what was acknowledged is there, byte by byte, and nothing
    else is, but for what the one request under way (`possible`) may have done as a whole."""
    asyncio.run(_judge(data_dir, expected, possible))


async def _judge(data_dir: Path, expected: State | None, possible: State | None) -> None:
    settings = Settings(data_dir=data_dir)
    async with open_house(settings) as house:
        records = house.records
        await sweep(records.store, records.catalogue, records.runs, clock=records.clock)
        check = Fsck(records.store, records.catalogue, records.runs)
        assert [finding async for finding in check.findings(deep=True)] == []
        assert records.runs.known() == [house.run]
        assert [blob_id async for blob_id in records.store.scan_unfinished()] == []
        secret = settings.admin_key_file.read_text().strip()
        assert await records.catalogue.key_by_secret(hashlib.sha256(secret.encode()).hexdigest())
        assert await records.catalogue.intents() == []
        buckets = frozenset(bucket.name for bucket in await records.catalogue.buckets())
        assert {"media", "public"} <= buckets
        assets = {}
        for bucket in buckets:
            page = await records.catalogue.assets(AssetQuery(bucket, limit=1000))
            assets |= {f"{bucket}/{asset.key}": asset.blob.sha256 for asset in page.assets}
        keys = len(await records.catalogue.keys())
    found = State(assets, buckets, keys)
    if expected is None:
        assert not assets
        return
    assert found.keys >= expected.keys  # a start that was cut off may have made a second admin key
    allowed = [replace(one, keys=found.keys) for one in (expected, possible) if one]
    assert found in allowed, f"{found} is none of {allowed}"
    assert not list((data_dir / "blobs" / "incoming").iterdir())
