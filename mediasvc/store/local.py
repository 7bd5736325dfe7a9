"""Blobs in a directory: `root/ab/cd/<blob id>`, and `root/incoming/<blob id>` while one is being written."""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from aiofiles.threadpool import wrap

from mediasvc.core.errors import StartupRefused, StoreUnavailable
from mediasvc.core.span import Span
from mediasvc.store.digests import Digests
from mediasvc.store.disk import NO_ROOM, FolderSync, Incoming, WayDown, disk_errors, make_folder, sync_folder
from mediasvc.store.interface import BlobMissing, Stored
from mediasvc.store.local_growth import LocalGrowth
from mediasvc.store.threads import in_thread, unbroken
from mediasvc.store.writers import Writers

CHUNK = 256 * 1024  # bytes a reader gets at once
CHECK_SECONDS = 5.0
INCOMING = "incoming"  # made at the start: a root without it is no store

_BLOB_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class LocalFiles:
    """Blobs as plain files (the `Files` capability)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = str(root)

    def path(self, blob_id: str) -> Path:
        if not _BLOB_ID.fullmatch(blob_id):
            raise ValueError(f"not a blob id: {blob_id!r}")
        return self._root / blob_id[:2] / blob_id[2:4] / blob_id

    def open(self, blob_id: str) -> FileIO:
        if not _BLOB_ID.fullmatch(blob_id):
            raise ValueError(f"not a blob id: {blob_id!r}")
        try:
            # Not by `path`: putting a Path together costs as much as opening the file.
            return FileIO(f"{self._folder}/{blob_id[:2]}/{blob_id[2:4]}/{blob_id}")
        except FileNotFoundError:
            raise self.missing(blob_id) from None
        except OSError as error:
            raise StoreUnavailable(f"a blob cannot be opened: {error.strerror}") from error

    def size(self, blob_id: str) -> int:
        if not _BLOB_ID.fullmatch(blob_id):
            raise ValueError(f"not a blob id: {blob_id!r}")
        try:
            return os.stat(f"{self._folder}/{blob_id[:2]}/{blob_id[2:4]}/{blob_id}").st_size
        except FileNotFoundError:
            raise self.missing(blob_id) from None
        except OSError as error:
            raise StoreUnavailable(f"a blob cannot be looked at: {error.strerror}") from error

    def missing(self, blob_id: str) -> BlobMissing | StoreUnavailable:
        """What it means that a blob is not there: lost, or all of them away with a disk that is not mounted."""
        if os.path.isdir(f"{self._folder}/{INCOMING}"):
            return BlobMissing(blob_id)
        return StoreUnavailable("the store's folder is not there; is its disk mounted?")

    def free(self) -> int:
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"the store's disk cannot be looked at: {error.strerror}") from error
        return disk.f_bfree * disk.f_frsize  # with what is set aside for root: it may be who runs us


class LocalStore:
    """A directory on a local disk. What `put` returned survives a power cut."""

    presigned = None
    max_blob_size: int | None = (
        1 << 60
    )  # an exbibyte: no file is larger, and all sums of sizes fit in 64 bits

    def __init__(self, root: Path, *, found: bool = False) -> None:
        """`found`: the start makes no folder, for where there is none its disk may be away."""
        self._root = root
        self._found = found
        self._incoming = root / INCOMING
        self._writers = Writers()
        self._readers = ThreadPoolExecutor(8, "store-read")
        self._syncer = ThreadPoolExecutor(1, "store-sync")
        self._folders = FolderSync(self._syncer)
        self._way_down = WayDown(root, self._folders)
        self._probe: Future[OSError | None] | None = None
        self.files = LocalFiles(root)
        self.resumable = LocalGrowth(self._incoming, self.files, self._writers, self._folders, self._way_down)

    async def start(self) -> None:
        try:
            if not self._found:
                await in_thread(self._writers.threads, self._prepare)
            error = await in_thread(self._writers.threads, self._write_probe)
        except OSError as refusal:
            error = refusal
        # A full disk is no reason not to start: what is there can be read and deleted.
        if error is not None and error.errno not in NO_ROOM:
            raise StartupRefused(
                f"the store's folder {self._root} cannot be used ({error.strerror}): "
                "make it writable for this user, or name another one in MEDIASVC_STORE_URL"
            ) from error

    def _prepare(self) -> None:
        missing = [folder for folder in (self._root, *self._root.parents) if not folder.exists()]
        for folder in reversed(missing):
            make_folder(folder)
        make_folder(self._incoming)
        for folder in (self._root, *(made.parent for made in missing)):
            sync_folder(folder)

    def _write_probe(self) -> OSError | None:
        try:
            with tempfile.TemporaryFile(dir=self._incoming, buffering=0) as probe:
                probe.write(b"?")
                os.fdatasync(probe.fileno())
        except OSError as error:
            return error
        return None

    async def check(self) -> None:
        # A disk that hangs keeps one thread, however often it is asked after.
        if self._probe is None or self._probe.done():
            self._probe = self._writers.threads.submit(self._write_probe)
        answer = asyncio.wrap_future(self._probe)
        await asyncio.wait([answer], timeout=CHECK_SECONDS)
        if not answer.done():
            raise StoreUnavailable(f"the store's disk did not answer within {CHECK_SECONDS:g} s")
        if error := answer.result():
            raise StoreUnavailable(f"the store cannot be written to: {error.strerror}") from error

    async def put(
        self,
        blob_id: str,
        body: AsyncIterable[bytes | memoryview],
        digests: Digests,
        *,
        length: int | None = None,
    ) -> Stored:
        final = self.files.path(blob_id)
        incoming = Incoming(self._incoming / blob_id, final)
        with self._writers.alone(blob_id):
            try:
                async with self._writers.written(
                    incoming, body, digests.update, first=incoming.create, last=incoming.publish
                ):
                    await self._way_down.sync(final)
            except BaseException:
                await in_thread(self._writers.threads, incoming.remove)
                raise
        return Stored(blob_id, digests.size)

    @asynccontextmanager
    async def open(self, blob_id: str, span: Span | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        with ExitStack() as opened:
            source, size = await in_thread(self._readers, self._open, opened, blob_id)
            yield self._chunks(source, span or Span(0, size))

    def _open(self, opened: ExitStack, blob_id: str) -> tuple["BufferedReader[FileIO]", int]:
        # Buffered for its lock: closing then waits for a read that a cancelled reader left running.
        source = opened.enter_context(BufferedReader(self.files.open(blob_id)))
        return source, os.fstat(source.fileno()).st_size

    async def _chunks(self, source: "BufferedReader[FileIO]", span: Span) -> AsyncIterator[bytes]:
        file: Any = wrap(source, executor=self._readers)
        at = span.start
        try:
            await unbroken(file.seek(at))
            while at < span.stop:
                chunk: bytes = await unbroken(file.read(min(CHUNK, span.stop - at)))
                if not chunk:
                    raise StoreUnavailable(f"a blob ended at byte {at}, before {span.stop}")
                at += len(chunk)
                yield chunk
        except OSError as error:
            raise StoreUnavailable(f"a blob broke off at byte {at}: {error.strerror}") from error

    async def stat(self, blob_id: str) -> Stored:
        return await in_thread(self._readers, self._stat, blob_id)

    @disk_errors()
    def _stat(self, blob_id: str) -> Stored:
        try:
            return Stored(blob_id, self.files.path(blob_id).stat().st_size)
        except FileNotFoundError:
            raise self.files.missing(blob_id) from None

    async def delete(self, *blob_ids: str) -> None:
        await self._remove([self.files.path(blob_id) for blob_id in blob_ids])

    async def discard(self, blob_id: str) -> None:
        await self._remove([self._incoming / blob_id, self.files.path(blob_id)])

    async def _remove(self, paths: list[Path]) -> None:
        # Synced whether or not something was there: whoever asks forgets the blob next, and a name that a
        # power cut brings back after that would be nobody's.
        await self._folders.sync(await in_thread(self._writers.threads, self._unlink, paths))

    @disk_errors()
    def _unlink(self, paths: list[Path]) -> set[Path]:
        for path in paths:
            path.unlink(missing_ok=True)
        return {path.parent for path in paths if path.parent.exists()}

    async def scan(self, prefix: str = "") -> AsyncIterator[Stored]:
        for number in range(256):
            top = f"{number:02x}"
            if top.startswith(prefix[:2]):
                for stored in await in_thread(self._readers, self._list, top, prefix):
                    yield stored

    @disk_errors()
    def _list(self, top: str, prefix: str) -> list[Stored]:
        found: list[Stored] = []
        for folder in _entries(self._root / top):
            if f"{top}{folder.name}".startswith(prefix[:4]):
                for entry in _entries(Path(folder.path)):
                    if _BLOB_ID.fullmatch(entry.name) and entry.name.startswith(prefix):
                        found += _stored(entry)
        return found

    async def scan_unfinished(self) -> AsyncIterator[str]:
        for entry in await in_thread(self._readers, _entries, self._incoming):
            if _BLOB_ID.fullmatch(entry.name):
                yield entry.name

    async def close(self) -> None:
        for pool in (*self._writers.pools, self._readers, self._syncer):
            await asyncio.to_thread(pool.shutdown)


@disk_errors()
def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _stored(entry: os.DirEntry[str]) -> list[Stored]:
    try:
        return [Stored(entry.name, entry.stat().st_size)]
    except FileNotFoundError:  # deleted while we look
        return []
