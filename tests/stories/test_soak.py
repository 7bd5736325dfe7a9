"""Many clients on few names for a while, with sweeps and checks beside them: nothing is lost, mixed or left over."""

import contextlib
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.servers import Server, running

SECONDS = 10
BUCKET = "soak"


class Gone(Exception):
    """The client hangs up."""


def breaking(content: bytes, at: int) -> Iterator[bytes]:
    yield content[:at]
    raise Gone


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Notes:
    """What was sent and what was acknowledged, for each name."""

    sent: dict[str, set[str]] = field(default_factory=dict)
    acknowledged: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)  # names some DELETE may have reached
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sending(self, name: str, content: bytes) -> None:
        with self.lock:
            self.requests += 1
            self.sent.setdefault(name, set()).add(sha256(content))

    def stored(self, asset: dict[str, object], content: bytes) -> None:
        with self.lock:
            if asset["sha256"] != sha256(content):
                self.problems.append(f"{asset} is not what was sent")
            version = (str(asset["id"]), int(str(asset["version"])))
            self.acknowledged.setdefault(str(asset["key"]), {})[version] = sha256(content)


def client_at_work(server: Server, notes: Notes, seed: int, until: float) -> None:
    draw = random.Random(seed)
    with server.client() as client:
        while time.monotonic() < until:
            name = f"shared-{draw.randrange(4)}" if draw.random() < 0.6 else f"own-{seed}"
            content = os.urandom(draw.choice((10, 5_000, 300_000)))
            try:
                one_request(client, notes, draw, name, content)
            except httpx.HTTPError as error:
                notes.problems.append(repr(error))


def one_request(client: httpx.Client, notes: Notes, draw: random.Random, name: str, content: bytes) -> None:
    url = f"/b/{BUCKET}/{name}"
    match draw.choice(("put", "put", "put", "get", "get", "form", "delete", "abort", "mismatch")):
        case "put":
            notes.sending(name, content)
            answer = client.put(url, content=content)
            if answer.status_code in (200, 201):
                notes.stored(answer.json(), content)
            elif answer.status_code != 409:
                notes.problems.append(answer.text)
        case "abort":
            with contextlib.suppress(Gone):
                client.put(url, content=breaking(content, draw.randrange(len(content))))
        case "mismatch":
            answer = client.put(url, content=content, headers={"X-Checksum-Sha256": "0" * 64})
            if answer.status_code != 422:
                notes.problems.append(answer.text)
        case "get":
            answer = client.get(url)
            if answer.status_code == 200 and sha256(answer.content) not in notes.sent.get(name, set()):
                notes.problems.append(f"{name} holds what nobody sent")
            elif answer.status_code not in (200, 404):
                notes.problems.append(answer.text)
        case "form":
            names = (f"form-{draw.getrandbits(60)}" for _ in range(2))
            files = dict(zip(names, (content, content[::-1]), strict=True))
            for key, value in files.items():
                notes.sending(key, value)
            answer = client.post(
                "/v1/assets", params={"bucket": BUCKET}, files=[("f", pair) for pair in files.items()]
            )
            for asset in answer.json().get("assets", ()):
                notes.stored(asset, files[asset["key"]])
            if answer.status_code != 201:
                notes.problems.append(answer.text)
        case "delete":
            notes.deleted.add(name)
            answer = client.delete(url)
            if answer.status_code not in (204, 404):
                notes.problems.append(answer.text)


def test_many_clients_on_few_names_lose_and_mix_nothing(tmp_path: Path) -> None:
    notes = Notes()
    with running(tmp_path / "data", MEDIASVC_SWEEP_INTERVAL="1") as server, server.client() as client:
        client.post("/v1/buckets", json={"name": BUCKET, "quota_bytes": 10**12}).raise_for_status()
        until = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=client_at_work, args=(server, notes, seed, until)) for seed in range(8)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            for command in (("sweep",), ("fsck", "--deep", "--json")):
                done = server.run(*command)
                assert done.returncode == 0, done.stdout + done.stderr
        for thread in threads:
            thread.join()
        assert notes.problems == []

        kept = {asset["key"]: asset for asset in listed(client)}
        assert kept.keys() >= {name for name in notes.acknowledged if name not in notes.deleted}
        for name, asset in kept.items():
            content = client.get(f"/b/{BUCKET}/{name}").content
            assert sha256(content) == asset["sha256"]
            versions = notes.acknowledged[name]
            assert versions[asset["id"], asset["version"]] == asset["sha256"]
            assert asset["version"] == max(version for id_, version in versions if id_ == asset["id"])

        deadline = time.monotonic() + 10
        while (checked := server.run("fsck", "--deep", "--json")).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        assert checked.returncode == 0, checked.stdout
        to_the_byte(client, sum(asset["size"] for asset in kept.values()))


def listed(client: httpx.Client) -> Iterator[dict[str, Any]]:
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/assets", params={"bucket": BUCKET, "limit": "500"} | cursor).json()
        yield from page["assets"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def to_the_byte(client: httpx.Client, used: int) -> None:
    """The counters agree with the rows: what is left of a quota can be filled, and not one byte more."""
    client.patch(f"/v1/buckets/{BUCKET}", json={"quota_bytes": used + 1000}).raise_for_status()
    assert client.put(f"/b/{BUCKET}/too-much", content=bytes(1001)).status_code == 413
    assert client.put(f"/b/{BUCKET}/just-right", content=bytes(1000)).status_code == 201
    assert client.put(f"/b/{BUCKET}/one-more", content=b"x").status_code == 413
    assert client.delete(f"/b/{BUCKET}/just-right").status_code == 204
    assert client.put(f"/b/{BUCKET}/again", content=bytes(1000)).status_code == 201
