"""A blob and its intent come and go together, whatever happens half-way."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mediasvc.catalogue.interface import Gone, Intent, Transaction
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import BadBody
from mediasvc.ingest.keep import clear_intent
from tests.ingest.conftest import Place, body

pytestmark = pytest.mark.anyio


async def broken(content: bytes) -> AsyncIterator[bytes]:
    yield content
    raise BadBody("it broke off")


async def endless(began: asyncio.Event) -> AsyncIterator[bytes]:
    yield b"some"
    began.set()
    await asyncio.sleep(60)


async def test_a_kept_blob_has_bytes_digests_and_an_open_intent_of_its_run(place: Place) -> None:
    keeper = place.keeper()
    blob = await keeper.keep(body(b"hello"))
    assert (blob.size, blob.crc32) == (5, 0x3610A686)
    assert await place.there(blob)
    assert [(intent.blob_id, intent.run) for intent in await place.catalogue.intents()] == [
        (blob.id, keeper.run)
    ]
    assert keeper.live == {blob.id}


async def test_an_adopted_blob_has_no_intent_and_nobody_works_on_it(place: Place) -> None:
    keeper = place.keeper()
    blob = await keeper.keep(body(b"hello"))
    async with place.catalogue.transaction() as tx:
        await keeper.adopt(tx, blob)
    keeper.adopted(blob)
    assert not keeper.live
    assert await place.catalogue.intents() == []
    assert await place.there(blob)


async def test_a_body_that_breaks_leaves_nothing(place: Place) -> None:
    keeper = place.keeper()
    with pytest.raises(BadBody):
        await keeper.keep(broken(b"half"))
    assert (await place.catalogue.intents(), keeper.live, await place.kinds()) == ([], set(), [])
    assert [found async for found in place.store.scan_unfinished()] == []


async def test_a_cancelled_upload_leaves_nothing_however_often_it_is_cancelled(place: Place) -> None:
    keeper, began = place.keeper(), asyncio.Event()
    keeping = asyncio.create_task(keeper.keep(endless(began)))
    await began.wait()
    for _ in range(20):
        keeping.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert (await place.catalogue.intents(), keeper.live) == ([], set())
    assert [found async for found in place.store.scan_unfinished()] == []


async def test_abandoning_several_goes_to_the_end_although_cancelled(place: Place) -> None:
    keeper = place.keeper()
    blobs = [await keeper.keep(body(b"hello")) for _ in range(3)]
    abandoning = asyncio.create_task(keeper.abandon(*(blob.id for blob in blobs)))
    await asyncio.sleep(0)
    abandoning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoning
    assert (await place.catalogue.intents(), keeper.live, await place.kinds()) == ([], set(), [])
    assert not [stored async for stored in place.store.scan()]


async def test_a_commit_that_went_through_although_it_reported_a_failure_keeps_its_bytes(
    place: Place,
) -> None:
    keeper = place.keeper()
    blob = await keeper.keep(body(b"hello"))
    async with place.catalogue.transaction() as tx:  # the row that owns it is left out: the intent decides
        await keeper.adopt(tx, blob)
    await keeper.abandon(blob.id)
    assert await place.there(blob)
    assert not keeper.live


async def test_what_the_sweep_has_condemned_nobody_can_adopt_any_more(place: Place) -> None:
    keeper = place.keeper()
    blob = await keeper.keep(body(b"hello"))
    assert await clear_intent(place.store, place.catalogue, blob.id)
    with pytest.raises(Gone):
        async with place.catalogue.transaction() as tx:
            await keeper.adopt(tx, blob)
    assert not await place.there(blob)


async def test_clearing_an_intent_twice_does_no_harm(place: Place) -> None:
    keeper = place.keeper()
    blob = await keeper.keep(body(b"hello"))
    assert await clear_intent(place.store, place.catalogue, blob.id)
    assert not await clear_intent(place.store, place.catalogue, blob.id)


async def test_a_reservation_ends_with_the_upload_it_was_for(place: Place) -> None:
    async with place.catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("small", place.now, quota_bytes=10))
    keeper = place.keeper()

    async def reserve(tx: Transaction, blob_id: str) -> Intent:
        return Intent(blob_id, keeper.run, "small", 10, 1)

    with pytest.raises(BadBody):
        await keeper.keep(broken(b"half"), reserve=reserve)
    async with place.catalogue.transaction() as tx:
        usage = await tx.usage("small")
    assert (usage.reserved_bytes, usage.reserved_assets) == (0, 0)
