"""Rows and bytes agree, or fsck says where they do not, and puts right what can be put right."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediasvc.core.asset import Asset
from mediasvc.core.errors import StoreUnavailable
from mediasvc.core.task import NewTask
from tests.ingest.conftest import Place
from tests.servers import Server

pytestmark = pytest.mark.anyio


async def missing(place: Place, asset: Asset) -> str:
    place.store.files.path(asset.blob.id).unlink()
    return asset.blob.id


async def cut_short(place: Place, asset: Asset) -> str:
    os.truncate(place.store.files.path(asset.blob.id), 3)
    return asset.blob.id


async def ownerless(place: Place, asset: Asset) -> str:
    return (await place.blob()).id


async def unfinished(place: Place, asset: Asset) -> str:
    blob = await place.blob()
    place.store.files.path(blob.id).rename(place.folder / "blobs" / "incoming" / blob.id)
    return blob.id


async def of_a_dead_run(place: Place, asset: Asset) -> str:
    run = place.runs.begin()
    blob = await place.blob(run=run)
    place.die(run)
    return blob.id


async def stuck(place: Place, asset: Asset) -> str:
    run = place.runs.begin()
    async with place.catalogue.transaction() as tx:
        task_id = await tx.enqueue(NewTask("analyse", asset.id, {"version": 1}))
    await place.catalogue.outbox.claim(run, place.now, 9)
    place.die(run)
    return task_id


DAMAGES = [
    (missing, "missing_blob", False),
    (cut_short, "wrong_size", False),
    (ownerless, "ownerless_blob", True),
    (unfinished, "unfinished_blob", True),
    (of_a_dead_run, "ownerless_blob", True),
    (stuck, "stuck_task", True),
]


@pytest.mark.parametrize(
    ("harm", "kind", "healed"), DAMAGES, ids=lambda value: getattr(value, "__name__", None)
)
async def test_each_damage_is_found_and_repaired_as_far_as_it_can_be(
    place: Place, harm: Any, kind: str, healed: bool
) -> None:
    asset = await place.asset("one")
    assert await place.findings(deep=True) == []
    named = await harm(place, asset)
    (finding,) = await place.findings()
    assert (finding.kind, finding.id) == (kind, named)
    done = await place.fsck().repair(finding)
    assert done
    assert await place.kinds() == ([] if healed else [kind])


async def test_an_empty_catalogue_is_no_judge_of_blobs(place: Place) -> None:
    """It may be that of another store."""
    blob, run = await place.blob(), place.runs.begin()
    of_ours = await place.blob(run=run)
    place.die(run)
    done = {finding.id: await place.fsck().repair(finding) for finding in await place.findings()}
    assert done[of_ours.id] == "removed"  # the catalogue knew of it
    assert done[blob.id].startswith("left: ")
    assert await place.there(blob)
    await place.asset("one")
    (finding,) = await place.findings()
    assert await place.fsck().repair(finding) == "removed"
    assert not await place.there(blob)


async def test_a_flipped_byte_shows_only_to_a_deep_look(place: Place) -> None:
    asset = await place.asset("one", b"content")
    place.store.files.path(asset.blob.id).write_bytes(b"kontent")
    assert await place.kinds() == []
    (finding,) = await place.findings(deep=True)
    assert (finding.kind, finding.asset_id) == ("wrong_hash", asset.id)


async def test_a_damaged_original_marks_its_asset(place: Place) -> None:
    asset = await place.asset("one")
    await missing(place, asset)
    (finding,) = await place.findings()
    assert "damaged" in await place.fsck().repair(finding)
    seen = await place.catalogue.asset(asset.id)
    assert seen
    assert seen.state == "damaged"


async def test_a_lost_rendition_is_queued_again(place: Place) -> None:
    asset = await place.asset("one")
    thumb = await place.rendition(asset)
    place.store.files.path(thumb.blob.id).unlink()
    (finding,) = await place.findings()
    assert finding.kind == "missing_blob"
    assert "queued" in await place.fsck().repair(finding)
    (task,) = await place.catalogue.tasks_of(asset.id)
    assert (task.kind, task.state, task.payload) == ("analyse", "waiting", {"version": 1})
    assert await place.kinds() == []


async def test_a_blob_that_cannot_be_read_is_a_finding_like_any_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await place.asset("one")
    await missing(place, await place.asset("two"))

    def unreadable(blob_id: str) -> None:
        raise StoreUnavailable("a blob broke off at byte 0: Input/output error")

    monkeypatch.setattr(place.store.files, "open", unreadable)
    found = {finding.id: finding.kind for finding in await place.findings(deep=True)}
    assert found[bad.blob.id] == "unreadable_blob"
    assert sorted(found.values()) == ["missing_blob", "unreadable_blob"]


async def test_a_store_that_is_away_is_no_finding(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.asset("one")

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(place.store, "stat", away)
    monkeypatch.setattr(place.store, "check", away)
    with pytest.raises(StoreUnavailable):
        await place.findings()


async def test_an_upload_that_ends_while_fsck_looks_is_no_finding(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after it was listed: part and intent are gone by the time they are asked after."""
    blob = await place.blob()
    part = place.folder / "blobs" / "incoming" / blob.id
    place.store.files.path(blob.id).rename(part)
    listed = place.store.scan_unfinished

    async def then_ends() -> AsyncIterator[str]:
        async for blob_id in listed():
            part.unlink()
            yield blob_id

    monkeypatch.setattr(place.store, "scan_unfinished", then_ends)
    assert await place.findings() == []


async def test_what_a_living_run_writes_is_no_finding(place: Place) -> None:
    run = place.runs.begin()
    blob = await place.blob(run=run)
    await place.blob(run=run)
    place.store.files.path(blob.id).rename(place.folder / "blobs" / "incoming" / blob.id)
    asset = await place.asset("one")
    async with place.catalogue.transaction() as tx:
        await tx.enqueue(NewTask("analyse", asset.id, {"version": 1}))
    await place.catalogue.outbox.claim(run, place.now, 9)
    assert await place.findings(deep=True) == []


async def test_a_waiting_task_is_no_finding(place: Place) -> None:
    asset = await place.asset("one")
    async with place.catalogue.transaction() as tx:
        await tx.enqueue(NewTask("analyse", asset.id, {"version": 1}))
    assert await place.findings() == []


def test_the_command_tells_by_exit_code_line_and_json(tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    with server.client() as client:
        asset = client.put("/b/media/one.txt", content=b"one").json()
        clean = server.run("fsck", "--deep")
        assert (clean.returncode, clean.stdout) == (0, "")
        (blob,) = (path for path in (tmp_path / "data" / "blobs").glob("??/??/*"))
        blob.write_bytes(b"One")
        shallow, deep = server.run("fsck"), server.run("fsck", "--deep", "--json")
        assert (shallow.returncode, deep.returncode) == (0, 1)
        found = json.loads(deep.stdout)
        assert (found["kind"], found["asset_id"], found["id"]) == ("wrong_hash", asset["id"], blob.name)
        assert found["repaired"] is None
        repaired = server.run("fsck", "--deep", "--repair")
        assert repaired.returncode == 1
        assert "damaged" in repaired.stdout
        assert client.get(f"/v1/assets/{asset['id']}").json()["state"] == "damaged"
        assert client.put("/b/media/one.txt", content=b"one").status_code == 200
    assert server.stop() == 0
    healed = server.run("fsck", "--deep")
    assert (healed.returncode, healed.stdout) == (0, ""), healed.stdout
