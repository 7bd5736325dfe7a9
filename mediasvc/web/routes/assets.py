"""Assets as JSON: list, look, change, delete, ask what is there, follow the work."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Query, Response, status

from mediasvc.catalogue.interface import AssetQuery, Gone
from mediasvc.core.access import Caller
from mediasvc.core.asset import Asset
from mediasvc.core.errors import BadRequest, NotFound, Unauthorised
from mediasvc.core.filenames import safe_name
from mediasvc.core.ids import well_formed
from mediasvc.core.keys import normalise_key, normalise_prefix
from mediasvc.web.cursor import decode_cursor, encode_cursor
from mediasvc.web.deps import BaseDep, CallerDep, Desk, DeskDep, require, visible_asset
from mediasvc.web.openapi import OPEN_IN_PUBLIC
from mediasvc.web.problems import problems
from mediasvc.web.schemas import (
    AssetList,
    AssetOut,
    AssetPatch,
    CheckIn,
    CheckItem,
    CheckOut,
    Presence,
    TaskOut,
    Timeline,
)

router = APIRouter(prefix="/v1/assets", tags=["assets"])


@router.get(
    "",
    response_model=AssetList,
    summary="List a bucket's assets by key",
    responses=problems(400, 401, 403, 404),
)
async def list_assets(
    caller: CallerDep,
    desk: DeskDep,
    base: BaseDep,
    bucket: str = "media",
    prefix: str = "",
    delimiter: Annotated[
        str | None, Query(min_length=1, max_length=16, description="folds keys, as S3 does")
    ] = None,
    tag: str | None = None,
    media_type: Annotated[str | None, Query(examples=["image/*"])] = None,
    order: Annotated[Literal["key", "newest"], Query(description="`newest` first; it folds nothing")] = "key",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> AssetList:
    if order == "newest" and delimiter:
        raise BadRequest("a delimiter folds keys in order of key: leave it out, or order=newest")
    catalogue = desk.house.catalogue
    if not caller.sees_bucket(bucket) or await catalogue.bucket(bucket) is None:
        raise NotFound(f"there is no bucket {bucket[:64]!r}")
    require(caller, "assets:read")
    page = await catalogue.assets(
        AssetQuery(
            bucket,
            prefix=normalise_prefix(prefix),
            key_prefix=caller.prefix,
            delimiter=delimiter,
            tag=tag,
            media_type=media_type.lower() if media_type else None,
            limit=limit,
            after=decode_cursor(cursor),
            newest_first=order == "newest",
        )
    )
    return AssetList(
        assets=[AssetOut.of(asset, base, with_gps=True) for asset in page.assets],
        prefixes=list(page.prefixes),
        next_cursor=encode_cursor(page.next_after),
    )


@router.post(
    "/check",
    response_model=CheckOut,
    summary="Which of these are there already?",
    description="Answers in the order asked, and only about what the key may read. With a key only that asset counts.",
    responses=problems(400, 401, 403, 422),
)
async def check_assets(wanted: CheckIn, caller: CallerDep, desk: DeskDep) -> CheckOut:
    require(caller, "assets:read")
    return CheckOut(items=[await _presence(desk, caller, item) for item in wanted.items])


async def _presence(desk: Desk, caller: Caller, item: CheckItem) -> Presence:
    catalogue, sha256 = desk.house.catalogue, item.sha256.lower()
    if item.bucket is not None and item.key is not None:
        found = await catalogue.asset_at(item.bucket, normalise_key(item.key))
        candidates = [found] if found and (found.blob.sha256, found.blob.size) == (sha256, item.size) else []
    else:
        candidates = list(await catalogue.assets_with(sha256, item.size))
    for asset in candidates:
        if caller.sees(asset.bucket, asset.key) and item.bucket in (None, asset.bucket):
            return Presence(present=True, id=asset.id)
    return Presence(present=False)


@router.get(
    "/{asset_id}",
    response_model=AssetOut,
    summary="One asset; in a public bucket without a key",
    openapi_extra=OPEN_IN_PUBLIC,
    responses=problems(401, 403, 404),
)
async def get_asset(asset_id: str, caller: CallerDep, desk: DeskDep, base: BaseDep) -> AssetOut:
    catalogue = desk.house.catalogue
    asset = await catalogue.asset(asset_id) if well_formed("ast", asset_id) else None
    bucket = await catalogue.bucket(asset.bucket) if asset else None
    if not (bucket and bucket.public):
        if caller.anonymous:
            raise Unauthorised("send an API key: Authorization: Bearer msk_…")
        asset = await visible_asset(desk, caller, asset_id)
        require(caller, "assets:read")
    assert asset is not None
    return AssetOut.of(
        asset, base, with_gps=caller.sees(asset.bucket, asset.key) and caller.has("assets:read")
    )


@router.patch(
    "/{asset_id}",
    response_model=AssetOut,
    summary="Change name, tags, metadata or expiry",
    responses=problems(400, 401, 403, 404, 422),
)
async def patch_asset(
    asset_id: str, patch: AssetPatch, caller: CallerDep, desk: DeskDep, base: BaseDep
) -> AssetOut:
    asset = await visible_asset(desk, caller, asset_id)
    require(caller, "assets:write")
    try:
        async with desk.house.catalogue.transaction() as tx:
            current = await tx.asset(asset.id)
            if current is None:
                raise NotFound(f"there is no asset {asset_id}")
            await tx.save_asset(_patched(current, patch, desk.house.records.clock()))
    except Gone:
        raise NotFound(f"there is no asset {asset_id}") from None
    return AssetOut.of(await visible_asset(desk, caller, asset_id), base, with_gps=True)


def _patched(asset: Asset, patch: AssetPatch, now: float) -> Asset:
    changes: dict[str, Any] = {}
    if patch.name is not None:
        changes["name"] = safe_name(patch.name)
    if patch.tags is not None:
        changes["tags"] = tuple(dict.fromkeys(patch.tags))
    if patch.metadata is not None:
        changes["metadata"] = patch.metadata
    if "expires_in" in patch.model_fields_set:
        changes["expires_at"] = None if patch.expires_in is None else now + patch.expires_in
    return replace(asset, **changes)


@router.delete(
    "/{asset_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete an asset, its renditions with it",
    responses=problems(401, 403, 404),
)
async def delete_asset(asset_id: str, caller: CallerDep, desk: DeskDep, bell: BackgroundTasks) -> Response:
    await visible_asset(desk, caller, asset_id)
    require(caller, "assets:delete")
    try:
        async with desk.house.catalogue.transaction() as tx:
            await tx.delete_asset(asset_id)
    except Gone:
        raise NotFound(f"there is no asset {asset_id}") from None
    bell.add_task(desk.ring_bell)
    return Response(status_code=status.HTTP_204_NO_CONTENT, background=bell)


@router.get(
    "/{asset_id}/tasks",
    response_model=Timeline,
    summary="What was, is and will be done for this asset",
    responses=problems(401, 403, 404),
)
async def timeline(asset_id: str, caller: CallerDep, desk: DeskDep) -> Timeline:
    await visible_asset(desk, caller, asset_id)
    require(caller, "assets:read")
    return Timeline(tasks=[TaskOut.of(task) for task in await desk.house.catalogue.tasks_of(asset_id)])
