"""Archives: a selection of assets becomes a signed URL, from which they come as one ZIP."""

import math

from fastapi import APIRouter, status

from mediasvc.core.errors import BadRequest
from mediasvc.core.keys import normalise_prefix
from mediasvc.deliver.archive import archive_url
from mediasvc.deliver.pack import choose, choose_under, pack
from mediasvc.web.archive_schemas import ArchiveIn, ArchiveOut
from mediasvc.web.deps import BaseDep, CallerDep, DeskDep, key_ends_at, require
from mediasvc.web.problems import problems
from mediasvc.web.schemas import rfc3339

router = APIRouter(prefix="/v1/archives", tags=["archives"])


@router.post(
    "",
    response_model=ArchiveOut,
    status_code=status.HTTP_201_CREATED,
    summary="Make a ZIP of many assets, to be downloaded and resumed without a key",
    description="Name assets, or a bucket and a prefix. What is in it is fixed now: it ends (410) once one of its "
    "assets is deleted, replaced or expires, or its links are revoked.",
    responses=problems(400, 401, 403, 404, 409, 422),
)
async def make_archive(wanted: ArchiveIn, caller: CallerDep, desk: DeskDep, base: BaseDep) -> ArchiveOut:
    require(caller, "assets:read")
    house = desk.house
    if wanted.assets is not None:
        chosen, name = await choose(house.catalogue, caller, wanted.assets), "archive"
    elif wanted.bucket is not None or wanted.prefix is not None:
        bucket, prefix = wanted.bucket or "media", normalise_prefix(wanted.prefix or "")
        chosen = await choose_under(house.catalogue, caller, bucket, prefix)
        name = prefix.rstrip("/").rpartition("/")[2] or bucket
    else:
        raise BadRequest("no asset is chosen: name assets, or bucket and prefix")
    now = house.records.clock()
    # A key must not lend what it will not have itself.
    ends = [math.ceil(now + wanted.expires_in), await key_ends_at(desk, caller)]
    archive = await pack(
        house.catalogue, chosen, wanted.name or name, now, min(end for end in ends if end is not None)
    )
    return ArchiveOut(
        url=base + archive_url(house.signer, archive),
        size=archive.layout.size,
        expires_at=rfc3339(archive.expires_at),
    )
