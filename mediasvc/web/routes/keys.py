"""API keys: a secret shown once, kept as a hash, narrowed as far as its maker likes."""

from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import JSONResponse

from mediasvc.bootstrap import sha256_of
from mediasvc.catalogue.interface import Gone
from mediasvc.core.access import Caller, Key
from mediasvc.core.errors import Forbidden, NotFound
from mediasvc.core.ids import new_key_id, new_key_secret, well_formed
from mediasvc.core.keys import check_bucket_name, normalise_prefix
from mediasvc.web.admin_schemas import KeyIn, KeyList, KeyOut, NewKeyOut
from mediasvc.web.cursor import decode_cursor, encode_cursor
from mediasvc.web.deps import CallerDep, Desk, DeskDep, key_ends_at, require
from mediasvc.web.problems import problems

router = APIRouter(prefix="/v1/keys", tags=["keys"])


def _within(caller: Caller, key: Key) -> bool:
    """Whether the key reaches no bucket or prefix that the caller's does not reach: who may manage keys
    manages these."""
    return caller.bucket in (None, key.bucket) and key.prefix.startswith(caller.prefix)


@router.post(
    "",
    response_model=NewKeyOut,
    status_code=status.HTTP_201_CREATED,
    summary="Make a key; its secret is shown this once",
    responses=problems(400, 401, 403, 404, 422),
)
async def create_key(wanted: KeyIn, caller: CallerDep, desk: DeskDep) -> JSONResponse:
    require(caller, "keys:admin")
    bucket = check_bucket_name(wanted.bucket) if wanted.bucket is not None else caller.bucket
    if bucket is not None and (
        not caller.sees_bucket(bucket) or await desk.house.catalogue.bucket(bucket) is None
    ):
        raise NotFound(f"there is no bucket {bucket!r}")
    now = desk.house.records.clock()
    limits = [size for size in (wanted.max_asset_size, caller.max_asset_size) if size is not None]
    ends = [now + wanted.expires_in if wanted.expires_in else None, await key_ends_at(desk, caller)]
    secret = new_key_secret()
    key = Key(
        id=new_key_id(),
        secret_sha256=sha256_of(secret),
        hint=secret[:8],
        scopes=frozenset(wanted.scopes),
        created_at=now,
        name=wanted.name,
        bucket=bucket,
        prefix=normalise_prefix(wanted.prefix) or caller.prefix,
        expires_at=min((end for end in ends if end is not None), default=None),
        max_asset_size=min(limits, default=None),
    )
    if not (_within(caller, key) and key.scopes <= caller.scopes):
        raise Forbidden("a key can be given only scopes, bucket and prefix that its maker has")
    async with desk.house.catalogue.transaction() as tx:
        await tx.add_key(key)
    return JSONResponse(NewKeyOut.of(key, secret=secret).model_dump(), status.HTTP_201_CREATED)


@router.get("", response_model=KeyList, summary="List live keys", responses=problems(400, 401, 403))
async def list_keys(
    caller: CallerDep,
    desk: DeskDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> KeyList:
    require(caller, "keys:admin")
    page = await desk.house.catalogue.keys(decode_cursor(cursor), limit + 1)
    shown, more = page[:limit], len(page) > limit
    return KeyList(
        keys=[KeyOut.of(key) for key in shown if _within(caller, key)],
        next_cursor=encode_cursor(shown[-1].id) if more else None,
    )


async def _manageable(desk: Desk, caller: Caller, key_id: str) -> Key:
    require(caller, "keys:admin")
    key = await desk.house.catalogue.key(key_id) if well_formed("key", key_id) else None
    if key is None or not key.live(desk.house.records.clock()) or not _within(caller, key):
        raise NotFound(f"there is no key {key_id[:64]}")
    return key


@router.get("/{key_id}", response_model=KeyOut, summary="One key", responses=problems(401, 403, 404))
async def get_key(key_id: str, caller: CallerDep, desk: DeskDep) -> KeyOut:
    return KeyOut.of(await _manageable(desk, caller, key_id))


@router.delete(
    "/{key_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Revoke a key, at once",
    responses=problems(401, 403, 404),
)
async def revoke_key(key_id: str, caller: CallerDep, desk: DeskDep) -> Response:
    key = await _manageable(desk, caller, key_id)
    try:
        async with desk.house.catalogue.transaction() as tx:
            await tx.revoke_key(key.id, desk.house.records.clock())
    except Gone:
        raise NotFound(f"there is no key {key_id[:64]}") from None
    return Response(status_code=status.HTTP_204_NO_CONTENT)
