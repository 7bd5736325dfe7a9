"""`/v1/uploads`: uploads that can be resumed, in tus 1.0, the IETF draft and plain JSON, all on the same URLs."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response, status
from pydantic import ValidationError

from mediasvc.core.errors import WrongContentType
from mediasvc.ingest import draft, tus
from mediasvc.ingest.direct import SIGNED_SECONDS
from mediasvc.ingest.fields import joined
from mediasvc.web.cursor import decode_cursor, encode_cursor
from mediasvc.web.deps import BaseDep, CallerDep, DeskDep, require
from mediasvc.web.errors import translate_validation
from mediasvc.web.paths import UPLOAD, UPLOADS
from mediasvc.web.problems import problems
from mediasvc.web.resumable import OF_ALL, OF_ONE, UploadsAt
from mediasvc.web.schemas import AssetOut, rfc3339
from mediasvc.web.upload_schemas import (
    PartUrlList,
    PartUrlOut,
    SentPartList,
    SentPartOut,
    UploadIn,
    UploadList,
    UploadOut,
)


async def _uploads(request: Request, desk: DeskDep, caller: CallerDep, base: BaseDep) -> UploadsAt:
    return UploadsAt(request, desk, caller, base, base + UPLOADS)


UploadsDep = Annotated[UploadsAt, Depends(_uploads)]
router = APIRouter(tags=["uploads"])
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CREATION: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {"schema": UploadIn.model_json_schema()},
            tus.BODY_TYPE: _BINARY,
            "*/*": _BINARY,
        }
    }
}
_APPEND: dict[str, Any] = {"requestBody": {"content": {tus.BODY_TYPE: _BINARY, draft.BODY_TYPE: _BINARY}}}


@router.post(
    UPLOADS,
    status_code=status.HTTP_201_CREATED,
    response_model=UploadOut,
    summary="Begin an upload",
    description="`Tus-Resumable` makes it tus 1.0, `Upload-Complete` the IETF draft; a JSON body is answered "
    "with where and how to send the bytes.",
    responses=problems(400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 507),
    openapi_extra=_CREATION,
)
async def begin(request: Request, uploads: UploadsDep) -> Response:
    headers = joined(request.headers.raw)
    if tus.spoken(headers) or draft.spoken(headers):
        return await uploads.serve(None)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WrongContentType("say Tus-Resumable or Upload-Complete, or send JSON (application/json)")
    try:
        wanted = UploadIn.model_validate_json(await request.body())
    except ValidationError as error:
        raise translate_validation(error) from None
    return await uploads.begin_plain(wanted)


@router.options(UPLOADS, include_in_schema=False)
async def describe(uploads: UploadsDep) -> Response:
    return uploads.describe(OF_ALL)


@router.get(
    UPLOADS,
    response_model=UploadList,
    summary="List the uploads that you began",
    responses=problems(400, 401, 403),
)
async def list_uploads(
    uploads: UploadsDep,
    caller: CallerDep,
    desk: DeskDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> UploadList:
    require(caller, "assets:write")
    found = await desk.house.catalogue.uploads(caller.key_id, decode_cursor(cursor), limit + 1)
    page = [await uploads.told(upload) for upload in found[:limit]]
    return UploadList(
        uploads=page, next_cursor=encode_cursor(found[limit - 1].id if len(found) > limit else None)
    )


@router.get(
    UPLOAD,
    response_model=UploadOut,
    summary="How far an upload has come; disturbs nobody",
    responses=problems(401, 403, 404, 410),
)
async def look(upload_id: str, uploads: UploadsDep) -> Response:
    return await uploads.look(upload_id)


async def serve(upload_id: str, uploads: UploadsDep) -> Response:
    return await uploads.serve(upload_id)


_SERVED = problems(400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 429, 507)
router.add_api_route(
    UPLOAD,
    serve,
    methods=["PATCH"],
    status_code=status.HTTP_204_NO_CONTENT,
    operation_id="append_to_upload",
    summary="Append, from the offset on; takes over from whoever is writing",
    description="tus 1.0 and the IETF draft, whose last one is answered with the asset. `HEAD` asks for the offset; "
    "with `X-HTTP-Method-Override` a `POST` is any of these.",
    responses=_SERVED,
    openapi_extra=_APPEND,
)
router.add_api_route(
    UPLOAD,
    serve,
    methods=["DELETE"],
    status_code=status.HTTP_204_NO_CONTENT,
    operation_id="remove_upload",
    summary="Remove an upload; an asset that it has become stays",
    responses=_SERVED,
)
router.add_api_route(UPLOAD, serve, methods=["HEAD", "POST"], include_in_schema=False)


@router.put(
    UPLOAD,
    response_model=UploadOut,
    summary="Send the whole of an upload begun with JSON, in one request",
    responses=problems(400, 401, 403, 404, 409, 410, 413, 415, 422, 507),
    openapi_extra={"requestBody": {"content": {"*/*": _BINARY}}},
)
async def put_whole(upload_id: str, uploads: UploadsDep) -> Response:
    return await uploads.put_whole(upload_id)


@router.post(
    f"{UPLOAD}/parts",
    response_model=PartUrlList,
    summary="Get URLs with which parts of an upload are sent straight to the store",
    description="Where the store has such URLs, and the upload's `size` was told. Each takes exactly the bytes of its "
    "part, for an hour; ask again for one that was not used in time. No append goes on with this upload after that.",
    responses=problems(400, 401, 403, 404, 409, 410, 413),
)
async def sign_parts(
    upload_id: str,
    numbers: Annotated[str, Query(pattern=r"^[0-9]{1,5}(,[0-9]{1,5}){0,999}$", examples=["1,2,3"])],
    uploads: UploadsDep,
    caller: CallerDep,
    desk: DeskDep,
) -> PartUrlList:
    await uploads.let_in(upload_id)
    until = rfc3339(desk.house.records.clock() + SIGNED_SECONDS)
    signed = await uploads.direct.sign(caller, upload_id, [int(number) for number in numbers.split(",")])
    parts = [
        PartUrlOut(number=part.number, url=part.url, offset=part.span[0], size=part.span[1])
        for part in signed
        if part.span
    ]
    return PartUrlList(parts=parts, expires_at=until)


@router.get(
    f"{UPLOAD}/parts",
    response_model=SentPartList,
    summary="List the parts that are in the store",
    responses=problems(401, 403, 404, 409, 410),
)
async def list_parts(upload_id: str, uploads: UploadsDep, caller: CallerDep) -> SentPartList:
    there = await uploads.direct.parts(caller, upload_id)
    parts = [SentPartOut(number=number, size=there[number].size) for number in sorted(there)]
    return SentPartList(parts=parts)


@router.post(
    f"{UPLOAD}/complete",
    response_model=AssetOut,
    summary="Make an asset of the parts in the store",
    description="Size, SHA-256 and type are looked at in the store before anything is to be seen. May be repeated.",
    responses=problems(400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 507),
)
async def complete(upload_id: str, uploads: UploadsDep) -> Response:
    return await uploads.complete_parts(upload_id)


@router.options(UPLOAD, include_in_schema=False)
async def describe_one(uploads: UploadsDep) -> Response:
    return uploads.describe(OF_ONE)
