"""`POST /v1/assets`: a form with any number of files, received as a stream that goes straight to the store."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Query, Request, UploadFile, status
from fastapi.responses import JSONResponse
from starlette.types import Scope

from mediasvc.core.access import Caller
from mediasvc.core.errors import BadRequest, MediasvcError
from mediasvc.core.filenames import name_below
from mediasvc.core.keys import check_bucket_name, normalise_key, normalise_prefix
from mediasvc.core.media_types import essence
from mediasvc.ingest.admission import Wanted
from mediasvc.ingest.receive import Kept
from mediasvc.web.deps import BaseDep, CallerDep, Desk, DeskDep, Said, lifetime_in, require, tags_in
from mediasvc.web.form import Field, Form
from mediasvc.web.observe import upload
from mediasvc.web.problems import problems
from mediasvc.web.schemas import AssetOut, Failure, PartlyUploadedOut, UploadedOut
from mediasvc.web.urls import asset_url

router = APIRouter(tags=["assets"])

# A refused file is read over in the hope of the next one. Of a large form so much is read while nothing was
# stored; a small one costs little in any case.
SKIP_LIMIT = 512 << 10
SMALL_FORM = 8 << 20

_FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "bucket": {
                            "type": "string",
                            "default": "media",
                            "description": "before the first file",
                        },
                        "prefix": {"type": "string", "default": "", "description": "before the first file"},
                        "tags": {
                            "type": "string",
                            "examples": ["summer,2026"],
                            "description": "before the first file",
                        },
                        "expires_in": {
                            "type": "string",
                            "examples": ["30d"],
                            "description": "before the first file",
                        },
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                    "required": ["file"],
                }
            }
        },
    }
}


@dataclass(slots=True)
class _Delivery:
    """One form on its way in: where its files go, and what became of each."""

    scope: Scope
    desk: Desk
    caller: Caller
    said: Said
    bucket: str
    prefix: str
    files: int = 0
    kept: list[Kept] = field(default_factory=list)
    failed: list[tuple[str, MediasvcError]] = field(default_factory=list)

    def take_field(self, part: Field) -> None:
        """Fields we do not know are left alone: browsers send their submit button along."""
        if part.name not in ("bucket", "prefix", "tags", "expires_in"):
            return
        if self.files:
            raise BadRequest(f"the field {part.name} comes before the first file")
        match part.name:
            case "bucket":
                self.bucket = check_bucket_name(part.value)
            case "prefix":
                self.prefix = normalise_prefix(part.value)
            case "tags":
                self.said = replace(self.said, tags=tags_in(part.value))
            case "expires_in":
                self.said = replace(self.said, expires_in=lifetime_in(part.value, "expires_in"))

    async def take_file(self, file: UploadFile, form: Form, chunks: AsyncIterator[bytes]) -> None:
        """Keep one file, or note why not and go on to the next."""
        if self.files == 0:  # foreign bucket, missing scope: not this file's fault alone
            await self.desk.house.doorkeeper.bucket_for_writing(self.caller, self.bucket)
        self.files += 1
        name = name_below(self.prefix, file.filename or "file")
        try:
            with upload("form", self.scope) as outcome:
                kept = await self._keep(file, name, chunks)
                outcome.stored(kept.blob.size)
            self.kept.append(kept)
        except MediasvcError as error:
            if error.status >= 500 or error.code == "bad_body":
                raise  # the store is away or full, or the form itself is broken
            self.failed.append((file.filename or "", error))
            await self._skip(form, chunks, error)

    async def _keep(self, file: UploadFile, name: str, chunks: AsyncIterator[bytes]) -> Kept:
        wanted = Wanted(
            bucket=self.bucket,
            key=normalise_key(self.prefix + name),
            name=name,
            replace=False,
            declared_type=essence(file.content_type),
            tags=self.said.tags,
            metadata=self.said.metadata,
            expires_in=self.said.expires_in,
        )
        house = self.desk.house
        return await house.receiver.keep(await house.doorkeeper.admit(self.caller, wanted), chunks)

    async def _skip(self, form: Form, chunks: AsyncIterator[bytes], error: MediasvcError) -> None:
        """Read over the rest of a refused file. While nothing was stored, a large rest ends the form instead:
        a refused upload must not cost all its bytes."""
        patient = self.said.length is not None and self.said.length <= SMALL_FORM
        async for _ in chunks:
            if form.bytes_read > SKIP_LIMIT and not self.kept and not patient:
                raise error


@router.post(
    "/v1/assets",
    summary="Upload files with a form",
    description="Fields come before the files. A taken key gets `-` and six random characters: a form never "
    "replaces. All files of a form become visible together, at its closing boundary.",
    status_code=status.HTTP_201_CREATED,
    response_model=UploadedOut,
    responses={
        207: {"model": PartlyUploadedOut, "description": "Some files were stored, some refused"},
        **problems(400, 401, 403, 404, 409, 413, 415, 507),
    },
    openapi_extra=_FORM_BODY,
)
async def upload_form(
    request: Request,
    caller: CallerDep,
    desk: DeskDep,
    base: BaseDep,
    bell: BackgroundTasks,
    bucket: str | None = Query(None, description="instead of the field"),
    prefix: str | None = Query(None, description="instead of the field"),
) -> JSONResponse:
    if bucket is not None:
        await desk.house.doorkeeper.bucket_for_writing(caller, check_bucket_name(bucket))
    require(caller, "assets:write")
    form = Form(request)
    said, below = Said.by(request), normalise_prefix(prefix or "")
    delivery = _Delivery(request.scope, desk, caller, said, bucket or "media", below)
    try:
        async for part in form.parts():
            if isinstance(part, Field):
                delivery.take_field(part)
            elif part.filename or await part.has_content():  # a file input left alone sends an empty part
                await delivery.take_file(part, form, part.chunks())
        if delivery.failed and not delivery.kept:
            raise delivery.failed[0][1]
        if not delivery.files:
            raise BadRequest("the form holds no file; curl -F file=@photo.jpg sends one")
    except BaseException:
        await desk.house.receiver.abandon(delivery.kept)
        raise
    received = await desk.house.receiver.commit(delivery.kept)
    bell.add_task(desk.ring_bell)
    body: dict[str, Any] = {
        "assets": [AssetOut.of(item.asset, base, with_gps=True).model_dump() for item in received]
    }
    if delivery.failed:
        body["failed"] = [
            Failure(filename=name, status=error.status, code=error.code, detail=error.detail).model_dump()
            for name, error in delivery.failed
        ]
        return JSONResponse(body, status.HTTP_207_MULTI_STATUS, background=bell)
    location = {"Location": asset_url(base, received[0].asset)} if len(received) == 1 else {}
    return JSONResponse(body, status.HTTP_201_CREATED, location, background=bell)
