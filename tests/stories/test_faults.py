"""Disks that fill up or fail, catalogues that are locked, clients that go away, servers that are told to stop."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.protocols.wire import connect, head
from tests.servers import COMMAND, Server, running
from tests.stories.conftest import need_strace, threads_of, wait_until_traced
from tests.stories.history import picture

MIB = 1 << 20


def leftovers(server: Server, blobs: Path | None = None) -> list[str]:
    """Parts and open intents: what an upload that failed might leave behind."""
    parts = [path.name for path in ((blobs or server.data_dir / "blobs") / "incoming").iterdir()]
    with contextlib.closing(sqlite3.connect(server.data_dir / "catalogue.db")) as catalogue:
        return parts + [row[0] for row in catalogue.execute("SELECT blob_id FROM intent")]


def soon_clean(server: Server, blobs: Path | None = None) -> None:
    """Without any help of a sweep nothing is left behind, and rows and bytes agree."""
    nothing_left(server, blobs)
    fsck(server)


def nothing_left(server: Server, blobs: Path | None = None) -> None:
    deadline = time.monotonic() + 10
    while (left := leftovers(server, blobs)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def fsck(server: Server) -> None:
    checked = server.run("fsck", "--deep", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@contextlib.contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own, in memory."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        reason = "mounting a small file system takes root"
        pytest.fail(reason) if os.environ.get("CI") and not os.geteuid() else pytest.skip(reason)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_told_and_costs_nobody_else_anything(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 6) as disk:
        with (
            running(tmp_path / "data", MEDIASVC_STORE_URL=f"file:{disk}/blobs") as server,
            server.client() as client,
        ):
            assert client.put("/b/media/small", content=b"before").status_code == 201
            stop, statuses = threading.Event(), set()

            def others() -> None:
                with server.client() as another:
                    while not stop.is_set():
                        statuses.add(another.get("/b/media/small").status_code)

            meanwhile = threading.Thread(target=others)
            meanwhile.start()
            for answer in (
                client.put("/b/media/large", content=os.urandom(9 * MIB)),
                client.post("/v1/assets", files={"file": ("large", os.urandom(9 * MIB))}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (507, "store_full")
                assert str(disk) not in answer.text
                assert client.put("/b/media/small", content=b"after").status_code == 200
            stop.set()
            meanwhile.join()
            assert statuses == {200}
            assert client.get("/b/media/large").status_code == 404
            soon_clean(server, disk / "blobs")


def test_a_full_disk_under_the_catalogue_is_told_and_forgotten(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        env = {"MEDIASVC_STORE_URL": f"file:{tmp_path}/blobs"}
        with running(disk / "data", **env) as server, server.client() as client:
            assert client.put("/b/media/kept", content=b"kept").status_code == 201
            with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(4096))
            refused = None
            for number in range(200):
                answer = client.put(f"/b/media/{number}", content=b"x", headers={"X-Tags": "t" * 100})
                if answer.status_code != 201:
                    refused = answer
                    break
            assert refused is not None
            assert refused.status_code in (503, 507), refused.text
            assert client.get("/b/media/kept").content == b"kept"
            (disk / "ballast").unlink()
            assert client.put("/b/media/picture", content=picture()).status_code == 201
            deadline = time.monotonic() + 20  # the dispatcher, too, has got over it
            while not (found := client.get("/v1/assets?bucket=media&prefix=picture").json()["assets"][0])[
                "renditions"
            ]:
                assert time.monotonic() < deadline, found
                time.sleep(0.05)
            soon_clean(server, tmp_path / "blobs")


@contextlib.contextmanager
def failing(call: str, threads: set[str], *, on: Path | None = None, when: str = "1+") -> Iterator[None]:
    """A system call of these threads answers EIO while the block lasts (`on`: only for this file)."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}"]
    only = ["-P", str(on)] if on else []
    whom = [argument for thread in threads for argument in ("-p", thread)]
    tracer = subprocess.Popen(["strace", "-qq", "-o", os.devnull, *inject, *only, *whom])
    wait_until_traced(threads)
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


