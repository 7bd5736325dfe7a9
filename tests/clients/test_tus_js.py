"""tus-js-client, in tus and in the IETF's drafts, with nothing going wrong."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.clients.npm import TusJs
from tests.clients.service import MIB, File, Service

DRAFTS = ("ietf-draft-03", "ietf-draft-05")
WAYS = {
    "one-patch": {},
    "chunked": {"chunkSize": MIB},
    "with-the-creation": {"uploadDataDuringCreation": True},
    "with-the-creation-chunked": {"uploadDataDuringCreation": True, "chunkSize": MIB},
    "post-for-patch": {"overridePatchMethod": True, "chunkSize": 2 * MIB},
    "parallel": {"parallelUploads": 3},
    "parallel-chunked": {"parallelUploads": 4, "chunkSize": MIB},
    "deferred": {"uploadLengthDeferred": True, "chunkSize": MIB},
}
PROTOCOLS = {"tus": {}} | {draft: {"protocol": draft} for draft in DRAFTS}
OF_TUS = {"parallel", "parallel-chunked", "deferred"}
BOTH = [
    pytest.param(way | protocol, id=f"{name}-{spoken}")
    for name, way in WAYS.items()
    for spoken, protocol in PROTOCOLS.items()
    if spoken == "tus" or name not in OF_TUS
]


def begun_at(service: Service, options: dict[str, object]) -> dict[str, object]:
    return {"endpoint": service.endpoint, "headers": service.headers} | options


@pytest.mark.parametrize("options", BOTH)
def test_every_way_to_send_a_file_ends_with_the_file(
    service: Service, file: File, options: dict[str, object]
) -> None:
    with TusJs(file, begun_at(service, options)) as client:
        service.check(client.finish(), file)


def test_an_empty_file_is_a_file(service: Service, tmp_path: Path) -> None:
    """Not in the drafts: there it never says that an empty upload is complete."""
    empty = File.of(tmp_path / "empty", 0)
    with TusJs(empty, begun_at(service, {})) as client:
        service.check(client.finish(), empty)


@pytest.mark.parametrize("way", ["one-patch", "parallel"])
def test_eighty_mebibytes(service: Service, large: File, way: str) -> None:
    with TusJs(large, begun_at(service, WAYS[way])) as client:
        service.check(client.finish(), large)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("way", ["one-patch", "chunked"])
def test_an_aborted_upload_goes_on_where_it_was(
    service: Service, new_file: Callable[[int], File], way: str, protocol: dict[str, object]
) -> None:
    file = new_file(24 * MIB)
    with TusJs(file, begun_at(service, WAYS[way] | protocol), abortAt=3 * MIB) as client:
        service.check(client.finish(), file)
        assert [event["sent"] for event in client.heard if "sent" in event].count("POST") == 1


def test_an_upload_that_is_given_up_is_gone(service: Service, large: File) -> None:
    options = begun_at(service, {"chunkSize": MIB})
    with TusJs(large, options, abortAt=3 * MIB, terminate=True) as client:
        client.wait()
        url = client.last("terminated")
    answer = httpx.head(url, headers=service.headers | {"Tus-Resumable": "1.0.0"})
    assert answer.status_code in (404, 410)


def test_its_metadata_names_the_asset(service: Service, file: File) -> None:
    names = {"filename": "Grüße aus Köln.bin", "filetype": "application/x-thing", "bucket": "media"}
    metadata = names | {"key": f"named/{service.name}.bin"}
    with TusJs(file, begun_at(service, {"metadata": metadata})) as client:
        client.finish()
    service.check_named("media", metadata["key"], file)
