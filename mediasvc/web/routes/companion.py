"""`/t/{token}/s3`: what `@uppy/aws-s3` asks its companion, so that browsers send parts straight to the store.

A file in parts goes to the store and is complete when the client says so. A file in one request is never told to be
complete: nothing is called after it. So its form is posted to us, and the answer means an asset that is durable; posted
to the store it would wait for somebody to look, and be lost to who does not. Uppy takes parts above 100 MB, or always
(`shouldUseMultipart`). How large a part will be the client does not say, so its size cannot be signed: what was sent is
counted each time a URL is asked for.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from mediasvc.core.errors import BadRequest, NotFound
from mediasvc.ingest.commands import Begin
from mediasvc.ingest.direct import MOST_PARTS, SIGNED_SECONDS
from mediasvc.ingest.possession import Outcome
from mediasvc.web.bearer import TokenDep, check_unused
from mediasvc.web.deps import BaseDep, Desk, DeskDep
from mediasvc.web.resumable import UploadsAt, count_stored
from mediasvc.web.routes.upload_tokens import uploads_with
from mediasvc.web.urls import asset_url
from mediasvc.web.wanted import narrowed, wanted_by

_FRESH = {"Cache-Control": "no-store"}


async def _where(request: Request, token: TokenDep, desk: DeskDep, base: BaseDep) -> UploadsAt:
    """The token's uploads. Raises NotFound where the store has no presigned URLs."""
    if desk.house.store.presigned is None:
        raise NotFound("this store takes no parts from clients: use the token's tus_url")
    return uploads_with(request, desk, base, token)


UploadsDep = Annotated[UploadsAt, Depends(_where)]
router = APIRouter(prefix="/t/{token}/s3", tags=["uploads"], include_in_schema=False)


class _Wanted(BaseModel):
    """Uppy sends what its user has put into the file's metadata, of any type."""

    model_config = ConfigDict(extra="ignore")
    filename: Annotated[str, Field(max_length=4096)] = ""
    type: Annotated[str | None, Field(max_length=255)] = None
    metadata: Annotated[dict[str, Any] | None, Field(max_length=1000)] = None


class _Part(BaseModel):
    number: Annotated[int, Field(alias="PartNumber", ge=1, le=MOST_PARTS)]
    etag: Annotated[str, Field(alias="ETag", max_length=1024)]


class _Parts(BaseModel):
    parts: Annotated[list[_Part], Field(min_length=1, max_length=MOST_PARTS)]


@router.get("/params")
async def one_request(
    request: Request, uploads: UploadsDep, desk: DeskDep, filename: str = "", type: str = ""
) -> JSONResponse:
    """A form to post, to ourselves."""
    said = request.query_params
    metadata = {name[9:-1]: value for name, value in said.items() if name.startswith("metadata[")}
    outcome = await _begin(uploads, desk, filename, type, metadata)
    upload = outcome.upload
    told = {
        "method": "POST",
        "url": f"{uploads.url}/{upload.id}/form",
        "fields": {"key": upload.key},
        "expires": SIGNED_SECONDS,
    }
    return JSONResponse(told, headers=_FRESH)


@router.post("/multipart")
async def begin(wanted: _Wanted, uploads: UploadsDep, desk: DeskDep) -> JSONResponse:
    metadata = {name: str(value) for name, value in (wanted.metadata or {}).items() if value is not None}
    outcome = await _begin(uploads, desk, wanted.filename, wanted.type or "", metadata)
    upload = outcome.upload
    told = {"key": upload.key, "uploadId": upload.id, "bucket": upload.bucket}
    return JSONResponse(told, headers=_FRESH)


async def _begin(
    uploads: UploadsAt, desk: Desk, filename: str, media_type: str, metadata: Mapping[str, str]
) -> Outcome:
    assert uploads.token is not None
    check_unused(uploads.token)
    names = {**metadata, "filename": filename, "filetype": media_type}
    command = Begin(None, names=names)
    wanted = narrowed(wanted_by(uploads.request, uploads.caller, names), uploads.token)
    admission = await desk.house.resumer.admit(uploads.caller, command, wanted)
    return await uploads.direct.create(uploads.caller, command, admission)


@router.get("/multipart/{upload_id}/batch")
async def sign_parts(
    upload_id: str,
    uploads: UploadsDep,
    numbers: Annotated[str, Query(alias="partNumbers", max_length=60_000)],
) -> JSONResponse:
    signed = await uploads.direct.sign(uploads.caller, upload_id, _numbers(numbers))
    return JSONResponse({"presignedUrls": {part.number: part.url for part in signed}}, headers=_FRESH)


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() and len(number) <= 5 for number in numbers):
        raise BadRequest("partNumbers is a list of numbers, with commas between them")
    return [int(number) for number in numbers]


@router.get("/multipart/{upload_id}/{number}")
async def sign_part(upload_id: str, number: int, uploads: UploadsDep) -> JSONResponse:
    (part,) = await uploads.direct.sign(uploads.caller, upload_id, [number])
    return JSONResponse({"url": part.url, "expires": SIGNED_SECONDS}, headers=_FRESH)


@router.get("/multipart/{upload_id}")
async def list_parts(upload_id: str, uploads: UploadsDep) -> JSONResponse:
    there = await uploads.direct.parts(uploads.caller, upload_id)
    told = [{"PartNumber": number, "ETag": part.etag, "Size": part.size} for number, part in there.items()]
    return JSONResponse(told, headers=_FRESH)


@router.post("/multipart/{upload_id}/complete")
async def complete(upload_id: str, sent: _Parts, uploads: UploadsDep, desk: DeskDep) -> JSONResponse:
    told = [(part.number, part.etag) for part in sent.parts]
    outcome = await uploads.direct.complete(uploads.caller, upload_id, told)
    desk.ring()
    assert outcome.received is not None
    asset = outcome.received.asset
    count_stored("companion", asset)
    where = asset_url(uploads.base, asset)
    return JSONResponse(
        {"location": where, "key": asset.key, "bucket": asset.bucket},
        headers=_FRESH | {"Content-Location": where},
    )


@router.delete("/multipart/{upload_id}")
async def abort(upload_id: str, uploads: UploadsDep, desk: DeskDep) -> JSONResponse:
    await desk.house.resumer.discard(uploads.caller, upload_id)
    return JSONResponse({})
