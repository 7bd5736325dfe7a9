"""Blocking work in threads that is never abandoned: no file or buffer is let go of under a running thread."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

TURN = 0.05  # seconds


async def ended(work: "asyncio.Future[T]") -> None:
    """Wait until `work` has ended, however it ends. A cancellation meanwhile is raised, afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:  # may come again and again (anyio repeats it)
            cancelled = error
    if not work.cancelled():
        work.exception()  # looked at, so that asyncio does not report it as forgotten
    if cancelled is not None:
        raise cancelled


async def all_ended(works: Iterable["Future[T]"]) -> None:
    """The same for all of them, however often we are cancelled meanwhile."""
    await ended(asyncio.gather(*map(asyncio.wrap_future, works), return_exceptions=True))


async def unbroken(work: Awaitable[T]) -> T:
    """The outcome of `work`, which runs to its end even when we are cancelled meanwhile."""
    future = asyncio.ensure_future(work)
    await ended(future)
    return future.result()


async def in_thread(pool: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The outcome of `function`, run in the pool to its end even when we are cancelled meanwhile."""
    return await unbroken(asyncio.wrap_future(pool.submit(function, *args, **kwargs)))


class Line:
    """Work that is done one after another, by one thread of the pool at a time.

    What is added goes on without a word from the event loop, which may be busy receiving; after `TURN` it makes room
    in the pool for others. What one thing failed with, all after it fail with.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lock = threading.Lock()
        self._failed: BaseException | None = None
        self.busy = False

    def add(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((future, work))
            if self.busy:
                return future
            self.busy = True
        self._begin()
        return future

    def _begin(self) -> None:
        try:
            self._pool.submit(self._work)
        except RuntimeError as error:  # no more threads to be had, or the pool is closed
            self._failed = error
            self._work()

    def _work(self) -> None:
        until = time.monotonic() + TURN
        while True:
            if time.monotonic() > until and self._failed is None:
                return self._begin()
            with self._lock:
                if not self._waiting:
                    self.busy = False
                    return
                future, work = self._waiting.popleft()
            if self._failed is None:
                try:
                    outcome = work()
                except BaseException as error:
                    self._failed = error
                else:
                    future.set_result(outcome)
                    continue
            future.set_exception(self._failed)
