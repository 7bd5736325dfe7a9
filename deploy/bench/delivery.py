"""Downloads through nginx, from disk and from S3, against nginx static and the store itself, all in one run."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import boto3
import httpx
from botocore.config import Config
from ceph import KEYS, Gateway, gateway
from downloads import requests
from machine import (
    AUTHORISED,
    KEY,
    MIB,
    Figure,
    Pair,
    Server,
    Workplace,
    apart,
    bare_behind_nginx,
    behind_nginx,
    curl,
    get,
    mediasvc,
    nginx,
)
from readers import slow_readers

TIMES = 8  # transfers in one measurement: one alone may take a third more or less; the CPU's clock ticks every 10 ms


@dataclass
class Transfers:
    """Of the same URL: the seconds of each round, and the least of them and of the CPU seconds of nginx and of Python,
    per byte."""

    server: Server
    url: str
    size: int
    client: Callable[[str, int], float]
    nginx: float = field(default=float("inf"), init=False)
    python: float = field(default=float("inf"), init=False)
    rounds: list[float] = field(default_factory=list, init=False)

    def measure(self) -> None:
        before = self.server.cpu("nginx"), self.server.cpu("python")
        seconds = self.client(self.url, TIMES)
        bytes_ = TIMES * self.size
        self.rounds.append(seconds / bytes_)
        self.nginx = min(self.nginx, (self.server.cpu("nginx") - before[0]) / bytes_)
        self.python = min(self.python, (self.server.cpu("python") - before[1]) / bytes_)

    @property
    def seconds(self) -> float:
        return min(self.rounds)

    def told(self) -> str:
        speed = f"{1e-6 / self.seconds:.0f} MB/s"
        return f"{speed}, nginx {self.nginx * 1e9:.2f} and Python {self.python * 1e9:.3f} CPU-s/GB"


def interleave(rounds: int, *all_: Transfers) -> None:
    """Rounds of all, forwards and backwards by turns: what a transfer leaves in the caches hits each alike. The first
    transfer of each, which finds the file on the disk or fills a cache, does not count."""
    for transfers in all_:
        transfers.client(transfers.url, 1)
    for number in range(rounds):
        for transfers in all_[:: 1 if number % 2 == 0 else -1]:
            transfers.measure()


def measure(place: Workplace) -> Iterator[Figure]:
    with behind_nginx(place) as pair, nginx(place) as static, mediasvc(place) as alone:
        yield from small(place, pair, static)
        yield from archive(place, alone)
        yield from refused(place, pair)
        yield from slow_readers(pair, place.file(1024), "behind nginx", 5, readers=1000, patience=50)
    with gateway(place) as s3, behind_nginx(place, **s3.env) as pair, nginx(place) as static:
        yield from from_s3(place, s3, pair, static)


def large(place: Workplace) -> Iterator[Figure]:
    """One file from disk, apart from the rest: its noise asks for more rounds."""
    file = place.file(1024)
    size = file.stat().st_size
    with behind_nginx(place) as pair, nginx(place) as static:
        url = put(pair, file)
        clients = ((fetch, "curl"), (partial(discard, size), "a client that has the kernel discard it"))
        for client, who in clients:
            mine = Transfers(pair, url, size, client)
            theirs = Transfers(static, f"{static.url}/{file.name}", size, client)
            with apart(pair, static):
                interleave(place.rounds, theirs, mine)
            what, note = f"1 GiB from disk to {who} ÷ nginx static", f"{mine.told()}; static {theirs.told()}"
            yield Figure(what, theirs.seconds / mine.seconds, "×", 0.95, True, note)
            what = f"the same, mean of {TIMES * place.rounds} transfers of each"
            yield Figure(what, sum(theirs.rounds) / sum(mine.rounds), "×", 0.95, True)
            yield Figure("its CPU in nginx", mine.nginx * 1e9, "s/GB", 0.20, False)
            yield Figure("its CPU in Python", mine.python * 1e9, "s/GB", 0.01, False)


def small(place: Workplace, pair: Pair, static: Server) -> Iterator[Figure]:
    one = place.folder / "1-byte.bin"
    one.write_bytes(b"1")
    with bare_behind_nginx(place, place.file(0), one) as floor:
        for file, what, goal in ((place.file(0), "64 KiB", 0.40), (one, "1 byte", 0.25)):
            url, mine, theirs, least = put(pair, file), 0.0, 0.0, 0.0
            for _ in range(place.rounds):
                theirs = max(theirs, requests(f"{static.url}/{file.name}"))
                least = max(least, requests(f"{floor.url}/{file.name}"))
                mine = max(mine, requests(url))
            note = f"{mine:.0f} and {theirs:.0f} a second"
            yield Figure(f"{what}, authorised, ÷ nginx static", mine / theirs, "×", goal, True, note)
            what = "the same, decided by a bare ASGI callable: the floor"
            yield Figure(what, least / theirs, "×", goal, True)


def from_s3(place: Workplace, s3: Gateway, pair: Pair, static: Server) -> Iterator[Figure]:
    """A file too large for the cache and one that just fits, the second one from the warm cache."""
    large, cached = place.file(512), place.file(64)
    mine = Transfers(pair, put(pair, large), large.stat().st_size, fetch)
    direct = Transfers(pair, presigned(s3, large), large.stat().st_size, fetch)
    warm = Transfers(pair, put(pair, cached), cached.stat().st_size, fetch)
    theirs = Transfers(static, f"{static.url}/{cached.name}", cached.stat().st_size, fetch)
    interleave(place.rounds, direct, mine, theirs, warm)
    note = f"{mine.told()}; the store {1e-6 / direct.seconds:.0f} MB/s"
    yield Figure("512 MiB from S3 ÷ the store itself", direct.seconds / mine.seconds, "×", 0.5, True, note)
    note = f"{warm.told()}; static {1e-6 / theirs.seconds:.0f} MB/s"
    ratio = theirs.seconds / warm.seconds
    yield Figure("64 MiB from the warm cache ÷ nginx static", ratio, "×", 0.6, True, note)
    written = pair.log.read_text(errors="replace").count("buffered to a temporary file")
    yield Figure("answers that nginx put into temporary files", written, "", 0, False)


def archive(place: Workplace, alone: Server) -> Iterator[Figure]:
    """One ZIP of four large assets, without nginx."""
    large = place.file(512)
    assets = [stored(alone, large, f"part-{number}") for number in range(4)]
    asked = {"assets": [asset["id"] for asset in assets], "expires_in": 3600}
    made = httpx.post(f"{alone.url}/v1/archives", json=asked, headers={"Authorization": f"Bearer {KEY}"})
    url, size = made.raise_for_status().json()["url"], made.json()["size"]
    cpu = float("inf")
    for _ in range(place.rounds):
        before = alone.cpu()
        fetch(url, 1)
        cpu = min(cpu, alone.cpu() - before)
    yield Figure("an archive of 2 GiB in direct mode, CPU", cpu / size * 1e9, "s/GB", 0.25, False)


def refused(place: Workplace, pair: Pair) -> Iterator[Figure]:
    """What curl had sent of 400 MB when it gave up, without asking first (`Expect`)."""
    source = place.file(382)
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{json}", "-H", "Expect:", "-T", str(source)]
    for key, status in (("msk_nobody", 401), (KEY, 413)):
        bucket = "media" if status == 401 else small_bucket(pair)
        url = f"{pair.url}/b/{bucket}/refused"
        done = subprocess.run(
            [*command, "-H", f"Authorization: Bearer {key}", url], capture_output=True, text=True
        )
        said = json.loads(done.stdout)
        if said["http_code"] != status:
            raise SystemExit(f"{url}: {said['http_code']} instead of {status}")
        note = f"{status} after {said['time_total'] * 1000:.0f} ms"
        yield Figure("a refused upload of 400 MB, sent", said["size_upload"] / 1e6, "MB", 4, False, note)


def small_bucket(pair: Pair) -> str:
    policy = {"name": "small", "max_asset_size": MIB // 4}
    httpx.post(
        f"{pair.url}/v1/buckets", json=policy, headers={"Authorization": f"Bearer {KEY}"}
    ).raise_for_status()
    return "small"


def put(server: Server, file: Path) -> str:
    """Stores the file; gives its URL."""
    url = f"{server.url}/b/media/{file.name}"
    curl("-T", file, "-H", AUTHORISED, url)
    return url


def stored(server: Server, file: Path, name: str) -> dict[str, str]:
    """Stores the file under a name; gives the asset."""
    url = f"{server.url}/b/media/{name}"
    curl("-T", file, "-H", AUTHORISED, url)
    asked = {"bucket": "media", "prefix": name}
    listed = httpx.get(
        f"{server.url}/v1/assets", params=asked, headers={"Authorization": f"Bearer {KEY}"}
    ).json()
    asset: dict[str, str] = listed["assets"][0]
    return asset


def presigned(s3: Gateway, file: Path) -> str:
    """The same bytes in the store itself, and a URL at which they can be had."""
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(signature_version="s3v4"),
    )
    client.upload_file(str(file), s3.bucket, "direct")
    named = {"Bucket": s3.bucket, "Key": "direct"}
    return str(client.generate_presigned_url("get_object", named, ExpiresIn=3600))


def fetch(url: str, times: int) -> float:
    """Seconds that so many transfers took, one after the other, each by a curl of its own and with a request of another
    length: at some lengths the same bytes from the same server take curl a fifth longer."""
    # The store refuses whoever shows a key beside a presigned URL.
    key = [] if "X-Amz-" in url else ["-H", AUTHORISED]
    return sum(curl(*key, "-H", "X-Pad: " + "-" * (1 + 128 * number), url) for number in range(times))


def discard(size: int, url: str, times: int) -> float:
    """Seconds of as many transfers to a client that copies nothing (MSG_TRUNC): what is measured is the sender."""
    buffer, seconds = bytearray(MIB), 0.0
    for _ in range(times):
        began, received = time.perf_counter(), 0
        with get(url) as connection:
            while count := connection.recv_into(buffer, MIB, socket.MSG_TRUNC):
                received += count
        seconds += time.perf_counter() - began
        if received <= size:
            raise SystemExit(f"{url}: an answer of {received} bytes")
    return seconds
