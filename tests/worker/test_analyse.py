"""A look at an original: what becomes of it, of its renditions, and of what was there before."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mediasvc.core.asset import Asset
from mediasvc.core.errors import StoreFull
from mediasvc.core.task import Task
from mediasvc.derive.interface import Undecodable
from mediasvc.derive.sandbox import Sandbox
from mediasvc.ingest.keep import Keeper
from mediasvc.worker.analyse import Analyse
from mediasvc.worker.dispatcher import Final
from tests.ingest.conftest import Place
from tests.stories.history import picture

pytestmark = pytest.mark.anyio


class Bench:
    """An analyser and the place it works in."""

    def __init__(self, place: Place, sandbox: Sandbox, scratch: Path) -> None:
        self.place = place
        self.sandbox = sandbox
        self.keeper: Keeper = place.keeper()
        self.scratch = scratch
        self.analyse = Analyse(place.store, place.catalogue, self.keeper, sandbox, scratch)

    async def picture(self, content: bytes | None = None) -> Asset:
        content = picture() if content is None else content
        return await self.place.asset("picture", content, state="processing", media_type="image/png")

    def task(self, asset: Asset, version: int = 1) -> Task:
        return Task("tsk", "analyse", asset.id, {"version": version}, "running", 1, 0.0, 0.0)

    async def seen(self, asset: Asset) -> Asset:
        seen = await self.place.catalogue.asset(asset.id)
        assert seen
        return seen

    async def nothing_left(self) -> None:
        """Neither intents nor bytes without rows, once doomed blobs are swept; nobody works on anything."""
        await self.place.sweep()
        assert (await self.place.catalogue.intents(), self.keeper.live) == ([], set())
        assert await self.place.kinds(deep=True) == []
        assert list(self.scratch.iterdir()) == []


@pytest.fixture
async def bench(place: Place, tmp_path: Path) -> AsyncIterator[Bench]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sandbox = Sandbox(scratch)
    yield Bench(place, sandbox, scratch)
    await sandbox.close()


async def test_a_picture_gets_facts_placeholder_and_renditions(bench: Bench) -> None:
    asset = await bench.picture()
    assert await bench.analyse(bench.task(asset)) == "made preview, grid, thumb"
    seen = await bench.seen(asset)
    assert (seen.state, seen.facts["width"], seen.facts["height"]) == ("ready", 64, 48)
    assert set(seen.renditions) == {"preview", "grid", "thumb"}
    assert seen.placeholder
    await bench.nothing_left()


async def test_the_same_task_run_twice_gives_the_same_renditions_once(bench: Bench) -> None:
    asset = await bench.picture()
    await bench.analyse(bench.task(asset))
    first = await bench.seen(asset)
    await bench.analyse(bench.task(asset))
    second = await bench.seen(asset)
    digests = [{name: made.blob.sha256 for name, made in seen.renditions.items()} for seen in (first, second)]
    assert digests[0] == digests[1]
    await bench.nothing_left()
    assert len([stored async for stored in bench.place.store.scan()]) == 4


async def test_the_same_task_run_by_two_at_once_gives_one_set(bench: Bench) -> None:
    asset = await bench.picture()
    await asyncio.gather(*(bench.analyse(bench.task(asset)) for _ in range(2)))
    await bench.nothing_left()
    assert len([stored async for stored in bench.place.store.scan()]) == 4


async def test_what_cannot_be_decoded_is_damaged_and_final(bench: Bench) -> None:
    asset = await bench.picture(b"\x89PNG\r\n\x1a\n" + b"nothing of a picture" * 10)
    with pytest.raises(Final) as final:
        await bench.analyse(bench.task(asset))
    assert str(final.value)
    seen = await bench.seen(asset)
    assert (seen.state, seen.renditions) == ("damaged", {})
    await bench.nothing_left()


async def test_a_picture_that_breaks_off_is_damaged_and_keeps_what_could_be_made(bench: Bench) -> None:
    asset = await bench.picture(picture()[:-200])
    said = await bench.analyse(bench.task(asset))
    seen = await bench.seen(asset)
    assert seen.state == "damaged"
    assert set(seen.renditions) == {"preview", "grid", "thumb"}
    assert said
    await bench.nothing_left()


async def test_a_lost_original_is_damaged_and_keeps_the_renditions_of_before(bench: Bench) -> None:
    asset = await bench.picture()
    await bench.analyse(bench.task(asset))
    bench.place.store.files.path(asset.blob.id).unlink()
    with pytest.raises(Final, match="not in the store"):
        await bench.analyse(bench.task(asset))
    seen = await bench.seen(asset)
    assert (seen.state, set(seen.renditions)) == ("damaged", {"preview", "grid", "thumb"})
    assert seen.placeholder


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "deleted"])
@pytest.mark.parametrize("decodable", [True, False], ids=["picture", "rubbish"])
async def test_an_asset_that_changes_while_it_is_looked_at_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, replaced: bool, decodable: bool
) -> None:
    asset, derive = await bench.picture(), bench.sandbox.derive
    new = replace(asset, version=2, blob=await bench.place.blob(b"other bytes"))

    async def meanwhile(*args: object) -> object:
        findings = await derive(*args)  # type: ignore[arg-type]
        async with bench.place.catalogue.transaction() as tx:
            await (tx.replace_asset(new) if replaced else tx.delete_asset(asset.id))
        if not decodable:
            raise Undecodable("no picture")
        return findings

    monkeypatch.setattr(bench.sandbox, "derive", meanwhile)
    assert await bench.analyse(bench.task(asset)) == "another version took its place"
    if replaced:
        seen = await bench.seen(asset)
        assert (seen.version, seen.state, seen.renditions) == (2, "processing", {})
        await bench.nothing_left()


async def test_a_task_for_a_version_of_before_does_nothing(bench: Bench) -> None:
    asset = await bench.picture()
    assert await bench.analyse(bench.task(asset, version=7)) == "another version took its place"
    assert (await bench.seen(asset)).state == "processing"


async def test_a_full_store_leaves_nothing_half_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asset, put, puts = await bench.picture(), bench.place.store.put, 0

    async def full_at_the_third(*args: object, **kwargs: object) -> object:
        nonlocal puts
        puts += 1
        if puts == 3:
            raise StoreFull("full")
        return await put(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.place.store, "put", full_at_the_third)
    with pytest.raises(StoreFull):
        await bench.analyse(bench.task(asset))
    monkeypatch.undo()
    assert (await bench.seen(asset)).renditions == {}
    await bench.nothing_left()
    assert len([stored async for stored in bench.place.store.scan()]) == 1


async def test_a_task_that_is_stopped_leaves_nothing(bench: Bench) -> None:
    asset = await bench.picture()
    working = asyncio.create_task(bench.analyse(bench.task(asset)))
    while not list(bench.scratch.iterdir()):  # noqa: ASYNC110 - another task makes it
        await asyncio.sleep(0.001)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await bench.nothing_left()


async def test_a_rendition_that_is_lost_is_made_again_after_a_repair(bench: Bench) -> None:
    asset = await bench.picture()
    await bench.analyse(bench.task(asset))
    thumb = (await bench.seen(asset)).renditions["thumb"].blob
    bench.place.store.files.path(thumb.id).unlink()
    (finding,) = await bench.place.findings()
    await bench.place.fsck().repair(finding)
    (task,) = await bench.place.catalogue.outbox.claim(bench.keeper.run, bench.place.now, 1)
    await bench.analyse(task)
    await bench.place.catalogue.outbox.finish(task.id, bench.keeper.run)
    made = (await bench.seen(asset)).renditions["thumb"].blob
    assert made.sha256 == thumb.sha256
    assert hashlib.sha256(bench.place.store.files.path(made.id).read_bytes()).hexdigest() == thumb.sha256
    await bench.nothing_left()
