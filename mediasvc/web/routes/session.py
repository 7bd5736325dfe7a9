"""The session of a browser: begun with a key, which is then asked for no more."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel, Field

from mediasvc.core.errors import Forbidden, Unauthorised
from mediasvc.web.deps import BaseDep, CallerDep, DeskDep
from mediasvc.web.openapi import OPEN
from mediasvc.web.problems import problems
from mediasvc.web.schemas import In
from mediasvc.web.session import COOKIE, Sessions, from_elsewhere

router = APIRouter(prefix="/v1/session", tags=["session"])
MOST_BUCKETS = 1000


class SessionIn(In):
    key: Annotated[str, Field(min_length=1, max_length=512, examples=["msk_…"])]


class BucketSeen(BaseModel):
    name: str
    public: bool
    max_asset_size: int | None


class SessionOut(BaseModel):
    """Who is asking, and where; without a key or a session `key_id` is null and there are no buckets."""

    key_id: str | None
    scopes: Sequence[str]
    prefix: str = Field(description="what the key is narrowed to; keys of uploads begin with it")
    buckets: Sequence[BucketSeen] = Field(description="those that the caller may see, in order of name")
    url: str = Field(description="what our URLs begin with")


@router.get("", response_model=SessionOut, summary="Who is asking? Needs no key", openapi_extra=OPEN)
async def get_session(caller: CallerDep, desk: DeskDep, base: BaseDep) -> SessionOut:
    buckets = () if caller.anonymous else await desk.house.catalogue.buckets(limit=MOST_BUCKETS)
    return SessionOut(
        key_id=caller.key_id,
        scopes=sorted(caller.scopes),
        prefix=caller.prefix,
        buckets=[
            BucketSeen(name=bucket.name, public=bucket.public, max_asset_size=bucket.max_asset_size)
            for bucket in buckets
            if caller.sees_bucket(bucket.name)
        ],
        url=base,
    )


@router.post(
    "",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    summary="Keep a key as a cookie",
    description="The cookie names the key and is signed. It counts on GET and HEAD, and on other methods where "
    "`Origin` is our own; an `Authorization` header counts more. It ends with the key.",
    openapi_extra=OPEN,
    responses=problems(401, 403, 422),
)
async def begin_session(wanted: SessionIn, request: Request, desk: DeskDep, base: BaseDep) -> Response:
    _only_from_here(request, desk.house.settings.public_url)
    house = desk.house
    begun = await Sessions(house.catalogue, house.signer, house.admin_secret, house.records.clock).begin(
        wanted.key.strip()
    )
    if begun is None:
        raise Unauthorised("there is no such key, or it was revoked or has expired")
    return _answer(base, *begun)


@router.delete(
    "",
    status_code=status.HTTP_204_NO_CONTENT,
    response_class=Response,
    summary="End the session in this browser",
    openapi_extra=OPEN,
    responses=problems(403),
)
async def end_session(request: Request, desk: DeskDep, base: BaseDep) -> Response:
    _only_from_here(request, desk.house.settings.public_url)
    return _answer(base, "", 0)


def _only_from_here(request: Request, public_url: str | None) -> None:
    """No other site signs people in, as somebody else, or out. Raises Forbidden."""
    if from_elsewhere(request.scope, public_url):
        raise Forbidden("sessions begin and end on our own pages only (Origin)")


def _answer(base: str, value: str, lifetime: int) -> Response:
    parts = urlsplit(base)
    response = Response(status_code=status.HTTP_204_NO_CONTENT, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        COOKIE,
        value,
        max_age=lifetime,
        path=parts.path.rstrip("/") + "/",
        secure=parts.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response
