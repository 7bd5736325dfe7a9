"""The dispatcher's side of the task table. Each step is a transaction of its own, through the one writer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import sqlalchemy as sa

from mediasvc.catalogue.interface import Gone
from mediasvc.catalogue.rows import task_of
from mediasvc.catalogue.statements import Reader, Writer
from mediasvc.catalogue.tables import asset, task
from mediasvc.core.task import MAX_ATTEMPTS, Task, TaskState


class CoreOutbox:
    """Implements `catalogue.interface.Outbox`."""

    def __init__(
        self,
        begin: Callable[[], AbstractAsyncContextManager[Writer]],
        reader: Reader,
        clock: Callable[[], float],
    ) -> None:
        self._begin = begin
        self._reader = reader
        self._clock = clock

    async def claim(self, run: str, now: float, limit: int) -> Sequence[Task]:
        due = (
            sa.select(task.c.id)
            .where(task.c.state == "waiting", task.c.not_before <= now)
            .order_by(task.c.not_before, task.c.id)
            .limit(limit)
        )
        # A dispatcher asks often and mostly in vain: asking must not cost a write.
        if limit < 1 or not await self._reader.rows(due.limit(1)):
            return []
        due = due.with_for_update(skip_locked=True)  # for PostgreSQL; SQLite has one writer and ignores it
        claimed = (
            sa.update(task)
            .where(task.c.id.in_(due.scalar_subquery()))
            .values(state="running", attempts=task.c.attempts + 1, run=run, started_at=now, finished_at=None)
            .returning(*task.c)
        )
        async with self._begin() as writer:
            rows = await writer.rows(claimed)
        return sorted(map(task_of, rows), key=lambda taken: (taken.not_before, taken.id))

    async def finish(self, task_id: str, run: str, *, detail: str = "") -> None:
        await self._end(task_id, run, "done", detail)

    async def fail(self, task_id: str, run: str, *, detail: str) -> None:
        await self._end(task_id, run, "failed", detail)

    async def postpone(
        self, task_id: str, run: str, *, not_before: float, detail: str, counted: bool
    ) -> None:
        attempts = task.c.attempts if counted else task.c.attempts - 1
        async with self._begin() as writer:
            await self._leave(
                writer,
                task_id,
                run,
                {"state": "waiting", "attempts": attempts, "not_before": not_before, "detail": detail},
            )

    async def reclaim(self, run: str) -> int:
        left = sa.update(task).where(task.c.state == "running", task.c.run == run)
        async with self._begin() as writer:
            buried = await writer.rows(
                left.where(task.c.attempts >= MAX_ATTEMPTS)
                .values(
                    state="failed",
                    run=None,
                    finished_at=self._clock(),
                    detail=f"its server or decoder died {MAX_ATTEMPTS} times",
                )
                .returning(task.c.asset_id)
            )
            await self._give_up(writer, [row.asset_id for row in buried])
            return len(buried) + await writer.change(left.values(state="waiting", run=None))

    async def runs(self) -> Sequence[str]:
        running = sa.select(task.c.run).distinct().where(task.c.state == "running", task.c.run.is_not(None))
        return [row.run for row in await self._reader.rows(running)]

    async def next_due(self) -> float | None:
        soonest = sa.select(sa.func.min(task.c.not_before)).where(task.c.state == "waiting")
        return (await self._reader.rows(soonest))[0][0]  # type: ignore[no-any-return]

    async def stuck(self, live_runs: Sequence[str]) -> Sequence[Task]:
        running = sa.select(task).where(task.c.state == "running", task.c.run.not_in(live_runs))
        return [task_of(row) for row in await self._reader.rows(running.order_by(task.c.id))]

    async def counts(self) -> Mapping[str, int]:
        counted = sa.select(task.c.state, sa.func.count().label("number")).group_by(task.c.state)
        return {row.state: row.number for row in await self._reader.rows(counted)}

    async def _end(self, task_id: str, run: str, state: TaskState, detail: str) -> None:
        async with self._begin() as writer:
            await self._leave(
                writer, task_id, run, {"state": state, "finished_at": self._clock(), "detail": detail}
            )
            if state == "failed":
                taken = await writer.rows(sa.select(task.c.asset_id).where(task.c.id == task_id))
                await self._give_up(writer, [row.asset_id for row in taken])
            # Of an asset that is gone nobody can see the timeline: what has ended would stay for ever.
            asset_id = sa.select(task.c.asset_id).where(task.c.id == task_id).scalar_subquery()
            await writer.change(
                sa.delete(task).where(
                    task.c.asset_id == asset_id,
                    task.c.state.not_in(("waiting", "running")),
                    ~sa.exists().where(asset.c.id == task.c.asset_id),
                )
            )

    @staticmethod
    async def _give_up(writer: Writer, asset_ids: Sequence[str]) -> None:
        """Nobody waits for ever: an asset whose last look failed is not `processing` any more."""
        looking = sa.exists().where(
            task.c.asset_id == asset.c.id,
            task.c.state.in_(("waiting", "running")),
            task.c.kind.not_in(("purge", "join")),
        )
        await writer.change(
            sa.update(asset)
            .where(asset.c.id.in_(asset_ids), asset.c.state == "processing", ~looking)
            .values(state="damaged")
        )

    @staticmethod
    async def _leave(writer: Writer, task_id: str, run: str, values: Mapping[str, object]) -> None:
        ours = sa.and_(task.c.id == task_id, task.c.run == run, task.c.state == "running")
        if await writer.change(sa.update(task).where(ours).values(run=None, **values)) != 1:
            raise Gone(f"task {task_id} does not run under {run} any more")
