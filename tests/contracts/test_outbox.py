"""What every outbox promises to its dispatcher."""

import asyncio
from typing import Any

import pytest

from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.ids import new_asset_id, new_blob_id
from mediasvc.core.task import MAX_ATTEMPTS, NewTask, Task

pytestmark = pytest.mark.anyio


async def queue(catalogue: Catalogue, number: int = 1, kind: str = "analyse") -> str:
    """An asset with so many tasks; gives its id."""
    asset_id = new_asset_id()
    async with catalogue.transaction() as tx:
        if await tx.bucket("media") is None:
            await tx.add_bucket(Bucket("media", 1.0))
        blob = Blob(new_blob_id(), 1, "ab" * 32, 0)
        await tx.add_asset(Asset(asset_id, "media", asset_id, "n", blob, "image/png", "ready", 1.0, 1))
        for _ in range(number):
            await tx.enqueue(NewTask(kind, asset_id, {"version": 1}))
    return asset_id


async def only_task(catalogue: Catalogue, asset_id: str) -> Task:
    (task,) = await catalogue.tasks_of(asset_id)
    return task


async def test_a_claimed_task_counts_its_attempt_before_the_work(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue)
    (task,) = await catalogue.outbox.claim("run_a", clock.now + 1, 10)
    assert (task.state, task.attempts, task.run, task.started_at) == ("running", 1, "run_a", clock.now + 1)
    assert (task.kind, task.asset_id, task.payload) == ("analyse", asset_id, {"version": 1})
    assert await only_task(catalogue, asset_id) == task
    assert await catalogue.outbox.runs() == ["run_a"]


async def test_a_task_is_claimed_by_one(catalogue: Catalogue, clock: Any) -> None:
    await queue(catalogue, 50)
    claims = (catalogue.outbox.claim(f"run_{n}", clock.now, 7) for n in range(10))
    taken = [task.id for tasks in await asyncio.gather(*claims) for task in tasks]
    assert len(taken) == len(set(taken)) == 50


async def test_a_task_is_not_claimed_before_its_time(catalogue: Catalogue, clock: Any) -> None:
    await queue(catalogue)
    assert await catalogue.outbox.next_due() == clock.now
    assert await catalogue.outbox.claim("run", clock.now - 1, 10) == []
    assert await catalogue.outbox.claim("run", clock.now, 0) == []
    (task,) = await catalogue.outbox.claim("run", clock.now, 10)
    assert await catalogue.outbox.next_due() is None
    later = clock.now + 4
    await catalogue.outbox.postpone(task.id, "run", not_before=later, detail="busy", counted=True)
    assert await catalogue.outbox.next_due() == later
    assert await catalogue.outbox.claim("run", later - 1, 10) == []
    (again,) = await catalogue.outbox.claim("run", later, 10)
    assert (again.id, again.attempts) == (task.id, 2)


async def test_an_attempt_that_was_not_its_fault_is_not_counted(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue)
    (task,) = await catalogue.outbox.claim("run", clock.now, 1)
    await catalogue.outbox.postpone(task.id, "run", not_before=0, detail="store away", counted=False)
    waiting = await only_task(catalogue, asset_id)
    assert (waiting.state, waiting.attempts, waiting.detail, waiting.run) == (
        "waiting",
        0,
        "store away",
        None,
    )


async def test_the_oldest_come_first(catalogue: Catalogue, clock: Any) -> None:
    first = await queue(catalogue)
    clock.now += 1
    second = await queue(catalogue)
    assert [task.asset_id for task in await catalogue.outbox.claim("run", clock.now, 1)] == [first]
    assert [task.asset_id for task in await catalogue.outbox.claim("run", clock.now, 1)] == [second]


@pytest.mark.parametrize("state", ["done", "failed"])
async def test_a_task_ends_with_what_came_of_it(catalogue: Catalogue, clock: Any, state: str) -> None:
    asset_id = await queue(catalogue)
    (task,) = await catalogue.outbox.claim("run", clock.now, 1)
    clock.now += 3
    end = catalogue.outbox.finish if state == "done" else catalogue.outbox.fail
    await end(task.id, "run", detail="because")
    ended = await only_task(catalogue, asset_id)
    assert (ended.state, ended.detail, ended.finished_at) == (state, "because", clock.now)
    assert await catalogue.outbox.claim("run", clock.now + 9, 1) == []
    assert await catalogue.outbox.counts() == {state: 1}
    with pytest.raises(Gone):
        await end(task.id, "run", detail="again")


