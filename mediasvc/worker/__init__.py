"""Work in the background: the dispatcher over the outbox, and the sweep that comes round."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mediasvc.bootstrap import House
from mediasvc.core.errors import MediasvcError, Unavailable
from mediasvc.core.task import Task
from mediasvc.ingest.purge import purge
from mediasvc.ingest.sweep import sweep
from mediasvc.logs import log
from mediasvc.worker.analyse import Analyse
from mediasvc.worker.dispatcher import Dispatcher

AT_ONCE = 2  # tasks; decoders are as many


@asynccontextmanager
async def at_work(house: House) -> AsyncIterator[Dispatcher]:
    """Runs tasks and sweeps while the block lasts."""
    analyse = Analyse(house.store, house.catalogue, house.keeper, house.sandbox, house.scratch)

    async def purge_task(task: Task) -> str:
        return f"removed {await purge(house.store, house.catalogue, task.asset_id)} blobs"

    async def join_task(task: Task) -> str:
        upload_id = task.payload["upload"]
        if house.resumer.joins(upload_id):  # for whoever sent the last byte; others need the place more
            raise Unavailable("its bytes are being read")
        return await house.resumer.join(upload_id)

    dispatcher = Dispatcher(
        house.catalogue,
        {"analyse": analyse, "purge": purge_task, "join": join_task},
        house.run,
        at_once=AT_ONCE,
        clock=house.records.clock,
    )
    loops = [asyncio.create_task(dispatcher.work()), asyncio.create_task(_sweeping(house, dispatcher))]
    try:
        yield dispatcher
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def _sweeping(house: House, dispatcher: Dispatcher) -> None:
    records = house.records
    while True:
        try:
            swept = await sweep(
                records.store,
                records.catalogue,
                records.runs,
                clock=records.clock,
                own_run=house.run,
                live=house.keeper.live,
            )
            log.info("sweep", summary=str(swept))
        except MediasvcError as error:  # away or full: the next round goes on
            log.warning("sweep_interrupted", reason=error.detail)
        except Exception:
            log.exception("sweep_error")
        dispatcher.ring()
        await asyncio.sleep(house.settings.sweep_interval)
