"""tuspy, the Python client of tus's own makers."""

import asyncio
import gc
import io
import threading
from collections.abc import Callable, Iterator

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed
from tusclient.storage.filestorage import FileStorage

from tests.clients.line import Line
from tests.clients.service import MIB, File, Service

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
CHECKED = pytest.mark.parametrize("checked", [False, True], ids=["plain", "checksum"])


@pytest.fixture(autouse=True)
def _files_are_closed() -> Iterator[None]:
    """It leaves its files to the garbage collector."""
    yield
    gc.collect()


@CHECKED
@pytest.mark.parametrize("chunk", [MIB, 2 * MIB + 1, 1 << 40], ids=["1MiB", "2MiB+1", "whole"])
def test_a_file_arrives(service: Service, file: File, chunk: int, checked: bool) -> None:
    client = TusClient(service.endpoint, headers=service.headers)
    uploader = client.uploader(
        str(file.path), chunk_size=chunk, upload_checksum=checked, metadata={"filename": "Füße.bin"}
    )
    uploader.upload()
    service.check(uploader.url, file)


@CHECKED
def test_eighty_mebibytes(service: Service, large: File, checked: bool) -> None:
    client = TusClient(service.endpoint, headers=service.headers)
    uploader = client.uploader(str(large.path), chunk_size=16 * MIB, upload_checksum=checked)
    uploader.upload()
    service.check(uploader.url, large)


def test_the_asynchronous_one_as_well(service: Service, file: File) -> None:
    async def upload() -> str:
        client = TusClient(service.endpoint, headers=service.headers)
        uploader = client.async_uploader(str(file.path), chunk_size=MIB)
        await uploader.upload()
        return str(uploader.url)

    service.check(asyncio.run(upload()), file)


def test_what_was_stopped_goes_on_in_another_run(
    service: Service, file: File, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With nothing kept but its own note of the URL."""
    notes = str(tmp_path_factory.mktemp("tuspy") / "notes.json")

    def run(stop_at: int | None) -> str:
        storage = FileStorage(notes)
        client = TusClient(service.endpoint, headers=service.headers)
        uploader = client.uploader(str(file.path), chunk_size=MIB, store_url=True, url_storage=storage)
        began = uploader.offset
        uploader.upload(stop_at=stop_at)
        storage.close()
        assert began == (0 if stop_at else 2 * MIB)
        return str(uploader.url)

    first, second = run(2 * MIB), run(None)
    assert first == second
    service.check(first, file)


def test_a_chunk_that_does_not_match_its_checksum_changes_nothing(service: Service, file: File) -> None:
    """The file changes under its hands: what it has hashed is not what it sends."""
    client = TusClient(service.endpoint, headers=service.headers)
    uploader = client.uploader(str(file.path), chunk_size=MIB, upload_checksum=True)
    uploader.upload(stop_at=2 * MIB)

    class Wrong:
        def __init__(self, _: bytes) -> None: ...
        def digest(self) -> bytes:
            return bytes(20)

    algorithm = "_BaseUploader__checksum_algorithm"
    right = getattr(uploader, algorithm)
    setattr(uploader, algorithm, Wrong)
    with pytest.raises(TusUploadFailed) as failed:
        uploader.upload()
    assert failed.value.status_code == 460
    assert uploader.get_offset() == 2 * MIB
    setattr(uploader, algorithm, right)
    uploader.upload()
    service.check(uploader.url, file)


@pytest.mark.parametrize(
    ("mortal", "chunk", "checked"),
    [
        pytest.param("disk", 4 * MIB, False, id="disk-chunked"),
        pytest.param("disk", 1 << 40, True, id="disk-whole-checksum"),
        pytest.param("nginx", 4 * MIB, True, id="nginx-chunked-checksum"),
        pytest.param("s3", 1 << 40, False, id="s3-whole"),
    ],
    indirect=["mortal"],
)
def test_kill_9_in_the_middle_and_it_goes_on(
    mortal: Service, line: Line, new_file: Callable[[int], File], chunk: int, checked: bool
) -> None:
    file = new_file(24 * MIB + 1)
    client = TusClient(f"{line.url}/v1/uploads", headers=mortal.headers)
    uploader = client.uploader(
        file_stream=io.BytesIO(file.content),
        chunk_size=chunk,
        upload_checksum=checked,
        retries=50,
        retry_delay=0.1,  # type: ignore[arg-type]
    )
    line.hold_after(14 * MIB)
    sending = threading.Thread(target=uploader.upload)
    sending.start()
    line.wait_until_held()
    mortal.server.kill()
    mortal.server.start()
    line.target = mortal.url
    line.cut()
    sending.join()
    mortal.check(uploader.url, file)
