"""Resumable uploads against @tus/server, and what others feel meanwhile.

Speed is compared with syncing off on both sides, by a preloaded library: @tus/server has none to begin with.
"""

import base64
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from machine import (
    AUTHORISED,
    KEY,
    MIB,
    Best,
    Figure,
    Server,
    Workplace,
    at_most,
    curl,
    free_port,
    mediasvc,
    running,
)
from visitor import p99, visitor

PARALLEL = 50
TUS = "Tus-Resumable: 1.0.0"


def measure(place: Workplace) -> Iterator[Figure]:
    source, library = place.file(512), preloaded()
    with (
        mediasvc(place, LD_PRELOAD=library) as ours,
        tus_server(place, library) as theirs,
        mediasvc(place) as synced,
        textbook(place, library) as naive,
    ):
        for piece, faster, cheaper, named in (
            (8 * MIB, 1.5, 0.7, "PATCHes of 8 MiB"),
            (source.stat().st_size, 1.2, 0.9, "one PATCH"),
        ):
            fast, other, safe = Best(), Best(), Best()
            for _ in range(place.rounds):
                other.measure(theirs, timed(theirs, f"{theirs.url}/files", source, piece))
                fast.measure(ours, timed(ours, f"{ours.url}/v1/uploads", source, piece))
                safe.measure(synced, timed(synced, f"{synced.url}/v1/uploads", source, piece))
            size = source.stat().st_size / 1e6
            note = f"{size / fast.seconds:.0f} and {size / other.seconds:.0f} MB/s"
            yield Figure(f"{named} ÷ @tus/server", other.seconds / fast.seconds, "×", faster, True, note)
            yield at_most(other, fast, faster)
            yield Figure(f"{named}, CPU ÷ @tus/server", fast.cpu / other.cpu, "×", cheaper, False)
            note = f"ours synced, as it comes: {size / safe.seconds:.0f} MB/s"
            yield Figure(f"{named} ÷ @tus/server", other.seconds / safe.seconds, "×", 1, True, note)
        form = Best()
        for _ in range(place.rounds):
            form.measure(naive, lambda: curl("-F", f"file=@{source}", f"{naive.url}/upload"))
        note = f"{source.stat().st_size / 1e6 / form.seconds:.0f} MB/s"
        yield Figure("one PATCH ÷ a textbook form", form.seconds / fast.seconds, "×", 2, True, note)
    with mediasvc(place) as ours:
        yield from many_at_once(ours, place.file(64))
        yield hung(ours, source)


def many_at_once(ours: Server, source: Path) -> Iterator[Figure]:
    """So many uploads side by side: peak memory, and the 99th percentile of an unrelated request."""
    peaks: dict[int, float] = {}
    for count in (5, PARALLEL):
        ours.forget_peak()
        idle = ours.resident()
        senders = [
            threading.Thread(target=send, args=(f"{ours.url}/v1/uploads", source, 8 * MIB))
            for _ in range(count)
        ]
        with visitor(ours.url) as waits:
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
        peaks[count] = ours.resident(peak=True) - idle
    note = f"{peaks[5]:.0f} MiB with 5"
    yield Figure(f"{PARALLEL} uploads at once, peak above idle", peaks[PARALLEL], "MiB", 150, False, note)
    yield Figure("`/healthz` meanwhile, p99", p99(waits), "ms", 20, False)


