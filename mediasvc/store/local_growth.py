"""Blobs that grow on a disk: one file, `incoming/<blob id>`, written on until it is renamed."""

import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from mediasvc.core.errors import StoreFault, StoreFull
from mediasvc.store.disk import FolderSync, Incoming, WayDown, disk_errors
from mediasvc.store.interface import BlobMissing, Files, Growing, Lost, Stored
from mediasvc.store.slabs import UntilItBreaks
from mediasvc.store.threads import in_thread
from mediasvc.store.writers import Writers


class LocalGrowth:
    """The `Resumable` capability. The file itself says how much there is: nothing is noted."""

    def __init__(
        self, folder: Path, files: Files, writers: Writers, folders: FolderSync, way_down: WayDown
    ) -> None:
        self._folder, self._files, self._writers = folder, files, writers
        self._folders, self._way_down = folders, way_down

    def _incoming(self, blob_id: str) -> Incoming:
        return Incoming(self._folder / blob_id, self._files.path(blob_id))

    async def append(
        self,
        growing: Growing,
        body: AsyncIterable[bytes | memoryview],
        feed: Callable[[memoryview], None],
        *,
        length: int | None = None,
    ) -> AsyncGenerator[Growing, None]:
        """Also raises Lost; what a full or failing disk took before is kept and yielded."""
        incoming, came = self._incoming(growing.blob_id), UntilItBreaks(body)
        broken: Exception | None = None
        with self._writers.alone(growing.blob_id):
            try:
                async with self._writers.written(
                    incoming,
                    came,
                    feed,
                    first=partial(incoming.reopen, growing.size),
                    last=incoming.close,
                ):
                    yield replace(growing, size=incoming.written)
            except (StoreFull, StoreFault) as error:
                if not incoming.opened:
                    raise
                broken = error
            finally:
                if incoming.opened:
                    await in_thread(self._writers.threads, incoming.close)
        if broken is not None:
            yield replace(growing, size=incoming.written)
        if broken := broken or came.error:
            raise broken

    async def found(self, growing: Growing, *, all_of_it: bool) -> Growing:
        return await in_thread(self._writers.threads, self._find, growing, all_of_it)

    @disk_errors()
    def _find(self, growing: Growing, all_of_it: bool) -> Growing:
        try:
            there = (self._folder / growing.blob_id).stat().st_size
        except FileNotFoundError:
            whole = self._whole(growing.blob_id)
            there, all_of_it = whole or 0, whole is not None
        if there < growing.size:
            raise Lost(f"{there} of {growing.size} bytes are there")
        return replace(growing, size=there) if all_of_it else growing

    def _whole(self, blob_id: str) -> int | None:
        """Bytes under the final name; None: there is none."""
        try:
            return self._files.size(blob_id)
        except BlobMissing:
            return None

    async def sync(self, growing: Growing) -> None:
        """Also raises Lost. After a StoreFault or StoreFull nothing is left: see `_drop_what_may_be_torn`."""
        await in_thread(self._writers.threads, self._flush, growing)
        await self._folders.sync([self._folder])

    @disk_errors()
    def _flush(self, growing: Growing) -> None:
        part = self._folder / growing.blob_id
        try:
            fd = os.open(part, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if growing.size > (self._whole(growing.blob_id) or 0):
                raise Lost(f"none of {growing.size} bytes are there") from None
            return
        try:
            os.fdatasync(fd)
        except OSError:
            _drop_what_may_be_torn(part)
            raise
        finally:
            os.close(fd)

    async def finish(self, growing: Growing) -> Stored:
        """After a StoreFault or StoreFull the bytes may be gone: see `_drop_what_may_be_torn`."""
        with self._writers.alone(growing.blob_id):
            await in_thread(self._writers.threads, self._publish, growing)
            await self._way_down.sync(self._files.path(growing.blob_id))
        return Stored(growing.blob_id, growing.size)

    def _publish(self, growing: Growing) -> None:
        part, whole = self._folder / growing.blob_id, self._whole(growing.blob_id)
        if whole is not None and not part.exists():
            if whole != growing.size:
                raise Lost(f"a blob of {whole} bytes is there, not of {growing.size}")
            return  # an earlier `finish` came that far
        incoming = self._incoming(growing.blob_id)
        incoming.reopen(growing.size)
        try:
            incoming.flush()
        except (StoreFull, StoreFault):
            incoming.close()
            _drop_what_may_be_torn(part)
            raise
        incoming.rename()


def _drop_what_may_be_torn(part: Path) -> None:
    """The kernel says once that it could not write, and then forgets both the bytes and the failure: a second look
    would find them all there."""
    with suppress(OSError):
        part.unlink(missing_ok=True)
