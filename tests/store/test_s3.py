"""What only a store on the network can get wrong."""

import asyncio
import hashlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mediasvc.core.errors import StartupRefused, StoreFault, StoreUnavailable, TooLarge
from mediasvc.core.ids import new_blob_id
from mediasvc.store import s3_upload
from mediasvc.store.digests import Digests
from mediasvc.store.interface import BlobMissing, Stored
from mediasvc.store.parts import MAX_BLOB_SIZE
from mediasvc.store.provision import RULE_ID, init
from mediasvc.store.s3 import S3Store
from mediasvc.store.s3_client import S3Client
from mediasvc.store.url import parse_s3_url
from tests.ceph import Ceph
from tests.store.fault_proxy import FaultProxy, first
from tests.store.in_flight import InFlight

KIB, MIB = 1 << 10, 1 << 20
CHUNK = os.urandom(64 * KIB)


async def body(size: int) -> AsyncIterator[bytes]:
    for at in range(0, size, len(CHUNK)):
        yield CHUNK[: size - at]


def sha256(size: int) -> str:
    whole, rest = divmod(size, len(CHUNK))
    return hashlib.sha256(CHUNK * whole + CHUNK[:rest]).hexdigest()


async def sha256_of(store: S3Store, blob_id: str) -> str:
    digest = hashlib.sha256()
    async with store.open(blob_id) as chunks:
        async for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()


