"""What every catalogue promises about many uploads: which there are, and the room they reserve."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from mediasvc.catalogue.interface import Catalogue, Intent
from mediasvc.core.asset import Asset
from mediasvc.core.bucket import Usage
from mediasvc.core.errors import Conflict
from mediasvc.core.ids import new_asset_id, new_blob_id
from mediasvc.core.task import NewTask
from mediasvc.core.upload import UploadState
from tests.contracts.uploads import ENDED, NOW, UNDER_WAY, add, added, an_upload, end, save

pytestmark = pytest.mark.anyio

AddAsset = Callable[[], Awaitable[Asset]]


async def usage(catalogue: Catalogue) -> Usage:
    async with catalogue.transaction() as tx:
        return await tx.usage("media")


async def test_an_upload_is_joined_whatever_becomes_of_the_asset_it_replaces(
    catalogue: Catalogue, add_asset: AddAsset
) -> None:
    """Its promise holds: neither another version nor the end of the asset takes the task away."""
    asset = await add_asset()
    async with catalogue.transaction() as tx:
        await tx.enqueue(NewTask("join", asset.id, {"upload": "upl"}))
        await tx.enqueue(NewTask("analyse", asset.id))
    blob = replace(asset.blob, id=new_blob_id())
    async with catalogue.transaction() as tx:
        await tx.replace_asset(replace(asset, version=2, blob=blob))
    assert {task.kind: task.state for task in await catalogue.tasks_of(asset.id)} == {
        "join": "waiting",
        "analyse": "cancelled",
        "purge": "waiting",
    }
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    assert {task.kind for task in await catalogue.tasks_of(asset.id)} == {"join", "purge"}


# Which there are


async def test_uploads_are_listed_in_pages_for_one_or_all(catalogue: Catalogue) -> None:
    made = sorted([an_upload(owner=owner) for owner in "abab"], key=lambda upload: upload.id)
    await add(catalogue, *made)
    mine = [upload for upload in made if upload.owner == "a"]
    assert await catalogue.uploads("a") == mine
    assert await catalogue.uploads("a", limit=1) == mine[:1]
    assert await catalogue.uploads("a", mine[0].id, 9) == mine[1:]
    assert await catalogue.uploads(None, limit=3) == made[:3]
    assert await catalogue.uploads(None, made[2].id, 9) == made[3:]
    assert await catalogue.uploads("") == await catalogue.uploads("c") == []


async def test_those_completing_are_listed_in_pages(catalogue: Catalogue) -> None:
    made = sorted(
        [an_upload(state="completing", owner=owner) for owner in "abc"], key=lambda upload: upload.id
    )
    await add(catalogue, *made, *(an_upload(state=state) for state in ("open", *ENDED)))
    assert await catalogue.completing_uploads(limit=2) == made[:2]
    assert await catalogue.completing_uploads(made[1].id, 2) == made[2:]


async def test_open_uploads_are_counted_for_each_owner(catalogue: Catalogue) -> None:
    await add(
        catalogue, *(an_upload(state=state) for state in (*UNDER_WAY, *ENDED)), an_upload(owner="key_b")
    )
    async with catalogue.transaction() as tx:
        await tx.add_upload(an_upload())
        counts = [await tx.open_upload_count(owner) for owner in ("key_a", "key_b", "key_c")]
    assert counts == [3, 1, 0]


async def test_a_limit_of_open_uploads_holds_against_many_at_once(
    catalogue: Catalogue, beside: Catalogue
) -> None:
    await add(catalogue, an_upload(owner="key_b"))

    async def begin(which: Catalogue) -> bool:
        async with which.transaction() as tx:
            if await tx.open_upload_count("key_a") >= 3:
                return False
            await tx.add_upload(an_upload())
            return True

    assert sum(await asyncio.gather(*(begin(which) for which in [catalogue, beside] * 5))) == 3


async def test_an_asset_is_promised_while_its_upload_is_under_way(catalogue: Catalogue, clock: Any) -> None:
    asset_id = new_asset_id()
    opened = await added(catalogue, asset_id=asset_id)
    assert await catalogue.promised(asset_id) == opened
    assert await catalogue.promised(new_asset_id()) is None
    clock.now = opened.expires_at
    assert await catalogue.promised(asset_id) is None
    await save(catalogue, replace(opened, state="completing"), 0)
    completing = replace(opened, state="completing")
    assert await catalogue.promised(asset_id) == completing  # joining may take longer
    await end(catalogue, completing, expires_at=clock.now + 9)
    assert await catalogue.promised(asset_id) is None


async def test_the_newest_of_several_promises_counts(catalogue: Catalogue) -> None:
    asset_id = new_asset_id()
    uploads = sorted([an_upload(asset_id=asset_id) for _ in range(3)], key=lambda upload: upload.id)
    await add(catalogue, *uploads)
    for upload in reversed(uploads):
        assert await catalogue.promised(asset_id) == upload
        await end(catalogue, upload, state="failed")
    assert await catalogue.promised(asset_id) is None


async def test_the_bytes_of_an_upload_lead_to_it_until_it_ends(catalogue: Catalogue) -> None:
    for state in (*UNDER_WAY, *ENDED):
        upload = await added(catalogue, state=state)
        assert await catalogue.upload_of_blob(upload.blob_id) == (upload if state in UNDER_WAY else None)
    assert await catalogue.upload_of_blob(new_blob_id()) is None


async def test_uploads_whose_time_is_over_are_found_oldest_first(catalogue: Catalogue, clock: Any) -> None:
    states = (*UNDER_WAY, *ENDED)
    uploads = [an_upload(state=state, expires_at=NOW - n) for n, state in enumerate(states)]
    await add(catalogue, *uploads, an_upload(expires_at=NOW + 1))
    stale = [upload.id for upload in reversed(uploads)]
    assert await catalogue.stale_uploads(clock.now, 9) == stale
    assert await catalogue.stale_uploads(clock.now, 2) == stale[:2]
    assert await catalogue.upload(stale[0]) == uploads[-1]
    await save(catalogue, replace(uploads[0], expires_at=NOW + 1), 0)
    assert await catalogue.stale_uploads(clock.now, 9) == stale[:-1]


# Room in a bucket


async def test_room_is_reserved_while_an_upload_is_under_way(catalogue: Catalogue) -> None:
    known, unknown = an_upload(length=2**41, offset=5), an_upload(length=None, offset=7, state="completing")
    await add(catalogue, known, unknown, an_upload(bucket="other"), an_upload(bucket="", asset_id=""))
    async with catalogue.transaction() as tx:
        await tx.open_intent(Intent("b1", "run", "media", 100, 1))
    assert await usage(catalogue) == Usage(0, 0, 2**41 + 7 + 100, 3)
    await save(catalogue, replace(unknown, offset=50), 7)
    assert await usage(catalogue) == Usage(0, 0, 2**41 + 50 + 100, 3)
    await save(catalogue, replace(unknown, offset=50, length=60), 50)
    assert await usage(catalogue) == Usage(0, 0, 2**41 + 60 + 100, 3)
    await end(catalogue, known)
    assert await usage(catalogue) == Usage(0, 0, 60 + 100, 2)
    async with catalogue.transaction() as tx:
        await tx.drop_uploads([unknown.id])
    assert await usage(catalogue) == Usage(0, 0, 100, 1)


async def test_an_upload_that_replaces_an_asset_reserves_bytes_alone(
    catalogue: Catalogue, add_asset: AddAsset
) -> None:
    asset = await add_asset()
    await add(catalogue, an_upload(asset_id=asset.id), an_upload())
    assert await usage(catalogue) == Usage(10, 1, 200, 1)
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    assert await usage(catalogue) == Usage(0, 0, 200, 2)


@pytest.mark.parametrize("state", UNDER_WAY)
async def test_a_bucket_with_uploads_under_way_stays(catalogue: Catalogue, state: UploadState) -> None:
    upload = await added(catalogue, state=state)

    async def delete() -> None:
        async with catalogue.transaction() as tx:
            await tx.delete_bucket("media")

    with pytest.raises(Conflict, match="under way"):
        await delete()
    assert await catalogue.bucket("media") is not None
    await end(catalogue, upload)
    await add(catalogue, an_upload(bucket="other"))
    await delete()
    assert await catalogue.bucket("media") is None
