"""A plain loop over the outbox: claim what is due, do it, write down what came of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.errors import MediasvcError, StoreFault, StoreFull, Unavailable
from mediasvc.core.task import MAX_ATTEMPTS, Task, delay_before
from mediasvc.logs import log

Handler = Callable[[Task], Awaitable[str]]
Record = Callable[[], Awaitable[None]]
_POLL = 1.0  # seconds: other processes queue tasks without ringing our bell
_AWAY = 10.0  # seconds to leave a store or catalogue alone that is away


class Final(Exception):
    """Trying this task again would give the same; the message is the reason people see."""


class Dispatcher:
    """Runs tasks for one run of one server. A handler returns what to write into the timeline.

    A handler that raises is tried again later, MAX_ATTEMPTS times in all; `Final` fails the task at once;
    a store or catalogue that is away or full is waited for and costs no attempt.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        handlers: Mapping[str, Handler],
        run: str,
        *,
        at_once: int,
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._handlers = handlers
        self._run = run
        self._at_once = at_once
        self._clock = clock
        self._bell = asyncio.Event()
        self._working: set[asyncio.Task[None]] = set()
        self.last_turn = clock()

    def ring(self) -> None:
        """There may be work. Lost rings are made up for by polling."""
        self._bell.set()

    @property
    def healthy(self) -> bool:
        """Whether the loop has turned lately."""
        return self._clock() - self.last_turn < 60

    async def work(self) -> None:
        """Until cancelled; what is under way then goes back among the waiting."""
        try:
            while True:
                self.last_turn = self._clock()
                try:
                    await self._turn()
                except MediasvcError as error:  # away, locked or full
                    log.warning("dispatcher_waits", reason=error.detail)
                    await asyncio.sleep(_POLL)
                except Exception:
                    log.exception("dispatcher_error")
                    await asyncio.sleep(_POLL)
        finally:
            await asyncio.sleep(0)  # what was claimed a moment ago begins, so that it can go back
            for working in self._working:
                working.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)

    async def _turn(self) -> None:
        self._bell.clear()
        free = self._at_once - len(self._working)
        claimed = await self._catalogue.outbox.claim(self._run, self._clock(), free) if free else ()
        for task in claimed:
            working = asyncio.create_task(self._do(task))
            self._working.add(working)
            working.add_done_callback(self._done)
        if free and len(claimed) == free:
            return
        try:
            async with asyncio.timeout(_POLL):
                await self._bell.wait()
        except TimeoutError:
            pass

    def _done(self, working: asyncio.Task[None]) -> None:
        self._working.discard(working)
        self._bell.set()
        if not working.cancelled() and (error := working.exception()):
            # Left `running` under our run: the start-up sweep of the next run takes it up again.
            log.error("task_lost", exc_info=error)

    async def _do(self, task: Task) -> None:
        began = time.monotonic()
        try:
            outcome, record = await self._attempt(task)
            await self._write_down(record)
        except asyncio.CancelledError:
            # Gone: what came of it is written down already.
            with suppress(Gone):
                await self._catalogue.outbox.postpone(
                    task.id, self._run, not_before=self._clock(), detail="the server stopped", counted=False
                )
            raise
        except Gone:
            outcome = "superseded"  # cancelled meanwhile: its asset was replaced or deleted
        metrics.task_seconds.labels(task.kind, outcome).observe(time.monotonic() - began)
        log.info("task", kind=task.kind, task_id=task.id, asset_id=task.asset_id, outcome=outcome)

    async def _attempt(self, task: Task) -> tuple[str, Record]:
        """What came of one attempt, and how to write it down."""
        outbox = self._catalogue.outbox
        try:
            detail = await self._handlers[task.kind](task)
        except Final as final:
            return "failed", partial(outbox.fail, task.id, self._run, detail=str(final))
        except (Unavailable, StoreFault, StoreFull) as away:
            return "postponed", self._later(task, _AWAY, away.detail, counted=False)
        except Exception as error:
            log.error("task_error", kind=task.kind, task_id=task.id, attempt=task.attempts, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
            if task.attempts >= MAX_ATTEMPTS:
                reason = f"gave up after {task.attempts}: {reason}"
                return "failed", partial(outbox.fail, task.id, self._run, detail=reason)
            return "postponed", self._later(task, delay_before(task.attempts), reason, counted=True)
        return "done", partial(outbox.finish, task.id, self._run, detail=detail)

    def _later(self, task: Task, delay: float, detail: str, *, counted: bool) -> Record:
        return partial(
            self._catalogue.outbox.postpone,
            task.id,
            self._run,
            not_before=self._clock() + delay,
            detail=detail,
            counted=counted,
        )

    async def _write_down(self, record: Record) -> None:
        """Until the catalogue takes it: a task left `running` under a living run would never run again."""
        while True:
            try:
                return await record()
            except MediasvcError as error:
                log.warning("task_unrecorded", reason=error.detail)
                await asyncio.sleep(_POLL)