@pytest.fixture
def bucket(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in ceph.keys.items():
        monkeypatch.setenv(name, value)
    return ceph.new_bucket()


def with_store(url: str, story: Callable[[S3Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = S3Store(parse_s3_url(url))
        await store.start()
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture
def gateway_comes_back(ceph: Ceph) -> Iterator[None]:
    yield
    ceph.stop_gateway()
    ceph.start_gateway()


async def everything_is_unavailable(store: S3Store, blob_id: str) -> None:
    """Each within the 30 s that are promised, and with the one error that is."""

    async def read() -> None:
        async with store.open(blob_id) as chunks:
            await anext(aiter(chunks))

    asked: list[Awaitable[Any]] = [
        store.put(new_blob_id(), body(10), Digests()),
        store.put(new_blob_id(), body(20 * MIB), Digests()),
        store.stat(blob_id),
        store.delete(blob_id),
        store.discard(blob_id),
        store.check(),
        read(),
        # More than there are threads: who stands in the queue is told in time as well.
        *(store.put(new_blob_id(), body(10), Digests()) for _ in range(60)),
        *(store.stat(blob_id) for _ in range(60)),
        *(read() for _ in range(60)),
    ]
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(asked)


@pytest.mark.usefixtures("gateway_comes_back")
@pytest.mark.parametrize("how", ["stopped", "hanging"])
def test_a_store_that_is_away_is_unavailable_and_comes_back_by_itself(
    ceph: Ceph, bucket: str, how: str
) -> None:
    async def story(store: S3Store) -> None:
        blob_id = new_blob_id()
        await store.put(blob_id, body(10), Digests())
        pid = ceph.gateway_pid
        if how == "stopped":
            ceph.stop_gateway()
        else:
            os.kill(pid, signal.SIGSTOP)
        try:
            await everything_is_unavailable(store, blob_id)
        finally:
            if how == "stopped":
                ceph.start_gateway()
            else:
                os.kill(pid, signal.SIGCONT)
        await store.check()
        assert await store.put(blob_id, body(9 * MIB), Digests()) == Stored(blob_id, 9 * MIB)
        assert await sha256_of(store, blob_id) == sha256(9 * MIB)

    with_store(ceph.store_url(bucket), story)


def test_a_store_that_is_away_does_not_refuse_the_start(ceph: Ceph, bucket: str) -> None:
    store = S3Store(parse_s3_url(ceph.store_url(bucket, endpoint="http://127.0.0.1:9")))
    with pytest.raises(StoreUnavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
        asyncio.run(store.start())
    asyncio.run(store.close())


@pytest.mark.usefixtures("gateway_comes_back")
def test_an_upload_outlives_a_restart_of_the_gateway(ceph: Ceph, bucket: str) -> None:
    size = 60 * MIB

    async def story(store: S3Store) -> None:
        async def interrupted() -> AsyncIterator[bytes]:
            at = 0
            async for chunk in body(size):
                yield chunk
                at += len(chunk)
                if at == 30 * MIB:
                    ceph.stop_gateway()
                    threading.Thread(target=lambda: (time.sleep(1), ceph.start_gateway())).start()

        blob_id = new_blob_id()
        await store.put(blob_id, interrupted(), Digests(), length=size)
        assert await sha256_of(store, blob_id) == sha256(size)
        assert ceph.unfinished(bucket) == []

    with_store(ceph.store_url(bucket), story)


@pytest.mark.usefixtures("gateway_comes_back")
def test_a_download_outlives_a_restart_of_the_gateway(ceph: Ceph, bucket: str) -> None:
    async def story(store: S3Store) -> None:
        blob_id = new_blob_id()
        await store.put(blob_id, body(60 * MIB), Digests())
        digest = hashlib.sha256()
        async with store.open(blob_id) as chunks:
            async for number, chunk in _numbered(chunks):
                digest.update(chunk)
                if number == 10:
                    ceph.stop_gateway()
                    ceph.start_gateway()
        assert digest.hexdigest() == sha256(60 * MIB)

    with_store(ceph.store_url(bucket), story)


async def _numbered(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for chunk in chunks:
        yield number, chunk
        number += 1


@pytest.mark.usefixtures("gateway_comes_back")
def test_an_upload_cut_off_for_good_is_cleaned_up_by_discard(ceph: Ceph, bucket: str) -> None:
    async def story(store: S3Store) -> None:
        async def interrupted() -> AsyncIterator[bytes]:
            async for chunk in body(20 * MIB):
                yield chunk
            ceph.stop_gateway()
            async for chunk in body(20 * MIB):
                yield chunk

        blob_id = new_blob_id()
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailable):
                await store.put(blob_id, interrupted(), Digests())
        ceph.start_gateway()
        assert [found async for found in store.scan_unfinished()] == [blob_id]
        await store.discard(blob_id)
        assert ceph.unfinished(bucket) == ceph.keys_of(bucket) == []

    with_store(ceph.store_url(bucket), story)


PUT, CREATE, PART = [b"PUT /"], [b"POST /", b"?uploads"], [b"PUT /", b"partNumber=2"]
COMPLETE, HEAD = [b"POST /", b"?uploadId="], [b"HEAD /"]
LOST = {
    "PUT": [PUT],
    "PUT, twice": [PUT, PUT],
    "create": [CREATE],
    "create, twice": [CREATE, CREATE],
    "part": [PART],
    "part, twice": [PART, PART],
    "Complete, which is then not repeated": [COMPLETE],
    "Complete and the look after it": [COMPLETE, HEAD],
    "the look alone": [HEAD],
}


@pytest.mark.parametrize("needles", LOST.values(), ids=LOST)
def test_a_lost_answer_is_looked_after(ceph: Ceph, bucket: str, needles: list[list[bytes]]) -> None:
    size = 10 if PUT in needles else 20 * MIB
    blob_id = new_blob_id()
    losses = [first(1, *some, blob_id.encode()) for some in needles]
    with FaultProxy(
        int(ceph.endpoint.rpartition(":")[2]), lambda data: any(lose(data) for lose in losses)
    ) as proxy:

        async def story(store: S3Store) -> None:
            await store.put(blob_id, body(size), Digests())
            assert await sha256_of(store, blob_id) == sha256(size)

        with_store(ceph.store_url(bucket, endpoint=proxy.endpoint), story)
        assert proxy.lost == len(needles)
    assert ceph.unfinished(bucket) == []
    assert ceph.keys_of(bucket) == [blob_id]


def test_a_blob_that_the_store_lost_behind_its_acknowledgement_is_no_success(
    ceph: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = S3Client.call

    def forgetful(client: S3Client, operation: str, **parameters: Any) -> Any:
        answer = real(client, operation, **parameters)
        if operation == "complete_multipart_upload":
            real(client, "put_object", Key=parameters["Key"], Body=b"not all of it")
        return answer

    async def story(store: S3Store) -> None:
        monkeypatch.setattr(S3Client, "call", forgetful)
        with pytest.raises(StoreFault):
            await store.put(new_blob_id(), body(20 * MIB), Digests())
        assert ceph.unfinished(bucket) == ceph.keys_of(bucket) == []

    with_store(ceph.store_url(bucket), story)


def test_parts_in_flight_of_all_uploads_stay_within_96_mib(
    ceph: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a plan of 24 MiB parts, four fit; what is being sent is counted where it is sent."""
    in_flight = InFlight(monkeypatch)
    length = 24 * MIB * 10_000  # declared, to have large parts; the bodies are shorter

    async def story(store: S3Store) -> None:
        puts = [store.put(new_blob_id(), body(60 * MIB), Digests(), length=length) for _ in range(8)]
        await asyncio.gather(*puts)

    with_store(ceph.store_url(bucket), story)
    assert 48 * MIB < in_flight.most <= 96 * MIB


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_depend_on_the_size(ceph: Ceph, bucket: str) -> None:
    async def story(store: S3Store) -> None:
        await store.put(new_blob_id(), body(20 * MIB), Digests())
        idle = peak = _resident()

        async def watched() -> AsyncIterator[bytes]:
            nonlocal peak
            async for chunk in body(400 * MIB):
                peak = max(peak, _resident())
                yield chunk

        blob_id = new_blob_id()
        await store.put(blob_id, watched(), Digests())
        assert peak - idle < 100 * MIB
        await store.delete(blob_id)

    with_store(ceph.store_url(bucket), story)


def test_what_the_store_can_never_keep_is_refused_before_the_body(ceph: Ceph, bucket: str) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    async def story(store: S3Store) -> None:
        assert store.max_blob_size == MAX_BLOB_SIZE
        with pytest.raises(TooLarge) as refused:
            await store.put(new_blob_id(), untouched(), Digests(), length=MAX_BLOB_SIZE + 1)
        assert refused.value.limit_source == "store"

    with_store(ceph.store_url(bucket), story)


def test_a_body_that_grows_beyond_the_edge_is_too_large_and_leaves_nothing(
    ceph: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload.PartPlan, "edge", property(lambda plan: 20 * MIB))

    async def story(store: S3Store) -> None:
        await store.put(blob_id := new_blob_id(), body(20 * MIB), Digests())
        await store.delete(blob_id)
        with pytest.raises(TooLarge) as refused:
            await store.put(new_blob_id(), body(20 * MIB + 1), Digests())
        assert (refused.value.limit, refused.value.limit_source) == (20 * MIB, "store")
        assert ceph.unfinished(bucket) == ceph.keys_of(bucket) == []

    with_store(ceph.store_url(bucket), story)


def test_discard_touches_no_other_key_of_the_same_beginning(ceph: Ceph, bucket: str) -> None:
    client = ceph.client()
    blob_id = new_blob_id()
    for key in (blob_id, blob_id, blob_id + "x"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    client.close()

    async def story(store: S3Store) -> None:
        await store.discard(blob_id)
        assert ceph.unfinished(bucket) == [blob_id + "x"]
        with pytest.raises(BlobMissing):
            await store.stat(blob_id)

    with_store(ceph.store_url(bucket), story)


REFUSALS = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "no bucket": ({}, "run `mediasvc store init`"),
}


@pytest.mark.parametrize(("env", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_a_store_that_says_no_stops_the_start_with_the_fix(
    ceph: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], sentence: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    store = S3Store(parse_s3_url(ceph.store_url(bucket if env else "no-such-bucket")))
    with pytest.raises(StartupRefused, match=sentence):
        asyncio.run(store.start())
    asyncio.run(store.close())


def test_a_certificate_nobody_vouches_for_stops_the_start(ceph: Ceph, bucket: str) -> None:
    store = S3Store(parse_s3_url(ceph.store_url(bucket, tls=True)))
    with pytest.raises(StartupRefused, match="AWS_CA_BUNDLE"):
        asyncio.run(store.start())
    asyncio.run(store.close())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_init_makes_bucket_and_rule_and_keeps_other_rules(
    ceph: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    if tls:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ceph.ca_bundle))
    name = f"new-{bucket}"
    url = parse_s3_url(ceph.store_url(name, tls=tls))
    first_time = init(url)
    assert (first_time.complete, "has been made" in first_time.lines[0]) == (True, True)
    client = ceph.client()
    other = {"ID": "other", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 7}}
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [other]})
    for _ in range(2):
        again = init(url)
        assert (again.complete, "is there" in again.lines[0]) == (True, True)
        rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]}
        assert set(rules) == {"other", RULE_ID}
        assert rules["other"]["Expiration"]["Days"] == 7
        assert rules[RULE_ID]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 30}
    client.close()