def blob_threads(server: Server, client: httpx.Client, trace: Path) -> set[str]:
    """The threads that have to do with blobs: not the event loop's, and not those that write the catalogue."""
    calls = "trace=fdatasync,pwrite64"
    watch = ["strace", "-qq", "-f", "-y", "-o", str(trace), "-e", calls, "-p", str(server.pid)]
    tracer = subprocess.Popen(watch)
    wait_until_traced(threads_of(server.pid))
    with ThreadPoolExecutor(16) as uploads:  # so many that every thread there may be has been started
        list(uploads.map(lambda n: client.put(f"/b/media/probe-{n}", content=bytes(MIB)), range(48)))
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    lines = trace.read_text().splitlines()
    others = {line.split()[0] for line in lines if "/catalogue.db" in line} | {str(server.pid)}
    threads = threads_of(server.pid) - others
    assert {line.split()[0] for line in lines if "/incoming/" in line} <= threads
    return threads


@pytest.fixture(scope="module")
def on_a_bad_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, set[str]]]:
    """A server, and the threads of it that write its blobs."""
    need_strace()
    folder = tmp_path_factory.mktemp("bad")
    with running(folder / "data", MEDIASVC_SWEEP_INTERVAL="1") as server, server.client() as client:
        client.put("/b/media/kept", content=b"kept")
        yield server, blob_threads(server, client, folder / "trace")
        fsck(server)


