"""Blocking work in threads that is never abandoned: no file or buffer is let go of under a running thread."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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


async def unbroken(work: Awaitable[T]) -> T:
    """The outcome of `work`, which runs to its end even when we are cancelled meanwhile."""
    future = asyncio.ensure_future(work)
    await ended(future)
    return future.result()


async def in_thread(pool: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The outcome of `function`, run in the pool to its end even when we are cancelled meanwhile."""
    return await unbroken(asyncio.wrap_future(pool.submit(function, *args, **kwargs)))
