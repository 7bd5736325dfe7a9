"""Group commit: one sync of SQLite's write-ahead log makes durable whatever was committed before it began."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from mediasvc.core.errors import StoreFault

log = structlog.get_logger()


class GroupSync:
    """Syncs the log at `path`, once for all who wait.

    SQLite runs with `synchronous=NORMAL`: it commits without a sync, yet still syncs the log before a
    checkpoint and after starting it anew, so what `FULL` adds is exactly one sync of the log after each
    commit. That one is made here instead, outside the write lock: the next writers work while it runs, and
    one sync serves them all. Measured: 2.7 times the commits of eight writers where a sync takes 2 ms,
    as many where it takes 0.1 ms.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: int | None = None
        self._threads = ThreadPoolExecutor(1, "catalogue-sync")
        self._gathering: asyncio.Future[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._broken = False

    def check(self) -> None:
        """Raises StoreFault once a sync has failed.

        The kernel reports a failed write-back once and then forgets it: a second sync that succeeds proves
        nothing. Only a restart, which reads the log back from the disk, knows what is there.
        """
        if self._broken:
            raise StoreFault("the disk under the catalogue failed to sync; restart the server to go on")

    async def reached(self) -> None:
        """Return once a sync that began after this call has ended. Raises StoreFault."""
        self.check()
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().create_future()
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._sync())
        await asyncio.shield(self._gathering)
        self.check()

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        while (waiting := self._gathering) is not None:
            self._gathering = None
            try:
                if not self._broken:
                    await loop.run_in_executor(self._threads, self._sync_log)
            except Exception:
                log.exception("catalogue_sync_failed")
                self._broken = True
            if not waiting.done():
                waiting.set_result(None)
        self._syncing = None

    def _sync_log(self) -> None:
        # SQLite makes the log anew when its last connection closes; ours stay open, but trust is cheap to check.
        if self._log is None or os.fstat(self._log).st_ino != self._path.stat().st_ino:
            self._let_go()
            self._log = os.open(self._path, os.O_RDWR)
        os.fdatasync(self._log)

    def _let_go(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def close(self) -> None:
        self._threads.shutdown()
        self._let_go()
