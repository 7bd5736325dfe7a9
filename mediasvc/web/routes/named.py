"""`/b/{bucket}/{key}`: one URL for one asset, as HTTP means it. GET and HEAD are answered by web/download.py."""

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response, status
from fastapi.responses import JSONResponse

from mediasvc.catalogue.interface import Gone
from mediasvc.core.conditions import check_write
from mediasvc.core.errors import BadKey, BadRequest
from mediasvc.core.filenames import safe_name
from mediasvc.core.keys import decode_path, normalise_key
from mediasvc.ingest import draft
from mediasvc.ingest.admission import Admission, Wanted
from mediasvc.ingest.receive import Received
from mediasvc.web.deps import (
    BaseDep,
    CallerDep,
    Desk,
    DeskDep,
    Said,
    admit,
    body_sha256,
    named_asset,
    not_found,
    require,
)
from mediasvc.web.observe import refusals_are_counted, upload
from mediasvc.web.paths import DROPPED, NAMED, UPLOADS
from mediasvc.web.problems import problems
from mediasvc.web.resumable import UploadsAt
from mediasvc.web.schemas import AssetOut
from mediasvc.web.urls import asset_url
from mediasvc.web.wanted import new_key

router = APIRouter(tags=["bytes"])
_RAW_BODY = {
    "requestBody": {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
}


# Solved before the first body byte, because the routes below take no body parameter.


async def _named(request: Request) -> Wanted:
    bucket, key = named_asset(request)
    if "content-range" in request.headers:  # RFC 9110, section 14.5: a part must not be taken for the whole
        raise BadRequest("a part of an asset cannot be PUT: send all of it, without Content-Range")
    return _wanted(request, bucket, key, safe_name(key.rpartition("/")[2]), replace=True)


async def _admit_dropped(request: Request, caller: CallerDep, desk: DeskDep) -> Admission:
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    key, name = new_key(caller, _lenient(raw.removeprefix(b"/u/")))
    return await admit(
        request, caller, desk, _wanted(request, "media", normalise_key(key), name, replace=False)
    )


def _wanted(request: Request, bucket: str, key: str, name: str, *, replace: bool) -> Wanted:
    """What a raw body's head asks for, under that name."""
    said, headers = Said.by(request), request.headers
    return Wanted(
        bucket=bucket,
        key=key,
        name=name,
        replace=replace,
        declared_type=said.declared_type,
        length=said.length,
        # Of a draft's digests one may be of this body alone: the dialect tells them apart.
        sha256=None if draft.spoken(request.headers) else body_sha256(request),
        tags=said.tags,
        metadata=said.metadata,
        expires_in=said.expires_in,
        if_match=headers.get("if-match"),
        if_none_match=headers.get("if-none-match"),
        if_unmodified_since=headers.get("if-unmodified-since"),
    )


def _lenient(raw: bytes) -> str:
    """A file name never fails an upload: what is no UTF-8 is Latin-1."""
    try:
        return decode_path(raw)
    except BadKey:
        return unquote_to_bytes(raw).decode("latin-1")


async def _receive(door: str, request: Request, desk: Desk, admission: Admission) -> Received:
    with upload(door, request.scope) as outcome:
        received = await desk.house.receiver.receive(admission, request.stream())
        outcome.stored(received.asset.blob.size)
    return received


@router.put(
    NAMED,
    summary="Store an asset under a key of your choice",
    description="Creates (201) or replaces (200) the asset. `If-None-Match: *` creates only, `If-Match` replaces only "
    "that version. `X-Checksum-Sha256`, `Content-Digest` or `Repr-Digest` is verified; `X-Meta-*`, `X-Tags` and "
    "`X-Expires-In` are kept. With `Upload-Complete` the upload can be resumed, as at `/v1/uploads` (IETF draft).",
    response_model=AssetOut,
    status_code=status.HTTP_201_CREATED,
    responses={
        200: {"model": AssetOut, "description": "Replaced"},
        **problems(400, 401, 403, 404, 412, 413, 415, 422, 507),
    },
    openapi_extra=_RAW_BODY,
)
async def put_named(
    request: Request,
    caller: CallerDep,
    wanted: Annotated[Wanted, Depends(_named)],
    desk: DeskDep,
    base: BaseDep,
    bell: BackgroundTasks,
) -> Response:
    if draft.spoken(request.headers):  # it admits by itself, and tells refusals in its own words
        refusals_are_counted(request.scope)
        return await UploadsAt(request, desk, caller, base, base + UPLOADS).serve(None, named=wanted)
    admission = await admit(request, caller, desk, wanted)
    received = await _receive("put", request, desk, admission)
    bell.add_task(desk.ring_bell)
    asset = received.asset
    answer = JSONResponse(
        AssetOut.of(asset, base, with_gps=True).model_dump(),
        status_code=status.HTTP_201_CREATED if received.created else status.HTTP_200_OK,
        headers={"ETag": asset.etag},
        background=bell,
    )
    answer.headers["Location" if received.created else "Content-Location"] = asset_url(base, asset)
    return answer


@router.delete(
    NAMED,
    summary="Delete the asset under a key",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(400, 401, 403, 404, 412),
)
async def delete_named(request: Request, caller: CallerDep, desk: DeskDep, bell: BackgroundTasks) -> Response:
    bucket, key = named_asset(request)
    if not caller.sees(bucket, key):
        raise not_found("asset")
    require(caller, "assets:delete")
    headers = request.headers
    try:
        async with desk.house.catalogue.transaction() as tx:
            current = await tx.asset_at(bucket, key)
            if current and current.expired(desk.house.records.clock()):
                current = None
            check_write(
                current.etag if current else None,
                if_match=headers.get("if-match"),
                if_none_match=headers.get("if-none-match"),
                if_unmodified_since=headers.get("if-unmodified-since"),
                last_modified=current.modified_at if current else None,
            )
            if current is None:
                raise not_found("asset")
            await tx.delete_asset(current.id)
    except Gone:
        raise not_found("asset") from None
    bell.add_task(desk.ring_bell)
    return Response(status_code=status.HTTP_204_NO_CONTENT, background=bell)


@router.put(
    DROPPED,
    summary="Drop box: store a file in bucket `media`, the key is made for you",
    description="Answers the delivery URL as plain text, or JSON for `Accept: application/json`.",
    status_code=status.HTTP_201_CREATED,
    response_model=AssetOut,
    responses={
        201: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(400, 401, 403, 404, 413, 415, 422, 507),
    },
    openapi_extra=_RAW_BODY,
)
async def put_dropped(
    request: Request,
    admission: Annotated[Admission, Depends(_admit_dropped)],
    desk: DeskDep,
    base: BaseDep,
    bell: BackgroundTasks,
) -> Response:
    received = await _receive("dropbox", request, desk, admission)
    bell.add_task(desk.ring_bell)
    asset = received.asset
    headers = {"ETag": asset.etag, "Location": asset_url(base, asset)}
    if wants_json(request.headers.get("accept", "*/*")):
        body = AssetOut.of(asset, base, with_gps=True).model_dump()
        return JSONResponse(body, status.HTTP_201_CREATED, headers, background=bell)
    text = asset_url(base, asset) + "\n"
    return Response(text, status.HTTP_201_CREATED, headers, media_type="text/plain", background=bell)


def wants_json(accept: str) -> bool:
    """Whether JSON is named and plain text is not: curl's `*/*` gets text."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "application/json" in kinds and "text/plain" not in kinds