def hung(ours: Server, source: Path) -> Figure:
    """Seconds from asking for the offset to going on, while the first connection hangs in the middle of its PATCH."""
    size = source.stat().st_size
    where = created(f"{ours.url}/v1/uploads", size)
    first = socket.create_connection((urlsplit(where).hostname, urlsplit(where).port))
    with first, source.open("rb") as file:
        first.sendall(head("PATCH", where, size, 0))
        first.sendfile(file, 0, 32 * MIB)
        time.sleep(1)
        began = time.perf_counter()
        asked = httpx.head(where, headers=headers())
        offset = int(asked.headers["Upload-Offset"])
        file.seek(offset)
        more = {**headers(), "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        httpx.patch(where, headers=more, content=file.read(MIB)).raise_for_status()
        took = time.perf_counter() - began
    note = f"{(32 * MIB - offset) / MIB:.1f} MiB sent again"
    return Figure("going on after a hung connection", took, "s", 1, False, note)


def timed(server: Server, collection: str, source: Path, piece: int) -> Callable[[], float]:
    def work() -> float:
        began = time.perf_counter()
        where = send(collection, source, piece)
        took = time.perf_counter() - began
        httpx.delete(where, headers=headers())
        if "/v1/" in collection:
            delete_all(server.url)
        return took

    return work


def delete_all(url: str) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for asset in client.get("/v1/assets?bucket=media").json()["assets"]:
            client.delete(f"/v1/assets/{asset['id']}").raise_for_status()


def send(collection: str, source: Path, piece: int) -> str:
    """One whole upload; the client costs next to nothing, for the kernel sends the file. Gives its URL."""
    size = source.stat().st_size
    where = created(collection, size)
    connection = socket.create_connection((urlsplit(where).hostname, urlsplit(where).port))
    with connection, source.open("rb") as file:
        for offset in range(0, size, piece):
            count = min(piece, size - offset)
            connection.sendall(head("PATCH", where, count, offset))
            sent = offset
            while sent < offset + count:
                sent += os.sendfile(connection.fileno(), file.fileno(), sent, offset + count - sent)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(4096)
            if b" 204 " not in answer.split(b"\r\n")[0]:
                raise SystemExit(answer.decode("latin-1"))
    return where


def created(collection: str, size: int) -> str:
    """A new upload's URL. An httpx client would take 20 ms of CPU to begin with, fifty at once a second."""
    name = base64.b64encode(b"bench.bin").decode()
    asked = {**headers(), "Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
    where = urlsplit(collection)
    with closing(HTTPConnection(where.netloc)) as connection:
        connection.request("POST", where.path, headers=asked)
        answer = connection.getresponse()
        location = answer.getheader("Location")
    if location is None:
        raise SystemExit(f"{collection} answered {answer.status}")
    return location


def headers() -> dict[str, str]:
    return {"Tus-Resumable": "1.0.0", "Authorization": f"Bearer {KEY}"}


def head(method: str, url: str, count: int, offset: int) -> bytes:
    where = urlsplit(url)
    lines = [
        f"{method} {where.path} HTTP/1.1",
        f"Host: {where.netloc}",
        TUS,
        AUTHORISED,
        "Content-Type: application/offset+octet-stream",
        f"Content-Length: {count}",
        f"Upload-Offset: {offset}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def tus_server(place: Workplace, library: str) -> Iterator[Server]:
    """@tus/server with its own file store, from npm, pinned by the lock file beside it."""
    recipe = Path(__file__).with_name("tus-server")
    port, folder = free_port(), place.folder / "tus-server"
    shutil.copytree(recipe, folder)
    (folder / "stored").mkdir()
    done = subprocess.run(
        ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"npm ci in {recipe}: {done.stderr or done.stdout}")
    command = ["node", "server.mjs", str(port), str(folder / "stored")]
    with running(command, f"http://127.0.0.1:{port}", "/up", folder=folder, LD_PRELOAD=library) as server:
        yield server


@contextmanager
def textbook(place: Workplace, library: str) -> Iterator[Server]:
    folder, port = place.folder / "textbook-unsynced", free_port()
    folder.mkdir()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "--no-access-log"]
    env = {"TMPDIR": str(folder), "TEXTBOOK_TARGET": str(folder / "stored"), "LD_PRELOAD": library}
    command += ["--port", str(port), "textbook:app"]
    with running(command, f"http://127.0.0.1:{port}", "/up", folder=folder, **env) as server:
        yield server


def preloaded() -> str:
    """libeatmydata, which makes fsync and its kin return at once."""
    found = sorted(Path("/usr/lib").rglob("libeatmydata.so"))
    if not found:
        raise SystemExit("this benchmark needs libeatmydata: as root, apt-get install libeatmydata1")
    return str(found[0])