async def test_a_task_answers_only_to_the_run_that_has_it(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue)
    (task,) = await catalogue.outbox.claim("run_a", clock.now, 1)
    for call in (
        catalogue.outbox.finish(task.id, "run_b"),
        catalogue.outbox.fail(task.id, "run_b", detail=""),
        catalogue.outbox.postpone(task.id, "run_b", not_before=0, detail="", counted=False),
    ):
        with pytest.raises(Gone):
            await call
    assert await only_task(catalogue, asset_id) == task


async def test_what_a_dead_run_left_is_done_again(catalogue: Catalogue, clock: Any) -> None:
    dead, alive = await queue(catalogue), await queue(catalogue)
    (first,) = await catalogue.outbox.claim("run_dead", clock.now, 1)
    (second,) = await catalogue.outbox.claim("run_alive", clock.now, 1)
    assert {first.asset_id, second.asset_id} == {dead, alive}
    assert [task.id for task in await catalogue.outbox.stuck(["run_alive"])] == [first.id]
    assert {task.id for task in await catalogue.outbox.stuck([])} == {first.id, second.id}
    assert await catalogue.outbox.reclaim("run_dead") == 1
    assert await catalogue.outbox.stuck(["run_alive"]) == []
    with pytest.raises(Gone):
        await catalogue.outbox.finish(first.id, "run_dead")
    (again,) = await catalogue.outbox.claim("run_new", clock.now, 9)
    assert (again.id, again.attempts) == (first.id, 2)


async def test_a_task_that_kills_its_server_is_buried(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (task,) = await catalogue.outbox.claim(f"run_{attempt}", clock.now, 1)
        assert task.attempts == attempt
        assert await catalogue.outbox.reclaim(f"run_{attempt}") == 1
    buried = await only_task(catalogue, asset_id)
    assert (buried.state, buried.attempts, buried.finished_at) == ("failed", MAX_ATTEMPTS, clock.now)
    assert str(MAX_ATTEMPTS) in buried.detail
    assert await catalogue.outbox.claim("run", clock.now + 9, 1) == []


async def test_tasks_of_a_deleted_asset_are_nobodys_any_more(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue)
    (task,) = await catalogue.outbox.claim("run", clock.now, 1)
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset_id)
    with pytest.raises(Gone):
        await catalogue.outbox.finish(task.id, "run")


async def test_a_purge_leaves_no_row_once_its_asset_is_gone(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue)
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset_id)
    for _ in range(2):
        (purge,) = await catalogue.outbox.claim("run", clock.now, 9)
        assert purge.kind == "purge"
        await catalogue.outbox.postpone(purge.id, "run", not_before=0, detail="", counted=True)
    (purge,) = await catalogue.outbox.claim("run", clock.now, 9)
    await catalogue.outbox.finish(purge.id, "run")
    assert await catalogue.tasks_of(asset_id) == []
    assert await catalogue.outbox.counts() == {}


async def test_a_purge_of_a_living_asset_stays_in_its_timeline(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue, kind="purge")
    (purge,) = await catalogue.outbox.claim("run", clock.now, 9)
    await catalogue.outbox.finish(purge.id, "run")
    assert (await only_task(catalogue, asset_id)).state == "done"


async def test_what_was_decided_on_the_spot_is_no_work(catalogue: Catalogue, clock: Any) -> None:
    asset_id = await queue(catalogue, 0)
    async with catalogue.transaction() as tx:
        task_id = await tx.enqueue(NewTask("analyse", asset_id, state="done", detail="text has no picture"))
    assert await catalogue.outbox.claim("run", clock.now + 9, 1) == []
    task = await only_task(catalogue, asset_id)
    assert (task.id, task.detail, task.finished_at) == (task_id, "text has no picture", clock.now)


async def test_a_task_of_a_transaction_that_broke_is_never_seen(catalogue: Catalogue, clock: Any) -> None:
    async def break_off() -> None:
        async with catalogue.transaction() as tx:
            await tx.enqueue(NewTask("analyse", "ast_x"))
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        await break_off()
    assert await catalogue.outbox.claim("run", clock.now + 9, 1) == []
