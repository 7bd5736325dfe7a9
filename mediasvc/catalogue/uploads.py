"""Uploads and upload tokens, once for every adapter: who holds one, how far it has come, and when it is over."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from mediasvc.catalogue.interface import Gone
from mediasvc.catalogue.statements import Reader, now
from mediasvc.catalogue.tables import bucket, under_way, upload, upload_token
from mediasvc.catalogue.writes import Writes
from mediasvc.core.errors import OffsetMismatch, Superseded
from mediasvc.core.upload import Upload, UploadToken

_FIELDS = [column.name for column in upload.c]
_TOKEN_FIELDS = [column.name for column in upload_token.c]
_SAVED = ("offset", "length", "notes", "unverified", "expires_at", "state", "detail", "created", "wanted")

UPLOAD = sa.select(upload).where(upload.c.id == sa.bindparam("upload_id"))
UPLOAD_OF_BLOB = sa.select(upload).where(upload.c.blob_id == sa.bindparam("blob_id"), under_way)
PROMISED = (
    sa.select(upload)
    .where(
        upload.c.asset_id == sa.bindparam("asset_id"),
        under_way,
        sa.or_(upload.c.state == sa.literal_column("'completing'"), upload.c.expires_at > now),
    )
    .order_by(upload.c.id.desc())
    .limit(1)
)
UPLOAD_TOKEN_BY_SECRET = sa.select(upload_token).where(
    upload_token.c.secret_sha256 == sa.bindparam("secret_sha256"), upload_token.c.expires_at > now
)
# The fence is this one condition: who was overtaken, here or in another process, finds no row to write to.
_SAVE = (
    sa.update(upload)
    .where(
        upload.c.id == sa.bindparam("upload_id"),
        upload.c.epoch == sa.bindparam("at_epoch"),
        upload.c.offset == sa.bindparam("at_offset"),
        under_way,
    )
    .values({name: sa.bindparam(f"new_{name}", type_=upload.c[name].type) for name in _SAVED})
)


def upload_of(row: Any) -> Upload:
    return Upload(**{**dict(zip(_FIELDS, row, strict=True)), "parts": tuple(row.parts)})


def upload_token_of(row: Any) -> UploadToken:
    values = dict(zip(_TOKEN_FIELDS, row, strict=True))
    return UploadToken(**{**values, "allowed_types": tuple(row.allowed_types)})


def _columns(value: Upload | UploadToken, names: Sequence[str]) -> dict[str, Any]:
    return {name: _plain(getattr(value, name)) for name in names}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


class UploadReads:
    """The part of `catalogue.interface.Catalogue` about uploads that reads many rows."""

    _reader: Reader

    async def uploads(
        self, owner: str | None, after: str | None = None, limit: int = 1000
    ) -> Sequence[Upload]:
        return await self._page([] if owner is None else [upload.c.owner == owner], after, limit)

    async def completing_uploads(self, after: str | None = None, limit: int = 1000) -> Sequence[Upload]:
        return await self._page([upload.c.state == "completing"], after, limit)

    async def _page(
        self, chosen: Sequence[sa.ColumnElement[bool]], after: str | None, limit: int
    ) -> Sequence[Upload]:
        found = sa.select(upload).where(upload.c.id > (after or ""), *chosen).order_by(upload.c.id)
        return [upload_of(row) for row in await self._reader.rows(found.limit(limit))]

    async def stale_uploads(self, now: float, limit: int) -> Sequence[str]:
        return await self._over(upload, now, limit)

    async def upload_tokens_over(self, now: float, limit: int) -> Sequence[str]:
        return await self._over(upload_token, now, limit)

    async def _over(self, table: sa.Table, now: float, limit: int) -> Sequence[str]:
        over = sa.select(table.c.id).where(table.c.expires_at <= now).order_by(table.c.expires_at)
        return [row.id for row in await self._reader.rows(over.limit(limit))]


class UploadWrites(Writes):
    """The part of `catalogue.interface.Transaction` about uploads."""

    async def add_upload(self, new: Upload) -> None:
        if new.bucket:
            await self._hold(new.bucket)
        await self._insert(upload, _columns(new, _FIELDS), f"upload {new.id} or its blob is already known")

    async def upload(self, upload_id: str) -> Upload | None:
        found = await self._writer.rows(UPLOAD.params(upload_id=upload_id))
        return upload_of(found[0]) if found else None

    async def claim_upload(self, upload_id: str, *, run: str, epoch: int) -> Upload:
        claimed = (
            sa.update(upload)
            .where(upload.c.id == upload_id, upload.c.epoch == epoch, under_way)
            .values(epoch=upload.c.epoch + 1, run=run)
            .returning(*upload.c)
        )
        if not (found := await self._writer.rows(claimed)):
            raise Gone(f"upload {upload_id} is over, or somebody else took it over")
        return upload_of(found[0])

    async def save_upload(self, changed: Upload, *, at_offset: int, epoch: int) -> None:
        if changed.offset < at_offset:
            raise ValueError(
                f"upload {changed.id} is at byte {at_offset}, and cannot go back to {changed.offset}"
            )
        values = {f"new_{name}": value for name, value in _columns(changed, _SAVED).items()}
        values |= {"upload_id": changed.id, "at_epoch": epoch, "at_offset": at_offset}
        if await self._writer.change(_SAVE, [values]) != 1:
            raise await self._refusal(changed.id, epoch, at_offset)

    async def end_upload(
        self,
        upload_id: str,
        *,
        epoch: int,
        state: Literal["complete", "failed"],
        detail: str = "",
        created: bool = True,
        expires_at: float,
    ) -> None:
        ended = (
            sa.update(upload)
            .where(upload.c.id == upload_id, upload.c.epoch == epoch, under_way)
            .values(state=state, detail=detail, created=created, expires_at=expires_at)
        )
        if await self._writer.change(ended) != 1:
            raise await self._refusal(upload_id, epoch)

    async def drop_uploads(self, upload_ids: Sequence[str]) -> int:
        return await self._writer.change(sa.delete(upload).where(upload.c.id.in_(upload_ids)))

    async def open_upload_count(self, owner: str) -> int:
        counted = sa.select(sa.func.count()).select_from(upload).where(upload.c.owner == owner, under_way)
        return int((await self._writer.rows(counted))[0][0])

    async def add_upload_token(self, new: UploadToken) -> None:
        await self._hold(new.bucket)
        await self._insert(
            upload_token, _columns(new, _TOKEN_FIELDS), f"upload token {new.id} is already known"
        )

    async def use_upload_token(self, token_id: str, now: float) -> None:
        # One statement: of two uploads that want the last use, one gets it.
        unused = sa.or_(upload_token.c.max_count.is_(None), upload_token.c.used < upload_token.c.max_count)
        used = (
            sa.update(upload_token)
            .where(upload_token.c.id == token_id, upload_token.c.expires_at > now, unused)
            .values(used=upload_token.c.used + 1)
        )
        if await self._writer.change(used) != 1:
            raise Gone(f"upload token {token_id} is used up or over")

    async def drop_upload_tokens(self, token_ids: Sequence[str]) -> int:
        return await self._writer.change(sa.delete(upload_token).where(upload_token.c.id.in_(token_ids)))

    async def _uploading_into(self, name: str) -> bool:
        going = sa.select(upload.c.id).where(upload.c.bucket == name, under_way)
        return bool(await self._writer.rows(going.limit(1)))

    async def _drop_tokens_of(self, name: str) -> None:
        await self._writer.change(sa.delete(upload_token).where(upload_token.c.bucket == name))

    async def _hold(self, name: str) -> None:
        if not await self._writer.rows(sa.select(bucket.c.name).where(bucket.c.name == name)):
            raise Gone(f"bucket {name} is gone")

    async def _refusal(self, upload_id: str, epoch: int, at_offset: int | None = None) -> Exception:
        """Why no row was written."""
        there = await self.upload(upload_id)
        if there is not None and there.epoch != epoch:
            return Superseded(f"a newer request took upload {upload_id} over")
        if there is None or there.state not in ("open", "completing"):
            return Gone(f"upload {upload_id} is over")
        if at_offset is not None and there.offset != at_offset:
            detail = f"upload {upload_id} is at byte {there.offset}, not {at_offset}"
            return OffsetMismatch(detail, offset=there.offset, provided=at_offset)
        return Gone(f"upload {upload_id} changed while it was written")
