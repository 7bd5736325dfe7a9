"""Links: what opens one asset, or one rendition of it, to whoever has the URL."""

from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import JSONResponse

from mediasvc.catalogue.interface import Gone
from mediasvc.core.asset import Asset
from mediasvc.core.errors import NotFound, RenditionPending
from mediasvc.core.ids import new_link_id, well_formed
from mediasvc.core.link import Link
from mediasvc.core.recipe import EXTENSIONS
from mediasvc.deliver.links import Terms, ends_at
from mediasvc.web.cursor import decode_cursor, encode_cursor
from mediasvc.web.deps import BaseDep, CallerDep, DeskDep, key_ends_at, require, visible_asset
from mediasvc.web.link_schemas import LinkIn, LinkList, LinkOut, NewLinkOut
from mediasvc.web.problems import problems
from mediasvc.web.schemas import rfc3339

router = APIRouter(prefix="/v1", tags=["links"])


@router.post(
    "/assets/{asset_id}/links",
    response_model=NewLinkOut,
    response_model_exclude_none=True,
    status_code=status.HTTP_201_CREATED,
    summary="Make a link to an asset, or to one of its renditions",
    description="Needs `assets:read`: who may read an asset may show it to others. The link covers GET and HEAD and "
    "follows the asset to its next version. One that does not hold is 403, whether or not there is an asset.",
    responses=problems(401, 403, 404, 422),
)
async def create_link(
    asset_id: str, wanted: LinkIn, caller: CallerDep, desk: DeskDep, base: BaseDep
) -> JSONResponse:
    asset = await visible_asset(desk, caller, asset_id)
    require(caller, "assets:read")
    source = await desk.house.catalogue.source(asset.id)
    if source is None:
        raise NotFound(f"there is no asset {asset_id}")
    now, counted = desk.house.records.clock(), wanted.max_downloads is not None
    expires_at = ends_at(now, wanted.expires_in, counted=counted)
    if (key_ends := await key_ends_at(desk, caller)) is not None:
        expires_at = min(expires_at, int(key_ends))
    terms = Terms(
        asset.id,
        expires_at,
        wanted.recipe or "",
        _extension(asset, wanted.recipe) if wanted.recipe else "",
        wanted.disposition or "",
        new_link_id() if counted else "",
    )
    url = terms.url(desk.house.signer, source.link_epoch, asset.name)
    if wanted.max_downloads is not None:
        link = Link(terms.link_id, asset.id, now, terms.expires_at, url, wanted.max_downloads)
        try:
            async with desk.house.catalogue.transaction() as tx:
                await tx.add_link(link)
        except Gone:
            raise NotFound(f"there is no asset {asset_id}") from None
    made = NewLinkOut(id=terms.link_id or None, url=base + url, expires_at=rfc3339(terms.expires_at))
    return JSONResponse(made.model_dump(exclude_none=True), status.HTTP_201_CREATED)


def _extension(asset: Asset, preset: str) -> str:
    """Of the rendition, which decides its URL. Raises NotFound, RenditionPending."""
    if preset in asset.renditions:
        return EXTENSIONS[asset.renditions[preset].media_type]
    if asset.state == "processing":
        raise RenditionPending(f"{preset} is being made; ask again in a second")
    raise NotFound(f"asset {asset.id} has no rendition {preset}")


@router.get(
    "/assets/{asset_id}/links",
    response_model=LinkList,
    summary="List the links with `max_downloads` that are not over",
    responses=problems(400, 401, 403, 404),
)
async def list_links(
    asset_id: str,
    caller: CallerDep,
    desk: DeskDep,
    base: BaseDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> LinkList:
    await visible_asset(desk, caller, asset_id)
    require(caller, "assets:read")
    page = await desk.house.catalogue.links(asset_id, decode_cursor(cursor), limit + 1)
    shown, more = page[:limit], len(page) > limit
    return LinkList(
        links=[LinkOut.of(link, base) for link in shown],
        next_cursor=encode_cursor(shown[-1].id) if more else None,
    )


@router.delete(
    "/assets/{asset_id}/links",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="End every link to the asset, whoever made it",
    description="Needs `assets:write`: it changes the asset for everybody. Caches may keep an answer for 5 minutes.",
    responses=problems(401, 403, 404),
)
async def end_links(asset_id: str, caller: CallerDep, desk: DeskDep) -> Response:
    await visible_asset(desk, caller, asset_id)
    require(caller, "assets:write")
    try:
        async with desk.house.catalogue.transaction() as tx:
            await tx.end_links(asset_id)
    except Gone:
        raise NotFound(f"there is no asset {asset_id}") from None
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.delete(
    "/links/{link_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Revoke one link with `max_downloads`",
    description="Needs `assets:read`, as making it does: who may list a link could as well use it up.",
    responses=problems(401, 403, 404),
)
async def revoke_link(link_id: str, caller: CallerDep, desk: DeskDep) -> Response:
    missing = NotFound(f"there is no link {link_id[:64]}")
    catalogue = desk.house.catalogue
    link = await catalogue.link(link_id) if well_formed("lnk", link_id) else None
    asset = await catalogue.asset(link.asset_id) if link else None
    if asset is None or not caller.sees(asset.bucket, asset.key):
        raise missing
    require(caller, "assets:read")
    async with catalogue.transaction() as tx:
        if not await tx.drop_links([link_id]):
            raise missing
    return Response(status_code=status.HTTP_204_NO_CONTENT)
