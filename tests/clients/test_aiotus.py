"""aiotus: one file, and many parts at once that become one."""

import asyncio
import io
from collections.abc import Callable

import aiotus
import pytest

from tests.clients.line import Line
from tests.clients.service import MIB, File, Service

# Its chunks go to aiohttp as they are, which would rather have them as streams.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")


def test_a_file_arrives(service: Service, file: File) -> None:
    metadata = {"filename": "Füße.bin".encode(), "filetype": b"application/x-thing", "nothing": None}

    async def upload() -> str:
        with file.path.open("rb") as stream:
            url = await aiotus.upload(
                service.endpoint, stream, metadata, headers=service.headers, chunksize=MIB
            )
        assert url is not None
        assert await aiotus.metadata(str(url), headers=service.headers) == metadata
        return str(url)

    service.check(asyncio.run(upload()), file)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_become_one(service: Service, file: File, parts: int) -> None:
    size = -(-file.size // parts)
    streams = [io.BytesIO(file.content[at : at + size]) for at in range(0, file.size, size)]
    url = asyncio.run(
        aiotus.upload_multiple(
            service.endpoint, streams, {"filename": b"joined.bin"}, headers=service.headers, chunksize=MIB
        )
    )
    assert url is not None
    service.check(str(url), file)


def test_eighty_mebibytes_in_parts(service: Service, large: File) -> None:
    streams = [io.BytesIO(large.content[at : at + 30 * MIB]) for at in range(0, large.size, 30 * MIB)]
    url = asyncio.run(aiotus.upload_multiple(service.endpoint, streams, headers=service.headers))
    assert url is not None
    service.check(str(url), large)


@pytest.mark.parametrize("mortal", ["disk"], indirect=True)
def test_kill_9_in_the_middle_and_it_goes_on(
    mortal: Service, line: Line, new_file: Callable[[int], File]
) -> None:
    file = new_file(24 * MIB + 1)
    config = aiotus.RetryConfiguration(retry_attempts=50, max_retry_period_seconds=0.2)

    async def upload() -> str:
        line.hold_after(14 * MIB)
        sending = asyncio.create_task(
            aiotus.upload(
                f"{line.url}/v1/uploads",
                io.BytesIO(file.content),
                config=config,
                headers=mortal.headers,
                chunksize=8 * MIB,
            )
        )
        await asyncio.to_thread(line.wait_until_held)
        await asyncio.to_thread(mortal.server.kill)
        await asyncio.to_thread(mortal.server.start)
        line.target = mortal.url
        line.cut()
        url = await sending
        assert url is not None
        return str(url)

    mortal.check(asyncio.run(upload()), file)
