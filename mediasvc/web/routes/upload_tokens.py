"""Upload tokens: browsers without a key upload with them, through `/t/{token}/tus`, and do nothing else."""

from fastapi import APIRouter, Request, Response, status
from fastapi.responses import JSONResponse, RedirectResponse

from mediasvc.bootstrap import sha256_of
from mediasvc.catalogue.interface import Gone
from mediasvc.core.errors import BadBody, NotFound, TooLarge
from mediasvc.core.ids import new_upload_token_id, new_upload_token_secret
from mediasvc.core.keys import check_bucket_name, normalise_prefix
from mediasvc.core.upload import UploadToken
from mediasvc.web.bearer import TokenDep, caller_of, check_unused
from mediasvc.web.deps import BaseDep, CallerDep, DeskDep, key_ends_at
from mediasvc.web.form import Form, IncomingFile
from mediasvc.web.preflight import Welcome, is_preflight
from mediasvc.web.problems import problems
from mediasvc.web.resumable import UploadsAt, count_stored
from mediasvc.web.upload_schemas import UploadTokenIn, UploadTokenOut
from mediasvc.web.urls import named_asset_url

router = APIRouter(tags=["uploads"])
BEGUN_AT = "/t/{token}/tus"
ONE = f"{BEGUN_AT}/{{upload_id}}"
FORM = f"{ONE}/form"
ENVELOPE = 1 << 20  # bytes of a form around its file, at most: fields have 64 KiB each


@router.post(
    "/v1/upload-tokens",
    response_model=UploadTokenOut,
    status_code=status.HTTP_201_CREATED,
    summary="Let somebody without a key upload: make a token, which is shown this once",
    description="Needs `assets:write`. `tus_url` takes tus 1.0; `companion_url` is what `@uppy/aws-s3` calls its "
    "companion, where the store has presigned URLs. Uploads with a token never replace an asset: a key that is taken "
    "is 412. A token ends with the key that made it, and is told apart by nothing but its URL: 403 once it is over.",
    responses=problems(400, 401, 403, 404, 422),
)
async def create_token(
    wanted: UploadTokenIn, caller: CallerDep, desk: DeskDep, base: BaseDep
) -> JSONResponse:
    bucket, prefix = check_bucket_name(wanted.bucket), normalise_prefix(wanted.prefix) or caller.prefix
    await desk.house.doorkeeper.bucket_for_writing(caller, bucket)
    if not prefix.startswith(caller.prefix):
        raise NotFound(f"the key reaches nothing under {prefix!r}")
    now, secret = desk.house.records.clock(), new_upload_token_secret()
    ends = [now + wanted.expires_in, await key_ends_at(desk, caller)]
    sizes = [size for size in (wanted.max_size, caller.max_asset_size) if size is not None]
    token = UploadToken(
        id=new_upload_token_id(),
        secret_sha256=sha256_of(secret),
        owner=caller.key_id or "",
        bucket=bucket,
        prefix=prefix,
        created_at=now,
        expires_at=min(end for end in ends if end is not None),
        max_size=min(sizes, default=None),
        max_count=wanted.max_count,
        allowed_types=wanted.allowed_types,
    )
    try:
        async with desk.house.catalogue.transaction() as tx:
            await tx.add_upload_token(token)
    except Gone:
        raise NotFound(f"there is no bucket {bucket!r}") from None
    told = UploadTokenOut.of(token, secret, base, companion=desk.house.store.presigned is not None)
    return JSONResponse(told.model_dump(), status.HTTP_201_CREATED, {"Cache-Control": "no-store"})


def uploads_with(request: Request, desk: DeskDep, base: str, token: UploadToken) -> UploadsAt:
    """Where uploads of the token are taken. Its secret is the one part of the path that we do not know otherwise."""
    url = f"{base}/t/{request.path_params['token']}/tus"
    return UploadsAt(request, desk, caller_of(token), base, url, token)


@router.post(BEGUN_AT, include_in_schema=False)
async def begin(request: Request, token: TokenDep, desk: DeskDep, base: BaseDep) -> Response:
    check_unused(token)
    return await uploads_with(request, desk, base, token).serve(None)


@router.options(BEGUN_AT, include_in_schema=False)
async def describe(request: Request, token: TokenDep, desk: DeskDep, base: BaseDep) -> Response:
    return uploads_with(request, desk, base, token).describe("OPTIONS, POST")


@router.api_route(ONE, methods=["HEAD", "PATCH", "DELETE", "POST"], include_in_schema=False)
async def serve(upload_id: str, request: Request, token: TokenDep, desk: DeskDep, base: BaseDep) -> Response:
    return await uploads_with(request, desk, base, token).serve(upload_id)


@router.options(ONE, include_in_schema=False)
async def describe_one(request: Request, token: TokenDep, desk: DeskDep, base: BaseDep) -> Response:
    return uploads_with(request, desk, base, token).describe("DELETE, HEAD, OPTIONS, PATCH, POST")


@router.get(FORM + "/{key:path}", include_in_schema=False)
async def where_it_is(
    upload_id: str, request: Request, token: TokenDep, desk: DeskDep, base: BaseDep
) -> RedirectResponse:
    """What Uppy takes for the file's URL: where its form went, and the key. It leads to the asset, which it does not
    open: who may not read that is told so there."""
    upload = (await desk.house.resumer.look(caller_of(token), upload_id)).upload
    return RedirectResponse(named_asset_url(base, upload.asset_id, upload.name), status.HTTP_303_SEE_OTHER)


@router.post(FORM, include_in_schema=False)
async def post_form(
    upload_id: str, request: Request, token: TokenDep, desk: DeskDep, base: BaseDep
) -> Response:
    """The whole upload as the file of a form: what `@uppy/aws-s3` does with files that are not large. It may be sent
    again as long as no answer came."""
    uploads = uploads_with(request, desk, base, token)
    upload = (await desk.house.resumer.look(uploads.caller, upload_id)).upload
    declared = int(request.headers.get("content-length", 0))
    if upload.limit is not None and declared > upload.limit + ENVELOPE:
        raise TooLarge(
            f"the upload may have {upload.limit} bytes", limit=upload.limit, limit_source=upload.limit_source
        )
    if is_preflight(request.scope):
        raise Welcome
    outcome = None
    async for part in Form(request).parts():
        if isinstance(part, IncomingFile) and outcome is None:
            outcome = await uploads.direct.put_whole(uploads.caller, upload_id, part.chunks())
    if outcome is None:
        raise BadBody("the form has no file")
    desk.ring()
    assert outcome.received is not None
    asset = outcome.received.asset
    count_stored("companion", asset)
    where = named_asset_url(base, upload.asset_id, upload.name)
    headers = {"ETag": asset.etag, "Content-Location": where}
    told = {"location": where, "key": asset.key, "bucket": asset.bucket}
    return JSONResponse(told, status.HTTP_201_CREATED, headers)
