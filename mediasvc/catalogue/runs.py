"""Which starts of this machine's servers are alive, by a lock that the kernel lets go of when they die."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from mediasvc.core.ids import new_run_id, well_formed

_UNBORN = ".new"


class FileRuns:
    """Implements `catalogue.interface.Runs`: one file for each run in `directory`, locked while the run lives."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}

    def begin(self) -> str:
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._forget_unborn()
        while True:
            run = new_run_id()
            unborn = self._directory / (run + _UNBORN)
            # Python opens files close-on-exec: a decoder that outlives us does not keep our run alive.
            lock = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                # Locked before it has its name: nobody ever sees the file of a living run without its lock.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unborn.rename(self._directory / run)
            except (BlockingIOError, FileNotFoundError):
                os.close(lock)  # another start took it for a dead one's between creation and lock
                continue
            except BaseException:
                os.close(lock)
                raise
            self._held[run] = lock
            return run

    def alive(self, run: str) -> bool:
        return well_formed("run", run) and _locked(self._directory / run)

    def end(self, run: str) -> None:
        if well_formed("run", run):
            (self._directory / run).unlink(missing_ok=True)
        lock = self._held.pop(run, None)
        if lock is not None:
            os.close(lock)

    def known(self) -> Sequence[str]:
        if not self._directory.is_dir():
            return []
        return sorted(entry.name for entry in self._directory.iterdir() if well_formed("run", entry.name))

    def _forget_unborn(self) -> None:
        for unborn in self._directory.glob("*" + _UNBORN):
            if not _locked(unborn):
                unborn.unlink(missing_ok=True)


def _locked(path: Path) -> bool:
    """Whether somebody holds the lock. Asking takes a shared one for an instant, so askers never meet."""
    try:
        asked = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(asked, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(asked)
