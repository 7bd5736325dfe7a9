"""Who has an upload token: found by the secret in the URL's path, and a caller who may upload and nothing else."""

from typing import Annotated

from fastapi import Depends

from mediasvc.bootstrap import sha256_of
from mediasvc.core.access import ADMIN_KEY_ID, Caller
from mediasvc.core.errors import Forbidden
from mediasvc.core.ids import UPT_PREFIX
from mediasvc.core.upload import UploadToken
from mediasvc.web.deps import Desk, DeskDep


async def _bearing(token: str, desk: DeskDep) -> UploadToken:
    """Raises Forbidden, and never Unauthorised: a browser would ask its user for a password."""
    found = (
        await desk.house.catalogue.upload_token_by_secret(sha256_of(token))
        if token.startswith(UPT_PREFIX)
        else None
    )
    if found is None or not await _owner_lives(desk, found.owner):
        raise Forbidden("this upload token is unknown or expired: ask for a new one")
    return found


async def _owner_lives(desk: Desk, owner: str) -> bool:
    """What a key gave to others ends with it."""
    key = await desk.house.catalogue.key(owner)
    if key is None:  # the fixed one of the settings has no row
        return owner == ADMIN_KEY_ID and desk.house.admin_secret is not None
    return key.live(desk.house.records.clock())


TokenDep = Annotated[UploadToken, Depends(_bearing)]


def caller_of(token: UploadToken) -> Caller:
    return Caller(
        token.id,
        frozenset({"assets:write"}),
        token.bucket,
        token.prefix,
        token.max_size,
        token=True,
    )


def check_unused(token: UploadToken) -> None:
    """Raises Forbidden before a body is read; asked again in the transaction that counts."""
    if token.max_count is not None and token.used >= token.max_count:
        raise Forbidden("the upload token is used up: ask for a new one")
