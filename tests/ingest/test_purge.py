"""The bytes of what was deleted or replaced follow their rows."""

from dataclasses import replace

import pytest

from mediasvc.ingest.purge import purge
from tests.ingest.conftest import Place

pytestmark = pytest.mark.anyio


async def test_a_deleted_asset_takes_original_and_renditions_with_it(place: Place) -> None:
    asset = await place.asset("gone")
    thumb = await place.rendition(asset)
    async with place.catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    assert await place.kinds() == []  # bytes whose row is doomed are on their way
    assert await purge(place.store, place.catalogue, asset.id) == 2
    assert (await place.there(asset.blob), await place.there(thumb.blob)) == (False, False)
    assert await purge(place.store, place.catalogue, asset.id) == 0
    assert await place.kinds() == []


async def test_a_replaced_version_goes_and_the_new_one_stays(place: Place) -> None:
    asset = await place.asset("replaced")
    new = replace(asset, version=2, blob=await place.blob(b"new"))
    async with place.catalogue.transaction() as tx:
        await tx.replace_asset(new)
    assert await purge(place.store, place.catalogue, asset.id) == 1
    assert (await place.there(asset.blob), await place.there(new.blob)) == (False, True)


async def test_bytes_that_are_gone_already_are_no_obstacle(place: Place) -> None:
    asset = await place.asset("half gone")
    async with place.catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    place.store.files.path(asset.blob.id).unlink()
    assert await purge(place.store, place.catalogue, asset.id) == 1