@pytest.mark.parametrize("call", ["openat", "pwrite64", "fdatasync", "rename", "fsync"])
def test_a_disk_that_fails_is_told_and_nothing_is_kept(
    on_a_bad_disk: tuple[Server, set[str]], call: str
) -> None:
    server, threads = on_a_bad_disk
    with server.client() as client:
        with failing(call, threads):
            for answer in (
                client.put(f"/b/media/{call}", content=b"lost" * 1000),
                client.put("/b/media/kept", content=b"replaced" * 1000),
                client.post("/v1/assets", files={"file": (call, b"lost" * 1000)}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "store_fault"), answer.text
                assert "Retry-After" in answer.headers
                assert str(server.data_dir) not in answer.text
            assert client.get(f"/b/media/{call}").status_code == 404
            assert client.get("/b/media/kept").content == b"kept"
        assert client.put(f"/b/media/{call}", content=b"found").status_code == 201
        nothing_left(server)


def test_a_catalogue_that_fails_to_sync_acknowledges_nothing_and_goes_on(tmp_path: Path) -> None:
    need_strace()
    server = Server(tmp_path / "data").start()
    with server.client() as client:
        client.put("/b/media/kept", content=b"kept")
        log = server.data_dir / "catalogue.db-wal"
        for when in ("1+", "2+"):  # the intent's commit, the asset's commit
            with failing("fdatasync", threads_of(server.pid), on=log, when=when):
                for answer in (
                    client.put("/b/media/unsure", content=b"unsure"),
                    client.put("/b/media/kept", content=b"replaced"),
                ):
                    assert answer.status_code == 503, answer.text
                    assert str(server.data_dir) not in answer.text
                assert client.get("/b/media/unsure").status_code == 404
                assert client.get("/b/media/kept").content == b"kept"
            assert client.put(f"/b/media/later{when[0]}", content=b"later").status_code == 201
        assert client.get("/readyz").status_code == 200
    server.kill()
    with server.start().client() as client:
        assert client.get("/b/media/unsure").status_code == 404
        assert client.get("/b/media/kept").content == b"kept"
        assert client.get("/b/media/later2").content == b"later"
        server.run("sweep")
        soon_clean(server)
    assert server.stop() == 0


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose sweep does not come round while a test lasts."""
    with running(tmp_path_factory.mktemp("patient") / "data") as server:
        yield server
        fsck(server)


@pytest.mark.parametrize("percent", [10, 50, 99])
@pytest.mark.parametrize("way", ["length", "chunked", "form"])
def test_a_client_that_goes_away_leaves_nothing(patient: Server, way: str, percent: int) -> None:
    size = 3 * MIB
    before = sorted((patient.data_dir / "blobs").glob("??/??/*"))
    body = os.urandom(size)
    method, target, headers = "PUT", f"/b/media/{way}-{percent}", dict(patient.headers)
    if way == "form":
        start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n'
        body = start % b"whole" + b"1" * 5000 + b"\r\n" + start % b"half" + body + b"\r\n--x--\r\n"
        method, target, headers["Content-Type"] = "POST", "/v1/assets", "multipart/form-data; boundary=x"
    sent = body[: len(body) * percent // 100]
    if way == "chunked":
        headers["Transfer-Encoding"] = "chunked"
        sent = b"%x\r\n%b" % (len(body), sent)
    else:
        headers["Content-Length"] = str(len(body))
    with patient.request_ends(method, target), connect(patient.url) as connection:
        connection.sendall(head(method, target, headers) + sent)
        time.sleep(0.05)
    nothing_left(patient)
    assert sorted((patient.data_dir / "blobs").glob("??/??/*")) == before
    with patient.client() as client:
        assert client.get("/v1/assets?bucket=media").json()["assets"] == []


def test_a_locked_catalogue_is_waited_for_and_then_said_to_be_away(patient: Server) -> None:
    with (
        contextlib.closing(sqlite3.connect(patient.data_dir / "catalogue.db", isolation_level=None)) as other,
        patient.client() as client,
    ):
        for seconds, status in ((1.0, 201), (10.8, 503)):
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(seconds, lambda: None)
            release.start()
            answers: list[httpx.Response] = []

            def upload(into: list[httpx.Response] = answers) -> None:
                with patient.client() as another:
                    into.append(another.put("/b/media/waits", content=b"waits"))

            waiting = threading.Thread(target=upload)
            waiting.start()
            while release.is_alive():
                assert client.get("/b/media/nothing").status_code == 404  # reading waits for nobody
                time.sleep(0.1)
            other.execute("ROLLBACK")
            waiting.join()
            (answer,) = answers
            assert answer.status_code == status, answer.text
            client.delete("/b/media/waits")
        assert answer.json()["code"] == "catalogue_unavailable"
        assert "Retry-After" in answer.headers
        assert client.put("/b/media/waits", content=b"waits").status_code == 201
        client.delete("/b/media/waits")


def test_of_two_servers_that_race_for_a_data_directory_one_serves(tmp_path: Path) -> None:
    command = [*COMMAND, "serve", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MEDIASVC_")}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for _ in range(2)
    ]
    deadline = time.monotonic() + 30
    while all(process.poll() is None for process in both) and time.monotonic() < deadline:
        time.sleep(0.02)
    (refused,) = [process for process in both if process.poll() is not None]
    (serving,) = [process for process in both if process is not refused]
    assert serving.stdout is not None
    greeting = serving.stdout.readline()
    assert "mediasvc listens on" in greeting
    url = greeting.split()[3]
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url + "/healthz").status_code == 200:
                break
    _, said = refused.communicate()
    assert refused.returncode == 7
    assert f"process id {serving.pid}" in said
    serving.send_signal(signal.SIGTERM)
    serving.communicate(timeout=30)
    assert serving.returncode == 0


def test_a_server_told_to_stop_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    server, acknowledged = Server(tmp_path / "data").start(), {}
    key = server.admin_key

    def load(number: int) -> None:
        with contextlib.suppress(httpx.TransportError), server.client(key) as client:
            for turn in range(100_000):
                content = os.urandom(50_000)
                answer = client.put(f"/b/media/{number}/{turn}", content=content)
                if answer.status_code == 503:
                    return
                assert answer.status_code == 201, answer.text
                acknowledged[f"{number}/{turn}"] = content

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    # One that will never end: it is cut after a while, and leaves nothing.
    stalled = connect(server.url)
    stalled.sendall(
        head("PUT", "/b/media/stalled", server.headers | {"Content-Length": str(MIB)}) + bytes(4000)
    )
    time.sleep(1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 30
    stalled.close()
    for thread in threads:
        thread.join()
    assert acknowledged
    clean = server.run("fsck", "--deep", "--json")  # no sweep in between
    assert clean.returncode == 0, clean.stdout
    assert leftovers(server) == []
    assert list((server.data_dir / "runs").iterdir()) == []
    with server.start().client() as client:
        for name, content in acknowledged.items():
            assert client.get(f"/b/media/{name}").content == content
        assert client.get("/b/media/stalled").status_code == 404
    assert server.stop() == 0
