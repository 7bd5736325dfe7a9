"""Buckets and their policies."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import JSONResponse

from mediasvc.catalogue.interface import Gone
from mediasvc.core.access import Caller
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import BadRequest, NotFound
from mediasvc.core.keys import check_bucket_name
from mediasvc.web.admin_schemas import BucketIn, BucketList, BucketOut, BucketPolicy
from mediasvc.web.cursor import decode_cursor, encode_cursor
from mediasvc.web.deps import CallerDep, DeskDep, require
from mediasvc.web.problems import problems

router = APIRouter(prefix="/v1/buckets", tags=["buckets"])


def _may_manage(caller: Caller, name: str) -> None:
    """A key narrowed to one bucket manages that one; one narrowed to a prefix none."""
    if not caller.sees_bucket(name) or caller.prefix:
        raise NotFound(f"there is no bucket {name[:64]!r}")
    require(caller, "buckets:admin")


def _changes(policy: BucketPolicy) -> dict[str, Any]:
    """The fields that were sent. Raises BadRequest for those whose effect is not built yet."""
    sent = policy.model_dump(exclude_unset=True, exclude={"name"})
    if sent.pop("presets", None) is not None:
        raise BadRequest("presets are not built yet: leave them out")
    if sent.pop("metadata_policy", None) not in (None, "keep"):
        raise BadRequest("metadata_policy other than keep is not built yet: leave it out")
    for name in ("public", "allowed_types", "cors_origins"):  # null means the default
        if name in sent and sent[name] is None:
            sent[name] = getattr(Bucket("default", 0.0), name)
    return sent


@router.get("", response_model=BucketList, summary="List buckets", responses=problems(400, 401, 403))
async def list_buckets(
    caller: CallerDep,
    desk: DeskDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> BucketList:
    require(caller, "buckets:admin")
    page = await desk.house.catalogue.buckets(decode_cursor(cursor), limit + 1)
    shown, more = page[:limit], len(page) > limit
    return BucketList(
        buckets=[BucketOut.of(bucket) for bucket in shown if caller.sees_bucket(bucket.name)],
        next_cursor=encode_cursor(shown[-1].name) if more else None,
    )


@router.post(
    "",
    response_model=BucketOut,
    status_code=status.HTTP_201_CREATED,
    summary="Make a bucket",
    responses=problems(400, 401, 403, 404, 409, 422),
)
async def create_bucket(wanted: BucketIn, caller: CallerDep, desk: DeskDep) -> JSONResponse:
    require(caller, "buckets:admin")
    _may_manage(caller, check_bucket_name(wanted.name))
    bucket = Bucket(wanted.name, desk.house.records.clock(), **_changes(wanted))
    async with desk.house.catalogue.transaction() as tx:
        await tx.add_bucket(bucket)
    return JSONResponse(BucketOut.of(bucket).model_dump(), status.HTTP_201_CREATED)


@router.get("/{name}", response_model=BucketOut, summary="One bucket", responses=problems(401, 403, 404))
async def get_bucket(name: str, caller: CallerDep, desk: DeskDep) -> BucketOut:
    _may_manage(caller, name)
    bucket = await desk.house.catalogue.bucket(name)
    if bucket is None:
        raise NotFound(f"there is no bucket {name[:64]!r}")
    return BucketOut.of(bucket)


@router.patch(
    "/{name}",
    response_model=BucketOut,
    summary="Change a bucket's policy",
    responses=problems(400, 401, 403, 404, 422),
)
async def patch_bucket(name: str, policy: BucketPolicy, caller: CallerDep, desk: DeskDep) -> BucketOut:
    _may_manage(caller, name)
    async with desk.house.catalogue.transaction() as tx:
        bucket = await tx.bucket(name)
        if bucket is None:
            raise NotFound(f"there is no bucket {name[:64]!r}")
        bucket = replace(bucket, **_changes(policy))
        await tx.save_bucket(bucket)
    return BucketOut.of(bucket)


@router.delete(
    "/{name}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete an empty bucket",
    responses=problems(401, 403, 404, 409),
)
async def delete_bucket(name: str, caller: CallerDep, desk: DeskDep) -> Response:
    _may_manage(caller, name)
    try:
        async with desk.house.catalogue.transaction() as tx:
            await tx.delete_bucket(name)
    except Gone:
        raise NotFound(f"there is no bucket {name[:64]!r}") from None
    return Response(status_code=status.HTTP_204_NO_CONTENT)
