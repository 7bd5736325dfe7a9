"""The embedded catalogue: one SQLite file in the data directory (never on NFS).

Single reads run on the event loop, where they take microseconds and no writer can hold them up (WAL).
Transactions take turns, with `BEGIN IMMEDIATE`, in a thread of their own.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mediasvc.catalogue import rows, statements
from mediasvc.catalogue.archives import ARCHIVE, archive_of
from mediasvc.catalogue.interface import BlobRecord, Source
from mediasvc.catalogue.memory import Memory
from mediasvc.catalogue.outbox import CoreOutbox
from mediasvc.catalogue.reads import CoreReads
from mediasvc.catalogue.schema import bring_up_to_date
from mediasvc.catalogue.sqlite_connections import (
    PATIENCE,
    Prepared,
    SqliteReader,
    SqliteWriter,
    connect,
    settled,
    telling,
    told,
)
from mediasvc.catalogue.statements import Writer
from mediasvc.catalogue.tables import bucket
from mediasvc.catalogue.transaction import CoreTransaction
from mediasvc.catalogue.uploads import (
    PROMISED,
    UPLOAD,
    UPLOAD_OF_BLOB,
    UPLOAD_TOKEN_BY_SECRET,
    upload_of,
    upload_token_of,
)
from mediasvc.core.access import Key
from mediasvc.core.archive import Archive
from mediasvc.core.asset import Asset
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import CatalogueUnavailable, StoreFault, StoreFull
from mediasvc.core.event import Event
from mediasvc.core.link import Link
from mediasvc.core.task import Task
from mediasvc.core.upload import Upload, UploadToken

_KEY_BY_SECRET = Prepared(statements.KEY_BY_SECRET)
_KEY = Prepared(statements.KEY)
_BUCKET = Prepared(statements.BUCKET)
_ASSET = Prepared(statements.ASSET)
_ASSET_AT = Prepared(statements.ASSET_AT)
_ASSETS_WITH = Prepared(statements.ASSETS_WITH)
_SOURCE = Prepared(statements.SOURCE, Source)
_SOURCE_AT = Prepared(statements.SOURCE_AT, Source)
_TASKS_OF = Prepared(statements.TASKS_OF)
_LINK = Prepared(statements.LINK)
_BLOB = Prepared(statements.BLOB)
_ARCHIVE = Prepared(ARCHIVE)
_UPLOAD = Prepared(UPLOAD)
_UPLOAD_OF_BLOB = Prepared(UPLOAD_OF_BLOB)
_PROMISED = Prepared(PROMISED)
_UPLOAD_TOKEN_BY_SECRET = Prepared(UPLOAD_TOKEN_BY_SECRET)
_CHECK_WITHIN = 5.0  # seconds


class SqliteCatalogue(CoreReads):
    """Implements `catalogue.interface.Catalogue`. Several processes may have the file open at once."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        announce: Callable[[Sequence[Event]], None] = lambda events: None,
    ) -> None:
        self._path = path
        self._announce = announce
        self._readers = SqliteReader(path)
        super().__init__(self._readers, clock)
        self._outbox = CoreOutbox(self._begin, self._readers, clock)
        self._writer = SqliteWriter(path)
        self._turn = asyncio.Lock()
        self._memory = Memory(self._version)
        self._loop_connection: sqlite3.Connection | None = None

    @property
    def outbox(self) -> CoreOutbox:
        return self._outbox

    @property
    def memory(self) -> Memory:
        return self._memory

    async def start(self) -> None:
        await asyncio.to_thread(bring_up_to_date, self._path)
        with telling():
            # A short wait only: whoever waits here holds up the event loop.
            self._loop_connection = connect(self._path, timeout=0.1)
            self._loop_connection.execute("SELECT 1 FROM bucket").fetchall()

    async def check(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_WITHIN), self._begin() as writer:
                # A real write: only that finds a full disk, or one that has turned read-only.
                await writer.change(sa.update(bucket).values(used_bytes=bucket.c.used_bytes))
        except TimeoutError as error:
            raise CatalogueUnavailable("the catalogue is locked by another process") from error
        except (StoreFull, StoreFault) as error:
            raise CatalogueUnavailable(error.detail) from error

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._readers.close)
        if self._loop_connection is not None:
            self._loop_connection.close()
            self._loop_connection = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[CoreTransaction]:
        async with self._begin() as writer:
            transaction = CoreTransaction(writer, self._clock)
            yield transaction
        self._announce(transaction.events)

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[Writer]:
        """Left normally means committed and on disk, left by an exception means rolled back; nothing between.

        A cancellation that comes while the commit is under way waits until that has ended, and strikes at
        the caller's next step: its bytes must not be thrown away while the row that names them stays.
        """
        # One patience for both waits: else each in the queue would wait for a lock as long as all before it.
        deadline = time.monotonic() + PATIENCE
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turn.acquire()
        except TimeoutError as error:
            raise CatalogueUnavailable("the catalogue is busy, or locked by another process") from error
        try:
            with telling():
                try:
                    self._writer.begin(deadline)
                    yield self._writer
                except BaseException:
                    await settled(asyncio.ensure_future(self._writer.rollback()))
                    raise
        except BaseException:
            self._turn.release()
            raise
        sealing = asyncio.ensure_future(self._seal())
        cancelled = await settled(sealing)
        if cancelled and (caller := asyncio.current_task()) is not None:
            caller.uncancel()
            caller.cancel()
        sealing.result()

    async def _seal(self) -> None:
        try:
            with telling():
                try:
                    await self._writer.commit()
                except BaseException:
                    await self._writer.rollback()
                    raise
        finally:
            self._memory.forget()
            self._turn.release()

    def _version(self) -> int:
        """Another number after each commit of another connection."""
        if self._loop_connection is None:
            raise CatalogueUnavailable("the catalogue is not open")
        try:
            return int(self._loop_connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise told(error) from error

    def _ask(self, question: Prepared, **values: Any) -> list[Any]:
        if self._loop_connection is None:
            raise CatalogueUnavailable("the catalogue is not open")
        try:
            return question.rows(self._loop_connection, **values)
        except sqlite3.Error as error:
            raise told(error) from error

    def _recall(self, question: Prepared, make: Callable[[Any], Any] | None = None, **values: Any) -> Any:
        """The one row, made into a value, or None; from memory while the catalogue has not changed."""
        asked = (question, *values.values())
        if (remembered := self._memory.recall(asked)) is not None:
            return remembered[0]
        found = self._ask(question, **values)
        value = (make(found[0]) if make else found[0]) if found else None
        self._memory.remember(asked, (value,))
        return value

    async def key_by_secret(self, secret_sha256: str) -> Key | None:
        found = self._recall(_KEY_BY_SECRET, rows.key_of, secret_sha256=secret_sha256)
        return found if found and found.live(self._clock()) else None

    async def key(self, key_id: str) -> Key | None:
        found = self._ask(_KEY, key_id=key_id)
        return rows.key_of(found[0]) if found else None

    async def bucket(self, name: str) -> Bucket | None:
        found = self._ask(_BUCKET, name=name)
        return rows.bucket_of(found[0]) if found else None

    async def asset(self, asset_id: str) -> Asset | None:
        found = self._ask(_ASSET, asset_id=asset_id, now=self._clock())
        return rows.assets_of(found)[0] if found else None

    async def asset_at(self, bucket: str, key: str) -> Asset | None:
        found = self._ask(_ASSET_AT, bucket=bucket, key=key, now=self._clock())
        return rows.assets_of(found)[0] if found else None

    async def assets_with(self, sha256: str, size: int, limit: int = 100) -> Sequence[Asset]:
        found = self._ask(_ASSETS_WITH, sha256=sha256, size=size, limit=limit, now=self._clock())
        return rows.assets_of(found)

    async def source(self, asset_id: str, preset: str = "") -> Source | None:
        return self._living(self._recall(_SOURCE, asset_id=asset_id, preset=preset))

    async def source_at(self, bucket: str, key: str) -> Source | None:
        return self._living(self._recall(_SOURCE_AT, bucket=bucket, key=key, preset=""))

    def _living(self, source: Source | None) -> Source | None:
        ends = source.expires_at if source else None
        return source if ends is None or ends > self._clock() else None

    async def link(self, link_id: str) -> Link | None:
        found = self._recall(_LINK, rows.link_of, link_id=link_id)
        return found if found and found.expires_at > self._clock() else None

    async def archive(self, archive_id: str) -> Archive | None:
        found: Archive | None = self._recall(_ARCHIVE, archive_of, archive_id=archive_id)
        return found

    # Not from memory: an offset that another process has moved on is asked for at once, and changes too often.
    async def upload(self, upload_id: str) -> Upload | None:
        found = self._ask(_UPLOAD, upload_id=upload_id)
        return upload_of(found[0]) if found else None

    async def upload_of_blob(self, blob_id: str) -> Upload | None:
        found = self._ask(_UPLOAD_OF_BLOB, blob_id=blob_id)
        return upload_of(found[0]) if found else None

    async def promised(self, asset_id: str) -> Upload | None:
        found = self._ask(_PROMISED, asset_id=asset_id, now=self._clock())
        return upload_of(found[0]) if found else None

    async def upload_token_by_secret(self, secret_sha256: str) -> UploadToken | None:
        found = self._ask(_UPLOAD_TOKEN_BY_SECRET, secret_sha256=secret_sha256, now=self._clock())
        return upload_token_of(found[0]) if found else None

    async def tasks_of(self, asset_id: str) -> Sequence[Task]:
        return [rows.task_of(row) for row in self._ask(_TASKS_OF, asset_id=asset_id)]

    async def blob(self, blob_id: str) -> BlobRecord | None:
        found = self._ask(_BLOB, blob_id=blob_id)
        return rows.record_of(found[0]) if found else None
