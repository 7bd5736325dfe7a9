"""What the local store does to its disk, in the threads that do it: one blob being written, folders synced."""

import asyncio
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path

from mediasvc.core.errors import StoreFault, StoreFull
from mediasvc.store.interface import Lost
from mediasvc.store.slabs import SLAB

FILE_MODE, FOLDER_MODE = 0o640, 0o750  # nginx reads by group

# Whole slabs go past the page cache: a third of an upload's kernel time, and what others read stays in memory. A file
# system that cannot do it says so.
_DIRECT: int = getattr(os, "O_DIRECT", 0)

# EFBIG is what a limit on file sizes answers (`ulimit -f`, a file system's own).
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def as_store_error(error: OSError) -> StoreFull | StoreFault:
    """What an error of the disk means to whoever is uploading; paths stay out of it."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in NO_ROOM:
        return StoreFull(f"the store has no room left ({reason}); free space on its disk, then send it again")
    return StoreFault(f"the store's disk failed ({reason}); nothing was kept, see the server's log")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn OSError into StoreFull or StoreFault."""
    try:
        yield
    except OSError as error:
        raise as_store_error(error) from error


def make_folder(path: Path) -> None:
    """Make a folder of mode 0750 whatever the umask; one that is there is left as it is."""
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(FOLDER_MODE)


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Incoming:
    """A blob on its way to the disk. Methods block; one thread at a time.

    An error is final: an fsync that failed is never repeated, because the kernel has then dropped the pages
    and would say yes (PostgreSQL's lesson).
    """

    def __init__(self, part: Path, final: Path) -> None:
        self._part = part
        self._final = final
        self._fd = -1
        self.written = 0  # bytes
        self._direct = False
        self._published = False

    @property
    def opened(self) -> bool:
        return self._fd >= 0

    @disk_errors()
    def create(self) -> None:
        # A task that is run again after a crash finds its own debris under the same id.
        self._part.unlink(missing_ok=True)
        self._make()

    def _make(self) -> None:
        self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        os.fchmod(self._fd, FILE_MODE)

    @disk_errors()
    def reopen(self, size: int) -> None:
        """Go on behind the first `size` bytes; the rest goes. Raises Lost where there are fewer."""
        try:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if size:
                raise Lost(f"none of {size} bytes are there") from None
            self._make()
        there = os.fstat(self._fd).st_size
        if there < size:
            self.close()
            raise Lost(f"{there} of {size} bytes are there")
        self.written = size
        if there > size:
            os.ftruncate(self._fd, size)

    @disk_errors()
    def write(self, data: memoryview) -> None:
        """Append. Whole slabs go past the page cache, where they begin at a multiple of their size."""
        if self._go_direct(_DIRECT != 0 and len(data) == SLAB and self.written % SLAB == 0):
            try:
                taken = os.pwrite(self._fd, data, self.written)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                self.written += taken
                data = data[taken:]
            if not data:
                return
            self._go_direct(False)
        while data:  # a disk takes less than asked just before it is full
            taken = os.pwrite(self._fd, data, self.written)
            self.written += taken
            data = data[taken:]

    def _go_direct(self, direct: bool) -> bool:
        """Write past the page cache from now on, or no longer; gives what is so."""
        if direct != self._direct:
            try:
                fcntl.fcntl(self._fd, fcntl.F_SETFL, _DIRECT if direct else 0)
                self._direct = direct
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return self._direct

    @disk_errors()
    def flush(self) -> None:
        os.fdatasync(self._fd)

    def publish(self) -> None:
        """Bytes on disk, then under the final name: a crash leaves all of the blob or none of it."""
        self.flush()
        self.rename()

    @disk_errors()
    def rename(self) -> None:
        """Give it its final name; its bytes are on disk."""
        self.close()
        try:
            self._part.rename(self._final)
        except FileNotFoundError:
            make_folder(self._final.parent.parent)
            make_folder(self._final.parent)
            self._part.rename(self._final)
        self._published = True

    def remove(self) -> None:
        """Leave nothing behind. Errors are swallowed: the one that led here is the one to tell."""
        with suppress(StoreFull, StoreFault):
            self.close()
        with suppress(OSError):
            (self._final if self._published else self._part).unlink(missing_ok=True)

    @disk_errors()
    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class FolderSync:
    """Group commit for folders: one round of fsyncs serves everybody who waits for it.

    On ext4 and XFS the first fsync of a round commits the journal with all renames in it, and the others
    find nothing left to do.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._next: set[Path] = set()
        self._round: asyncio.Task[dict[Path, OSError]] | None = None  # waiting for its turn
        self._running: asyncio.Task[dict[Path, OSError]] | None = None

    async def sync(self, folders: Iterable[Path]) -> None:
        """Returns when a sync of each folder that began after this call is through.

        Raises StoreFull or StoreFault, to those whose folder it was.
        """
        wanted = set(folders)
        self._next |= wanted
        if self._round is None:
            self._round = asyncio.create_task(self._take_turn(self._running))
        failed = await asyncio.shield(self._round)
        for folder in wanted & failed.keys():
            raise as_store_error(failed[folder]) from failed[folder]

    async def _take_turn(self, before: "asyncio.Task[dict[Path, OSError]] | None") -> dict[Path, OSError]:
        if before is not None:
            await asyncio.wait([before])
        folders, self._next = self._next, set()
        self._running, self._round = self._round, None
        return await asyncio.wrap_future(self._pool.submit(_sync_each, folders))


class WayDown:
    """The folders between `root` and a blob, synced: its name survives a power cut."""

    def __init__(self, root: Path, folders: FolderSync) -> None:
        self._root = root
        self._folders = folders
        # One flag for each of the 65 536 folders: whether this process has synced the way down to it.
        # That a folder exists says nothing: whoever made it may have died before the sync.
        self._anchored = bytearray(1 << 16)

    async def sync(self, final: Path) -> None:
        """Raises StoreFull or StoreFault."""
        number = int(final.name[:4], 16)
        if self._anchored[number]:
            await self._folders.sync([final.parent])
        else:
            await self._folders.sync([self._root, final.parent.parent, final.parent])
            self._anchored[number] = True


def _sync_each(folders: Iterable[Path]) -> dict[Path, OSError]:
    failed: dict[Path, OSError] = {}
    for folder in folders:
        try:
            sync_folder(folder)
        except OSError as error:
            failed[folder] = error
    return failed
