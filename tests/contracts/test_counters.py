"""What every catalogue promises about the counters of downloads."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from mediasvc.catalogue.interface import AssetQuery, Catalogue, Gone
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.ids import new_blob_id, new_link_id
from mediasvc.core.link import Link
from mediasvc.core.tally import Tally

pytestmark = pytest.mark.anyio


AddAsset = Callable[[], Awaitable[Asset]]


async def a_link(catalogue: Catalogue, asset: Asset) -> str:
    link = Link(new_link_id(), asset.id, 1.0, 9e9, "/f/x/y?exp=1", 5)
    async with catalogue.transaction() as tx:
        await tx.add_link(link)
    return link.id


async def count(catalogue: Catalogue, assets: dict[str, Tally], links: dict[str, Tally] | None = None) -> int:
    async with catalogue.transaction() as tx:
        return await tx.count_downloads(assets, links or {})


async def counters(catalogue: Catalogue, asset: Asset) -> tuple[int, int]:
    found = await catalogue.asset(asset.id)
    assert found is not None
    return found.downloads, found.downloaded_bytes


async def test_counters_begin_at_nothing_and_add_up(catalogue: Catalogue, add_asset: AddAsset) -> None:
    one, other = await add_asset(), await add_asset()
    assert await counters(catalogue, one) == (0, 0)
    assert await count(catalogue, {one.id: Tally(2, 2**40), other.id: Tally(0, 1)}) == 0
    assert await count(catalogue, {one.id: Tally(1, 5)}) == 0
    assert await counters(catalogue, one) == (3, 2**40 + 5)
    assert await counters(catalogue, other) == (0, 1)
    listed = (await catalogue.assets(AssetQuery("media"))).assets
    assert {asset.id: asset.downloads for asset in listed} == {one.id: 3, other.id: 0}


async def test_a_link_has_counters_of_its_own(catalogue: Catalogue, add_asset: AddAsset) -> None:
    asset = await add_asset()
    link_id = await a_link(catalogue, asset)
    assert await count(catalogue, {asset.id: Tally(3, 30)}, {link_id: Tally(1, 10)}) == 0
    link = await catalogue.link(link_id)
    assert link is not None
    assert (link.downloads, link.downloaded_bytes, link.begun) == (1, 10, 0)
    assert await counters(catalogue, asset) == (3, 30)


async def test_a_download_that_came_to_nothing_is_given_back_to_its_link(
    catalogue: Catalogue, add_asset: AddAsset
) -> None:
    asset = await add_asset()
    link_id, other_id = await a_link(catalogue, asset), await a_link(catalogue, asset)
    for _ in range(5):
        async with catalogue.transaction() as tx:
            await tx.begin_download(link_id)
            await tx.begin_download(other_id)
    assert await count(catalogue, {}, {link_id: Tally(1, 10, returned=2)}) == 0
    link, other = await catalogue.link(link_id), await catalogue.link(other_id)
    assert link is not None
    assert other is not None
    assert (link.downloads, link.begun, other.begun) == (1, 3, 5)
    for _ in range(2):
        async with catalogue.transaction() as tx:
            await tx.begin_download(link_id)
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.begin_download(link_id)


async def test_what_is_gone_is_told_and_no_obstacle_for_the_others(
    catalogue: Catalogue, add_asset: AddAsset
) -> None:
    here, gone = await add_asset(), await add_asset()
    async with catalogue.transaction() as tx:
        await tx.delete_asset(gone.id)
    odd = {"": Tally(1, 1), "ast_' OR 1=1": Tally(1, 1), gone.id: Tally(1, 1), here.id: Tally(1, 1)}
    assert await count(catalogue, odd, {new_link_id(): Tally(1, 1)}) == 4
    assert await counters(catalogue, here) == (1, 1)
    assert await count(catalogue, {}, {}) == 0


async def test_counters_outlive_versions_descriptions_and_restarts(
    catalogue: Catalogue, add_asset: AddAsset
) -> None:
    asset = await add_asset()
    await count(catalogue, {asset.id: Tally(4, 40)})
    following = replace(asset, version=2, blob=Blob(new_blob_id(), 11, "cd" * 32, 8))
    async with catalogue.transaction() as tx:
        await tx.replace_asset(following)
        await tx.save_asset(replace(following, name="other"))
    assert await counters(catalogue, asset) == (4, 40)
    await catalogue.close()
    await catalogue.start()
    assert await counters(catalogue, asset) == (4, 40)


async def test_a_transaction_that_fails_counts_nothing(catalogue: Catalogue, add_asset: AddAsset) -> None:
    asset = await add_asset()
    with suppress(ZeroDivisionError):
        async with catalogue.transaction() as tx:
            await tx.count_downloads({asset.id: Tally(1, 1)}, {})
            raise ZeroDivisionError
    assert await counters(catalogue, asset) == (0, 0)


async def test_many_counters_are_one_transaction(catalogue: Catalogue, add_asset: AddAsset) -> None:
    assets = [await add_asset() for _ in range(50)]
    assert await count(catalogue, {asset.id: Tally(number, 1) for number, asset in enumerate(assets)}) == 0
    assert [(await counters(catalogue, asset))[0] for asset in assets] == list(range(50))
