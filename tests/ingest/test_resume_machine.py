"""Uploads against a model: whatever happens in whatever order, offsets never shrink, what was acknowledged is there, an
asset is what the model says, and nothing is left that nobody owns."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mediasvc.catalogue.runs import FileRuns
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.access import ADMIN_SCOPES, Caller
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import (
    AppendMismatch,
    BadRequest,
    ChecksumMismatch,
    Forbidden,
    InconsistentLength,
    NotFound,
    OffsetMismatch,
    Superseded,
    TooLarge,
    UploadGone,
)
from mediasvc.ingest.admission import Doorkeeper, Wanted
from mediasvc.ingest.commands import Append, Begin, Checksum
from mediasvc.ingest.fsck import Fsck
from mediasvc.ingest.keep import Keeper
from mediasvc.ingest.receive import Receiver
from mediasvc.ingest.resume import Outcome, Resumer
from mediasvc.ingest.sweep import sweep
from mediasvc.store.interface import BlobStore
from mediasvc.store.local import LocalStore
from tests.ceph import Ceph
from tests.contracts.stalled_put import store_at

T = TypeVar("T")
LIFETIME = 1000.0
CALLER = Caller("key_a", ADMIN_SCOPES)
KEYS = st.sampled_from(["one", "two", "three"])
SIZES = st.sampled_from([0, 1, 4095, 4096, 70_000, (1 << 20) - 1, (1 << 20) + 3])
LARGE = st.sampled_from([0, 1, 70_000, (5 << 20) + 1, (9 << 20) + 7])


class Broken(Exception):
    """The connection is gone."""


@dataclass
class Model:
    """An upload as it must be. `acknowledged` are its bytes; `length` None: not told yet."""

    id: str
    length: int | None
    key: str | None  # None: a partial
    acknowledged: bytes = b""
    over: bool = False  # it answers 410, or 404
    complete: bool = False
    asked: int = field(default=0)

    @property
    def received(self) -> bool:
        return self.length == len(self.acknowledged)


class Uploads(RuleBasedStateMachine):
    """On a disk; see `OnS3`."""

    sizes = SIZES
    address = ""
    keeps_parts = False  # before the end of an append
    uploads = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="uploads-"))
        self.loop = asyncio.Runner()
        self.now = 1_700_000_000.0
        self.known: list[Model] = []
        self.assets: dict[str, bytes] = {}
        self.made = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(asyncio.wait_for(work, 60))

    def clock(self) -> float:
        return self.now

    def new_store(self) -> BlobStore:
        return store_at(self.address) if self.address else LocalStore(self.folder / "blobs")

    @initialize()
    def open(self) -> None:
        self.runs = FileRuns(self.folder / "runs")
        self.catalogue = SqliteCatalogue(self.folder / "catalogue.db", clock=self.clock)
        self.store = self.new_store()

        async def started() -> None:
            await self.catalogue.start()
            await self.store.start()
            async with self.catalogue.transaction() as tx:
                await tx.add_bucket(Bucket("media", self.now))

        self.run(started())
        self.begin()

    def begin(self) -> None:
        """A server's start: it knows nothing but what catalogue and store know."""
        self.own_run = self.runs.begin()
        keeper = Keeper(self.store, self.catalogue, self.own_run)
        self.resumer = Resumer(
            self.catalogue,
            self.store,
            Doorkeeper(self.catalogue, server_limit=None, store_limit=self.store.max_blob_size),
            Receiver(
                self.catalogue,
                keeper,
                clock=self.clock,
                derives=lambda media_type: False,
                why_not=lambda media_type: "nothing to make of it",
            ),
            self.own_run,
            clock=self.clock,
            lifetime=LIFETIME,
            max_open=1000,
            durability="complete",
        )

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.nothing_is_left())
            self.run(self.closed())
        self.loop.close()
        shutil.rmtree(self.folder)

    async def closed(self) -> None:
        await self.store.close()
        await self.catalogue.close()

    async def nothing_is_left(self) -> None:
        """When every upload has ended only the assets' bytes are there."""
        self.now += LIFETIME + 1
        await sweep(self.store, self.catalogue, self.runs, clock=self.clock)
        assert [
            found async for found in Fsck(self.store, self.catalogue, self.runs).findings(deep=True)
        ] == []
        assert [blob_id async for blob_id in self.store.scan_unfinished()] == []
        held = set()
        for key, content in self.assets.items():
            asset = await self.catalogue.asset_at("media", key)
            assert asset is not None
            held.add(asset.blob.id)
            assert await self.read(asset.blob.id) == content
        assert {stored.blob_id async for stored in self.store.scan()} == held
        async with self.catalogue.transaction() as tx:
            usage = await tx.usage("media")
        assert (usage.bytes, usage.assets) == (sum(map(len, self.assets.values())), len(self.assets))
        assert (usage.reserved_bytes, usage.reserved_assets) == (0, 0)

    async def read(self, blob_id: str) -> bytes:
        async with self.store.open(blob_id) as chunks:
            return b"".join([bytes(chunk) async for chunk in chunks])

    # --- what clients do

    def content(self, size: int) -> bytes:
        """Other bytes each time."""
        self.made += 1
        return hashlib.shake_128(b"%d" % self.made).digest(size)

    async def began(self, command: Begin, key: str | None) -> Outcome:
        wanted = Wanted("media", key or "", key or "", replace=True, length=command.length)
        admission = await self.resumer.admit(CALLER, command, wanted)
        return await self.resumer.create(CALLER, command, admission)

    @rule(target=uploads, key=KEYS, data=st.data(), known=st.booleans(), partial=st.booleans())
    def create(self, key: str, data: st.DataObject, known: bool, partial: bool) -> Model:
        length = data.draw(self.sizes) + data.draw(self.sizes) if known else None
        concat = "partial" if partial else ""
        outcome = self.run(self.began(Begin(length, concat=concat), key))
        model = Model(outcome.upload.id, length, None if partial else key)
        self.known.append(model)
        return model

    def append(self, model: Model, body: bytes, **more: Any) -> Outcome:
        async def whole() -> AsyncIterator[bytes]:
            for at in range(0, len(body), 300_007):
                yield body[at : at + 300_007]

        command = Append(len(model.acknowledged), **more)
        return self.run(self.resumer.append(CALLER, model.id, command, whole()))

    def settle(self, model: Model, body: bytes, received: bool) -> None:
        model.acknowledged += body
        if model.received and model.key is not None:
            assert received
            model.complete = True
            self.assets[model.key] = model.acknowledged

    def some(self, model: Model, data: st.DataObject) -> bytes:
        size = data.draw(self.sizes)
        if model.length is not None:
            size = min(size, model.length - len(model.acknowledged))
        return self.content(size)

    def not_all(self, model: Model, data: st.DataObject) -> bytes:
        """What cannot be the end of the upload."""
        rest = None if model.length is None else model.length - len(model.acknowledged) - 1
        return self.some(model, data)[:rest]

    def takes_bytes(self, model: Model) -> bool:
        return not (model.over or model.complete or model.received)

    @rule(model=uploads, data=st.data(), checksum=st.booleans(), sized=st.booleans())
    def append_some(self, model: Model, data: st.DataObject, checksum: bool, sized: bool) -> None:
        if not self.takes_bytes(model):
            return
        body = self.some(model, data)
        more: dict[str, Any] = {"size": len(body)} if sized else {}
        if checksum:
            more["checksum"] = Checksum("sha1", hashlib.sha1(body, usedforsecurity=False).digest())
        outcome = self.append(model, body, **more)
        assert outcome.upload.offset == len(model.acknowledged) + len(body)
        self.settle(model, body, outcome.received is not None)

    @rule(model=uploads, data=st.data())
    def append_the_rest(self, model: Model, data: st.DataObject) -> None:
        if not self.takes_bytes(model):
            return
        size = data.draw(self.sizes) if model.length is None else model.length - len(model.acknowledged)
        body = self.content(size)
        model.length = len(model.acknowledged) + size
        outcome = self.append(model, body, length=model.length)
        assert outcome.upload.received
        self.settle(model, body, outcome.received is not None)

    @rule(model=uploads, data=st.data())
    def append_what_is_garbled(self, model: Model, data: st.DataObject) -> None:
        if not self.takes_bytes(model):
            return
        with pytest.raises(AppendMismatch):
            self.append(model, self.some(model, data), checksum=Checksum("sha1", bytes(20)))

    @rule(model=uploads, ends=st.sampled_from([False, True]))
    def append_what_is_garbled_in_the_draft(self, model: Model, ends: bool) -> None:
        if not self.takes_bytes(model) or model.length is None:
            return
        body = self.content(model.length - len(model.acknowledged))
        with pytest.raises(ChecksumMismatch):
            self.append(model, body, checksum=Checksum("sha256", bytes(32)), completes=ends)

    @rule(model=uploads, sized=st.booleans())
    def append_too_much(self, model: Model, sized: bool) -> None:
        if not self.takes_bytes(model) or model.length is None:
            return
        body = self.content(model.length - len(model.acknowledged) + 1)
        with pytest.raises(TooLarge):
            self.append(model, body, **({"size": len(body)} if sized else {}))
        if self.keeps_parts and not sized:
            # Parts that were acknowledged before the byte too many came stay acknowledged.
            outcome = self.run(self.resumer.inspect(CALLER, model.id))
            model.acknowledged += body[: outcome.upload.offset - len(model.acknowledged)]

    @rule(model=uploads, wrong=st.sampled_from([-1, 1, 1000]))
    def append_elsewhere(self, model: Model, wrong: int) -> None:
        offset = len(model.acknowledged) + wrong
        if model.over or offset < 0:
            return
        with pytest.raises(OffsetMismatch) as refused:
            self.run(self.resumer.append(CALLER, model.id, Append(offset, size=0), None))
        assert refused.value.offset == len(model.acknowledged)

    @rule(model=uploads, more=st.integers(1, 3))
    def tell_another_length(self, model: Model, more: int) -> None:
        if not self.takes_bytes(model) or model.length is None:
            return
        command = Append(len(model.acknowledged), length=model.length + more, size=0)
        with pytest.raises(InconsistentLength):
            self.run(self.resumer.append(CALLER, model.id, command, None))

    @rule(model=uploads, data=st.data(), checksum=st.booleans())
    def the_line_breaks(self, model: Model, data: st.DataObject, checksum: bool) -> None:
        if not self.takes_bytes(model):
            return
        body = self.some(model, data)

        async def breaking() -> AsyncIterator[bytes]:
            if body:
                yield body
            raise Broken

        digest = Checksum("sha1", hashlib.sha1(body, usedforsecurity=False).digest()) if checksum else None
        command = Append(len(model.acknowledged), checksum=digest)
        with pytest.raises(Broken):
            self.run(self.resumer.append(CALLER, model.id, command, breaking()))
        if not checksum:
            model.acknowledged += body

    async def hung(self, model: Model, body: bytes, checksum: Checksum | None) -> "asyncio.Task[Outcome]":
        """An append that has sent its bytes, and neither ends nor breaks."""
        waits = asyncio.Event()

        async def hanging() -> AsyncIterator[bytes]:
            if body:
                yield body
            waits.set()
            await asyncio.Event().wait()

        command = Append(len(model.acknowledged), checksum=checksum)
        writing = asyncio.create_task(self.resumer.append(CALLER, model.id, command, hanging()))
        await waits.wait()
        return writing

    @rule(
        model=uploads,
        data=st.data(),
        checksum=st.booleans(),
        by=st.sampled_from(["inspect", "discard", "append", "many"]),
    )
    def take_over(self, model: Model, data: st.DataObject, checksum: bool, by: str) -> None:
        if not self.takes_bytes(model):
            return
        body, mine = self.not_all(model, data), self.content(10)
        kept = b"" if checksum else body
        if model.length is not None:
            mine = mine[: max(0, model.length - len(model.acknowledged) - len(kept))]

        async def story() -> Outcome | None:
            digest = Checksum("sha1", bytes(20)) if checksum else None
            writing = await self.hung(model, body, digest)
            outcome = None
            async with asyncio.timeout(3):
                match by:
                    case "inspect":
                        outcome = await self.resumer.inspect(CALLER, model.id)
                    case "many":
                        asked = [self.resumer.inspect(CALLER, model.id) for _ in range(4)]
                        outcome = (await asyncio.gather(*asked))[-1]
                    case "discard":
                        await self.resumer.discard(CALLER, model.id)
                    case "append":
                        outcome = await self.append_now(model, kept, mine)
            with pytest.raises(Superseded):
                await writing
            return outcome

        outcome = self.run(story())
        if by == "discard":
            model.over = True
            return
        assert outcome is not None
        self.settle(model, kept + (mine if by == "append" else b""), outcome.received is not None)
        assert outcome.upload.offset == len(model.acknowledged)

    async def append_now(self, model: Model, kept: bytes, mine: bytes) -> Outcome:
        async def whole() -> AsyncIterator[bytes]:
            yield mine

        command = Append(len(model.acknowledged) + len(kept), size=len(mine))
        return await self.resumer.append(CALLER, model.id, command, whole() if mine else None)

    @rule(model=uploads, data=st.data(), checksum=st.booleans())
    def die_in_an_append(self, model: Model, data: st.DataObject, checksum: bool) -> None:
        """What is cancelled saves no more than what is killed."""
        if not self.takes_bytes(model):
            return
        body = self.not_all(model, data)

        async def story() -> None:
            digest = Checksum("sha1", bytes(20)) if checksum else None
            writing = await self.hung(model, body, digest)
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

        self.run(story())
        self.restart()
        outcome = self.run(self.resumer.inspect(CALLER, model.id))
        kept = outcome.upload.offset - len(model.acknowledged)
        assert 0 <= kept <= (0 if checksum else len(body))
        model.acknowledged += body[:kept]

    @rule(model=uploads)
    def ask_as_tus_does(self, model: Model) -> None:
        """For whom all bytes are the end: a client that hears of them goes its way."""
        if model.over:
            return
        outcome = self.run(self.resumer.inspect(CALLER, model.id, length_ends=True))
        assert outcome.upload.offset == len(model.acknowledged)
        if not model.complete:
            self.settle(model, b"", outcome.received is not None)

    @rule(model=uploads)
    def replay(self, model: Model) -> None:
        if model.over or not (model.complete or (model.key is None and model.received)):
            return
        command = Append(len(model.acknowledged), size=0)
        outcome = self.run(self.resumer.append(CALLER, model.id, command, None))
        assert (outcome.received is not None) == model.complete
        with pytest.raises((OffsetMismatch, Forbidden)):
            self.append(model, b"x", size=1)

    @rule(target=uploads, parts=st.lists(uploads, min_size=1, max_size=4), key=KEYS)
    def concatenate(self, parts: list[Model], key: str) -> Any:
        command = Begin(None, concat="final;", parts=[part.id for part in parts])
        usable = all(part.key is None and part.received and not part.over for part in parts)
        if not usable:
            with pytest.raises((BadRequest, NotFound, UploadGone)):
                self.run(self.began(command, key))
            return multiple()
        outcome = self.run(self.began(command, key))
        content = b"".join(part.acknowledged for part in parts)
        assert outcome.received is not None
        assert outcome.received.asset.blob.sha256 == hashlib.sha256(content).hexdigest()
        self.assets[key] = content
        model = Model(outcome.upload.id, len(content), key, content, complete=True)
        with pytest.raises(Forbidden):
            self.append(model, b"x")
        self.known.append(model)
        return multiple()  # nothing more can happen to it

    @rule(model=consumes(uploads))
    def discard(self, model: Model) -> None:
        if model.over:
            with pytest.raises((NotFound, UploadGone)):
                self.run(self.resumer.discard(CALLER, model.id))
            return
        self.run(self.resumer.discard(CALLER, model.id))
        model.over = True

    # --- what servers and time do

    @rule()
    def restart(self) -> None:
        self.runs.end(self.own_run)
        self.begin()

    @rule()
    def sweep_now(self) -> None:
        self.run(sweep(self.store, self.catalogue, self.runs, clock=self.clock, own_run=self.own_run))

    @precondition(lambda self: self.made > 3)
    @rule(swept=st.booleans())
    def time_passes(self, swept: bool) -> None:
        self.now += LIFETIME + 1
        for model in self.known:
            model.over = model.over or not model.complete
        if swept:
            self.sweep_now()

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        if not self.known:
            return
        for model in self.known[-4:]:
            ask: Callable[[Caller, str], Coroutine[Any, Any, Outcome]]
            ask = self.resumer.inspect if model.asked % 2 else self.resumer.look
            model.asked += 1
            if model.over:
                with pytest.raises((UploadGone, NotFound)):
                    self.run(ask(CALLER, model.id))
                continue
            outcome = self.run(ask(CALLER, model.id))
            assert outcome.upload.offset == len(model.acknowledged)
            assert (outcome.upload.state == "complete") == model.complete
        for key, content in self.assets.items():
            asset = self.run(self.catalogue.asset_at("media", key))
            assert asset is not None
            assert asset.blob.sha256 == hashlib.sha256(content).hexdigest()


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def test_uploads_on_a_disk_are_what_the_model_says() -> None:
    run_state_machine_as_test(
        Uploads,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=CHECKS
        ),
    )


def test_uploads_on_s3_are_what_the_model_says(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ceph.keys.items():
        monkeypatch.setenv(name, value)

    class OnS3(Uploads):
        sizes = LARGE
        keeps_parts = True

        def __init__(self) -> None:
            super().__init__()
            self.address = ceph.store_url(ceph.new_bucket())

    run_state_machine_as_test(
        OnS3,
        settings=settings(
            max_examples=4,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=CHECKS,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a smaller example is not worth the hours
        ),
    )
