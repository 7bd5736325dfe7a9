"""What every catalogue promises about links that have a row."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.ids import new_asset_id, new_blob_id, new_link_id
from mediasvc.core.link import Link

pytestmark = pytest.mark.anyio


AddAsset = Callable[[], Awaitable[Asset]]


async def a_link(catalogue: Catalogue, asset_id: str, clock: Any, **values: Any) -> Link:
    given = {"expires_at": clock.now + 60, "max_downloads": 2, **values}
    link = Link(new_link_id(), asset_id, clock.now, url="/f/x?exp=1", **given)
    async with catalogue.transaction() as tx:
        await tx.add_link(link)
    return link


async def begin(catalogue: Catalogue, link: Link) -> bool:
    try:
        async with catalogue.transaction() as tx:
            await tx.begin_download(link.id)
    except Gone:
        return False
    return True


async def test_a_link_comes_back_as_it_was_added(
    catalogue: Catalogue, add_asset: AddAsset, clock: Any
) -> None:
    asset = await add_asset()
    link = await a_link(catalogue, asset.id, clock, max_downloads=2**53)
    assert await catalogue.link(link.id) == link
    assert await catalogue.links(asset.id) == [link]
    assert await catalogue.link(new_link_id()) is None


async def test_links_of_an_asset_are_listed_in_pages(
    catalogue: Catalogue, add_asset: AddAsset, clock: Any
) -> None:
    asset, other = await add_asset(), await add_asset()
    made = sorted([await a_link(catalogue, asset.id, clock) for _ in range(3)], key=lambda link: link.id)
    await a_link(catalogue, other.id, clock)
    assert await catalogue.links(asset.id, limit=2) == made[:2]
    assert await catalogue.links(asset.id, after=made[1].id) == made[2:]


async def test_no_link_without_its_asset(catalogue: Catalogue, add_asset: AddAsset, clock: Any) -> None:
    await add_asset()
    absent = new_asset_id()
    with pytest.raises(Gone):
        await a_link(catalogue, absent, clock)
    assert await catalogue.links(absent) == []


async def test_a_link_is_used_up_once_by_however_many(
    catalogue: Catalogue, add_asset: AddAsset, clock: Any
) -> None:
    asset = await add_asset()
    link, other = [await a_link(catalogue, asset.id, clock, max_downloads=3) for _ in range(2)]
    assert (
        sorted(await asyncio.gather(*(begin(catalogue, link) for _ in range(8)))) == [False] * 5 + [True] * 3
    )
    assert await catalogue.link(link.id) == replace(link, begun=3)
    assert await catalogue.link(other.id) == other


async def test_what_is_over_or_revoked_opens_nothing(
    catalogue: Catalogue, add_asset: AddAsset, clock: Any
) -> None:
    asset = await add_asset()
    over, revoked = [await a_link(catalogue, asset.id, clock) for _ in range(2)]
    async with catalogue.transaction() as tx:
        assert await tx.drop_links([revoked.id]) == 1
        assert await tx.drop_links([revoked.id]) == 0
    assert await catalogue.link(revoked.id) is None
    assert not await begin(catalogue, revoked)
    assert await catalogue.expired_links(clock.now, 9) == []
    clock.now = over.expires_at
    assert await catalogue.link(over.id) is None
    assert await catalogue.links(asset.id) == []
    assert not await begin(catalogue, over)
    assert await catalogue.expired_links(clock.now, 9) == [over.id]


async def test_ending_all_links_raises_the_epoch_of_one_asset(
    catalogue: Catalogue, add_asset: AddAsset, clock: Any
) -> None:
    asset, other = await add_asset(), await add_asset()
    await a_link(catalogue, asset.id, clock)
    kept = await a_link(catalogue, other.id, clock)
    for epoch in (1, 2):
        async with catalogue.transaction() as tx:
            await tx.end_links(asset.id)
        source = await catalogue.source(asset.id)
        assert source is not None
        assert source.link_epoch == epoch
    assert await catalogue.links(asset.id) == []
    assert await catalogue.links(other.id) == [kept]
    source = await catalogue.source(other.id)
    assert source is not None
    assert source.link_epoch == 0
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.end_links(new_asset_id())


async def test_the_epoch_outlives_a_version_and_links_go_with_their_asset(
    catalogue: Catalogue, add_asset: AddAsset, clock: Any
) -> None:
    asset = await add_asset()
    async with catalogue.transaction() as tx:
        await tx.end_links(asset.id)
    link = await a_link(catalogue, asset.id, clock)
    async with catalogue.transaction() as tx:
        await tx.replace_asset(replace(asset, version=2, blob=Blob(new_blob_id(), 3, "cd" * 32, 8)))
    source = await catalogue.source(asset.id)
    assert source is not None
    assert (source.link_epoch, source.version) == (1, 2)
    assert await catalogue.link(link.id) == link
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    assert await catalogue.link(link.id) is None
