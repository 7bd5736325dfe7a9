"""What no acknowledgement speaks for goes; everything else stays."""

import os
from collections.abc import AsyncIterator

import pytest

from mediasvc.core.errors import StoreFault
from mediasvc.core.ids import new_link_id
from mediasvc.core.link import Link
from mediasvc.core.span import Span
from mediasvc.core.task import MAX_ATTEMPTS, NewTask
from mediasvc.deliver.pack import pack
from mediasvc.ingest import sweep as sweeping
from tests.ingest.conftest import Place, body

pytestmark = pytest.mark.anyio


async def test_what_a_dead_run_left_goes_at_once_and_its_file_with_it(place: Place) -> None:
    run = place.runs.begin()
    blob = await place.blob(run=run)
    place.die(run)
    assert (await place.sweep()).uploads == 1
    assert not await place.there(blob)
    assert (await place.catalogue.intents(), place.runs.known()) == ([], [])


async def test_what_a_living_run_works_on_stays(place: Place) -> None:
    blob = await place.blob(run=place.runs.begin())
    assert (await place.sweep()).uploads == 0
    assert await place.there(blob)


async def test_of_our_own_run_only_what_nobody_works_on_goes(place: Place) -> None:
    keeper = place.keeper()
    working = await keeper.keep(body(b"working"))
    left = await place.blob(b"left by a failure", run=keeper.run)
    assert (await place.sweep(own=keeper)).uploads == 1
    assert (await place.there(working), await place.there(left)) == (True, False)


async def test_an_upload_that_is_half_on_disk_goes_with_its_dead_run(place: Place) -> None:
    run = place.runs.begin()
    blob = await place.blob(run=run)
    place.store.files.path(blob.id).rename(place.folder / "blobs" / "incoming" / blob.id)
    place.die(run)
    await place.sweep()
    assert list((place.folder / "blobs" / "incoming").iterdir()) == []


async def test_assets_stay_until_they_expire_and_then_go_with_their_bytes(place: Place) -> None:
    asset = await place.asset("mayfly", expires_at=place.now + 10)
    assert (await place.sweep()).expired == 0
    place.now += 11
    assert (await place.sweep()).expired == 1
    assert [task.kind for task in await place.catalogue.outbox.claim("run", place.now, 9)] == ["purge"]
    async with place.catalogue.transaction() as tx:
        assert await tx.asset(asset.id) is None


async def test_links_go_when_their_time_is_over(place: Place) -> None:
    asset = await place.asset("linked")
    short, long = (Link(new_link_id(), asset.id, place.now, place.now + life, "", 1) for life in (10, 20))
    async with place.catalogue.transaction() as tx:
        await tx.add_link(short)
        await tx.add_link(long)
    assert (await place.sweep()).links == 0
    place.now += 10
    assert (await place.sweep()).links == 1
    assert await place.catalogue.expired_links(place.now + 99, 9) == [long.id]


async def test_archives_go_a_day_after_their_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_ENTRIES", 2)
    assets = [await place.asset(f"packed {number}") for number in range(5)]
    chosen = [
        (original, original.key) for original in await place.catalogue.originals([a.id for a in assets])
    ]
    short, long = [
        await pack(place.catalogue, chosen, "all", place.now, place.now + life) for life in (10, 86400)
    ]
    place.now += 86400 + 9
    assert (await place.sweep()).archives == 0  # somebody may still be reading it
    place.now += 1
    assert (await place.sweep()).archives == 1
    assert await place.catalogue.archive(short.id) is None
    assert await place.catalogue.members(short.id, Span(0, short.layout.size), 9) == []
    assert len(await place.catalogue.members(long.id, Span(0, long.layout.size), 9)) == 5


async def test_doomed_blobs_whose_purge_was_lost_go(place: Place) -> None:
    asset = await place.asset("with a thumb")
    old = await place.rendition(asset)
    await place.rendition(asset)  # dooms the one before, and nobody queued a purge
    assert (await place.sweep()).blobs == 1
    assert not await place.there(old.blob)
    assert await place.kinds() == []


async def test_tasks_of_a_dead_run_wait_again_and_are_buried_after_the_fifth_death(place: Place) -> None:
    asset = await place.asset("picture", state="processing")
    async with place.catalogue.transaction() as tx:
        await tx.enqueue(NewTask("analyse", asset.id, {"version": 1}))
    for death in range(1, MAX_ATTEMPTS + 1):
        run = place.runs.begin()
        assert len(await place.catalogue.outbox.claim(run, place.now, 9)) == 1
        assert (await place.sweep()).tasks == 0  # it lives
        place.die(run)
        assert await place.kinds() == ["stuck_task"]
        assert (await place.sweep()).tasks == 1
        (task,) = await place.catalogue.tasks_of(asset.id)
        assert task.state == ("failed" if death == MAX_ATTEMPTS else "waiting")
    assert "died" in task.detail
    seen = await place.catalogue.asset(asset.id)
    assert seen
    assert (seen.state, seen.tasks_failed) == ("damaged", 1)


async def test_a_blob_that_cannot_be_removed_holds_nothing_else_up(place: Place) -> None:
    run = place.runs.begin()
    bad, good = await place.blob(run=run), await place.blob(run=run)
    place.die(run)
    path = place.store.files.path(bad.id)
    path.unlink()
    path.mkdir()  # what a broken file system might do: unlink says EISDIR
    with pytest.raises(StoreFault):
        await place.sweep()
    assert not await place.there(good)
    assert place.runs.known() == [run]  # not all of it was swept
    os.rmdir(path)
    assert (await place.sweep()).uploads == 1
    assert place.runs.known() == []


async def test_sweeping_again_finds_nothing(place: Place) -> None:
    run = place.runs.begin()
    await place.blob(run=run)
    place.die(run)
    await place.sweep()
    assert str(await place.sweep()) == (
        "0 unfinished uploads and 0 ownerless blobs removed, 0 expired assets deleted, "
        "0 interrupted tasks queued again"
    )


async def test_an_upload_beside_the_sweep_is_left_alone(place: Place) -> None:
    keeper = place.keeper()

    async def slow() -> AsyncIterator[bytes]:
        yield b"one"
        await place.sweep(own=keeper)
        await place.sweep()
        yield b"two"

    blob = await keeper.keep(slow())
    assert blob.size == 6
    assert await place.there(blob)
