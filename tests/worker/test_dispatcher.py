"""Tasks are claimed, done and written down, whatever the handlers, the catalogue and the server do meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mediasvc.core.errors import CatalogueUnavailable, StoreFull, StoreUnavailable
from mediasvc.core.task import MAX_ATTEMPTS, NewTask, Task
from mediasvc.worker.dispatcher import Dispatcher, Final, Handler
from tests.ingest.conftest import Place

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def working(place: Place, handler: Handler, run: str | None = None) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(
        place.catalogue, {"analyse": handler}, run or place.runs.begin(), at_once=2, clock=place.clock
    )
    loop = asyncio.create_task(dispatcher.work())
    try:
        yield dispatcher
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def queue(place: Place, key: str = "one") -> str:
    asset = await place.asset(key, state="processing")
    async with place.catalogue.transaction() as tx:
        await tx.enqueue(NewTask("analyse", asset.id, {"version": 1}))
    return asset.id


async def task_of(place: Place, asset_id: str) -> Task:
    (task,) = await place.catalogue.tasks_of(asset_id)
    return task


async def until(place: Place, asset_id: str, wanted: Callable[[Task], bool]) -> Task:
    async with asyncio.timeout(20):
        while not wanted(task := await task_of(place, asset_id)):  # noqa: ASYNC110 - it is a row
            await asyncio.sleep(0.01)
    return task


async def never(task: Task) -> str:
    await asyncio.Event().wait()
    return ""


async def test_a_task_is_done_once_and_its_outcome_written_down(place: Place) -> None:
    done: list[str] = []

    async def handler(task: Task) -> str:
        done.append(task.id)
        return "made thumb"

    asset_id = await queue(place)
    async with working(place, handler):
        task = await until(place, asset_id, lambda task: task.state == "done")
    assert done == [task.id]
    assert (task.detail, task.attempts) == ("made thumb", 1)


async def test_what_is_queued_without_a_ring_is_found_by_polling(place: Place) -> None:
    async def handler(task: Task) -> str:
        return ""

    async with working(place, handler):
        await asyncio.sleep(0.05)
        await until(place, await queue(place), lambda task: task.state == "done")


async def test_no_more_than_so_many_at_once(place: Place) -> None:
    now, most = 0, 0

    async def handler(task: Task) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return ""

    ids = [await queue(place, f"asset {number}") for number in range(7)]
    async with working(place, handler):
        for asset_id in ids:
            await until(place, asset_id, lambda task: task.state == "done")
    assert most == 2


async def test_a_failure_is_tried_again_later_and_later_and_buried_after_the_fifth(place: Place) -> None:
    async def handler(task: Task) -> str:
        raise ValueError("no luck")

    asset_id, waits = await queue(place), []
    async with working(place, handler) as dispatcher:
        for attempt in range(1, MAX_ATTEMPTS):
            task = await until(
                place, asset_id, lambda task, n=attempt: task.attempts == n and task.state == "waiting"
            )
            waits.append(task.not_before - place.now)
            assert "ValueError: no luck" in task.detail
            place.now = task.not_before
            dispatcher.ring()
        task = await until(place, asset_id, lambda task: task.state == "failed")
    assert waits == sorted(waits)
    assert 0.7 < waits[0] < 1.3
    assert "gave up after 5" in task.detail
    seen = await place.catalogue.asset(asset_id)
    assert seen
    assert seen.state == "damaged"  # nobody waits for ever


async def test_what_is_final_is_not_tried_again(place: Place) -> None:
    async def handler(task: Task) -> str:
        raise Final("not a picture")

    asset_id = await queue(place)
    async with working(place, handler):
        task = await until(place, asset_id, lambda task: task.state == "failed")
    assert (task.attempts, task.detail) == (1, "not a picture")


@pytest.mark.parametrize(
    "away", [StoreUnavailable("away"), StoreFull("full"), CatalogueUnavailable("locked")]
)
async def test_a_store_that_is_away_or_full_costs_no_attempt(place: Place, away: Exception) -> None:
    async def handler(task: Task) -> str:
        raise away

    asset_id = await queue(place)
    async with working(place, handler) as dispatcher:
        for _ in range(MAX_ATTEMPTS + 2):
            task = await until(place, asset_id, lambda task: task.not_before > place.now)
            assert (task.state, task.attempts) == ("waiting", 0)
            place.now = task.not_before
            dispatcher.ring()


async def test_stopping_puts_tasks_back_without_an_attempt(place: Place) -> None:
    asset_id = await queue(place)
    async with working(place, never):
        await until(place, asset_id, lambda task: task.state == "running")
    task = await task_of(place, asset_id)
    assert (task.state, task.attempts) == ("waiting", 0)


async def test_stopping_at_any_step_leaves_nothing_running(place: Place) -> None:
    async def handler(task: Task) -> str:
        return ""

    run = place.runs.begin()
    for steps in range(60):
        asset_id = await queue(place, f"asset {steps}")
        async with working(place, handler, run):
            for _ in range(steps):
                await asyncio.sleep(0)
        assert (await task_of(place, asset_id)).state in ("waiting", "done")
    place.runs.end(run)
    assert await place.kinds() == []


async def test_a_task_whose_asset_went_meanwhile_is_nobodys(place: Place) -> None:
    begun = asyncio.Event()

    async def handler(task: Task) -> str:
        begun.set()
        await asyncio.sleep(0.05)
        return "too late"

    asset_id = await queue(place)
    other = await queue(place, "two")
    async with working(place, handler):
        await begun.wait()
        async with place.catalogue.transaction() as tx:
            await tx.delete_asset(asset_id)
        await until(place, other, lambda task: task.state == "done")
    assert await place.catalogue.asset(asset_id) is None


async def test_an_outcome_is_written_down_once_the_catalogue_is_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, failures = place.catalogue.outbox.finish, 0

    async def away_at_first(*args: str, **kwargs: str) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise CatalogueUnavailable("locked")
        await finish(*args, **kwargs)

    async def handler(task: Task) -> str:
        return "made"

    monkeypatch.setattr(place.catalogue.outbox, "finish", away_at_first)
    asset_id = await queue(place)
    async with working(place, handler):
        task = await until(place, asset_id, lambda task: task.state == "done")
    assert (task.attempts, failures) == (1, 2)


@pytest.mark.parametrize(
    "trouble", [StoreFull("full"), CatalogueUnavailable("locked"), RuntimeError("a bug")]
)
async def test_the_loop_outlives_trouble_with_the_catalogue(
    place: Place, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    claim, turns = place.catalogue.outbox.claim, 0

    async def in_trouble_at_first(*args: object) -> object:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise trouble
        return await claim(*args)  # type: ignore[arg-type]

    async def handler(task: Task) -> str:
        return ""

    monkeypatch.setattr(place.catalogue.outbox, "claim", in_trouble_at_first)
    asset_id = await queue(place)
    async with working(place, handler) as dispatcher:
        await until(place, asset_id, lambda task: task.state == "done")
        assert dispatcher.healthy
