"""The socket on which nginx's lines are heard."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import StartupRefused
from mediasvc.core.ids import new_asset_id, new_blob_id
from mediasvc.core.tally import Delivery
from mediasvc.deliver.receipts import Receipts
from mediasvc.worker.receipts import bind, counting

pytestmark = pytest.mark.anyio
PLENTY = 1000  # more than one turn takes


@pytest.fixture
async def catalogue(tmp_path: Path) -> AsyncIterator[SqliteCatalogue]:
    made = SqliteCatalogue(tmp_path / "catalogue.db")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def asset_id(catalogue: SqliteCatalogue) -> str:
    blob = Blob(new_blob_id(), 10, "ab" * 32, 7)
    asset = Asset(new_asset_id(), "media", "key", "name", blob, "text/plain", "ready", 1.5, 2)
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("media", 1.0))
        await tx.add_asset(asset)
    return asset.id


@pytest.fixture
def heard() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with bind(address) as heard:
        yield heard


@pytest.fixture
def nginx(heard: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nginx:
        nginx.connect(heard.getsockname())
        yield nginx


def line(download_id: str) -> bytes:
    return b'<190>Nov 24 19:51:34 nginx: {"id":"%b","st":200,"b":3,"ok":"OK"}' % download_id.encode()


async def counted(catalogue: SqliteCatalogue, asset_id: str) -> int:
    found = await catalogue.asset(asset_id)
    assert found is not None
    return found.downloads


async def test_lines_are_heard_while_others_work_and_written_down(catalogue, asset_id, heard, nginx) -> None:
    receipts = Receipts(catalogue, heard=True)
    async with counting(receipts, heard):
        for round_ in range(4):
            for _ in range(PLENTY // 4):
                nginx.send(line(receipts.expect(Delivery(asset_id, "", True, True))))
                if round_ % 2:
                    nginx.send(b"\0" * 5000)
                    await asyncio.sleep(0)
            for _ in range(400):
                if await counted(catalogue, asset_id) == (round_ + 1) * PLENTY // 4:
                    break
                await asyncio.sleep(0.05)
    assert await counted(catalogue, asset_id) == PLENTY


async def test_the_end_writes_down_what_has_arrived(catalogue, asset_id, heard, nginx) -> None:
    receipts = Receipts(catalogue, heard=True)
    async with counting(receipts, heard):
        nginx.send(line(receipts.expect(Delivery(asset_id, "", True, True))))
    assert await counted(catalogue, asset_id) == 1


async def test_without_nginx_our_own_deliveries_are_written_down(catalogue, asset_id) -> None:
    receipts = Receipts(catalogue, heard=False)
    with suppress(ZeroDivisionError):
        async with counting(receipts, None):
            receipts.delivered(Delivery(asset_id, "", True, True), 5, complete=True)
            raise ZeroDivisionError
    assert await counted(catalogue, asset_id) == 1


async def test_a_catalogue_that_was_locked_gets_the_counts_later(catalogue, asset_id) -> None:
    receipts = Receipts(catalogue, heard=False)
    async with catalogue.transaction():
        async with counting(receipts, None):
            receipts.delivered(Delivery(asset_id, "", True, True), 5, complete=True)
    assert await counted(catalogue, asset_id) == 0
    await receipts.write_down()
    assert await counted(catalogue, asset_id) == 1


async def test_a_taken_port_stops_the_start_with_one_sentence(heard) -> None:
    with pytest.raises(StartupRefused, match="set MEDIASVC_RECEIPTS to another port"):
        bind(heard.getsockname())
