"""`mediasvc serve`: the first minute, and the last."""

import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.protocols import wire
from tests.servers import COMMAND, Server, running

ADMIN_KEY = "msk_" + secrets.token_hex(20)


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MEDIASVC_")} | more


def serve(data_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to be refused."""
    command = [*COMMAND, "serve", "--data-dir", str(data_dir), *(arguments or ("--port", "0"))]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment(**env))


def greeting(data_dir: Path, **env: str) -> tuple[subprocess.Popen[str], list[str]]:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--data-dir", str(data_dir), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(**env),
    )  # fmt: skip
    assert process.stdout is not None
    return process, [process.stdout.readline() for _ in range(2)]


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stdout is not None
    process.stdout.close()


class Ending(threading.Thread):
    """Sends SIGTERM and takes the time."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.code = -1
        self.seconds = 0.0

    def run(self) -> None:
        began = time.monotonic()
        self.code = self.server.stop()
        self.seconds = time.monotonic() - began


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("fixed") / "data", MEDIASVC_ADMIN_KEY=ADMIN_KEY) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def stopped_early(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ending]:
    """A server told to stop while an upload and a download stand still; its last test looks how it ended."""
    server = Server(tmp_path_factory.mktemp("ending") / "data").start()
    with server.client() as api:
        assert api.put("/b/public/large", content=bytes(50 << 20)).status_code == 201
    upload, download = wire.connect(server.url), wire.connect(server.url)
    with upload, download:
        upload.sendall(
            wire.head("PUT", "/b/media/never", server.headers | {"Content-Length": "3000000"}) + b"x" * 99
        )
        download.sendall(wire.head("GET", "/b/public/large", {}))
        assert download.recv(1000)
        ending = Ending(server)
        ending.start()
        yield ending
        ending.join()


@pytest.mark.parametrize("folder", ["data", 'it\'s "$HOME"'])
def test_the_line_of_the_greeting_works_when_pasted(tmp_path: Path, folder: str) -> None:
    process, lines = greeting(tmp_path / folder)
    try:
        line = lines[1].removeprefix("try: ").strip()
        assert line.startswith("date | curl")
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/f/ast_\w+/hello\.txt\n", done.stdout), done
    finally:
        end(process)


def test_the_line_works_with_a_key_from_the_environment(tmp_path: Path) -> None:
    process, lines = greeting(tmp_path / "data", MEDIASVC_ADMIN_KEY=ADMIN_KEY)
    try:
        assert ADMIN_KEY not in "".join(lines)
        line = lines[1].removeprefix("try: ").strip()
        assert '":$MEDIASVC_ADMIN_KEY"' in line
        env = environment(MEDIASVC_ADMIN_KEY=ADMIN_KEY)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, env=env)
        assert done.stdout.startswith("http://127.0.0.1")
    finally:
        end(process)


def test_the_admin_key_is_for_its_owner_alone_and_stays(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running(data_dir) as server:
        file = data_dir / "admin.key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        first = file.read_text().strip()
        assert first.startswith("msk_")
        assert first not in server.logged()
    with running(data_dir) as server:
        assert file.read_text().strip() == first
        assert httpx.get(server.url + "/v1/keys", headers=server.headers).status_code == 200


def test_a_key_from_the_environment_is_written_nowhere(fixed: Server) -> None:
    with fixed.client() as api:
        assert api.put("/b/media/x", content=b"1").status_code == 201
        secret = api.post("/v1/keys", json={"scopes": ["assets:read"]}).json()["secret"]
        with fixed.client(secret) as other:
            assert other.get("/v1/assets").status_code == 200
    assert not (fixed.data_dir / "admin.key").exists()
    for file in fixed.data_dir.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert ADMIN_KEY.encode() not in content, file
            assert secret.encode() not in content, file
    assert ADMIN_KEY not in fixed.logged()
    assert secret not in fixed.logged()


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    refused = serve(server.data_dir)
    assert refused.returncode not in (0, 2)
    sentence = refused.stderr.strip().splitlines()[-1]
    assert str(server.pid) in sentence
    assert "Traceback" not in refused.stderr
    assert httpx.get(server.url + "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("shared.db", "shared.db"),
        ("shared.db", "one/../shared.db"),
        ("shared.db", "alias.db"),
        ("", "one/catalogue.db"),
        ("two/catalogue.db", ""),
    ],
)
def test_a_catalogue_has_one_server_whatever_its_data_directory(
    tmp_path: Path, first: str, second: str
) -> None:
    (tmp_path / "alias.db").symlink_to("shared.db")
    (tmp_path / "two").mkdir()
    env, other = (
        {"MEDIASVC_STORE_URL": f"file:{tmp_path}/blobs"}
        | ({"MEDIASVC_CATALOGUE_URL": f"sqlite:{tmp_path}/{path}"} if path else {})
        for path in (first, second)
    )
    with running(tmp_path / "one", **env) as server, ThreadPoolExecutor(1) as pool, server.client() as client:
        go_on = threading.Event()

        def slow() -> Iterator[bytes]:
            yield b"begun, "
            go_on.wait(30)
            yield b"and ended"

        upload = pool.submit(client.put, "/b/media/slow", content=slow())
        try:
            refused = serve(tmp_path / "two", **other)
            assert refused.returncode == 7
            assert str(server.pid) in refused.stderr
            swept = Server(tmp_path / "two", **other).run("sweep")  # who is at work is known there, too
            assert swept.returncode == 0, swept.stderr
        finally:
            go_on.set()
        assert upload.result().status_code == 201
        assert client.get("/b/media/slow").content == b"begun, and ended"


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = serve(tmp_path / "data", "--port", port)
    assert refused.returncode not in (0, 2)
    assert port in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


REFUSED = {
    "misspelled": ({"MEDIASVC_STOER_URL": "x"}, "MEDIASVC_STORE_URL"),
    "unknown delivery": ({"MEDIASVC_DELIVERY": "apache"}, "MEDIASVC_DELIVERY"),
    "redirect to a disk": ({"MEDIASVC_DELIVERY": "redirect"}, "MEDIASVC_DELIVERY"),
    "postgresql": ({"MEDIASVC_CATALOGUE_URL": "postgresql://x/y"}, "MEDIASVC_CATALOGUE_URL"),
    "short key": ({"MEDIASVC_ADMIN_KEY": "msk_short"}, "MEDIASVC_ADMIN_KEY"),
    "bad size": ({"MEDIASVC_MAX_UPLOAD_SIZE": "lots"}, "MEDIASVC_MAX_UPLOAD_SIZE"),
    "bad store": ({"MEDIASVC_STORE_URL": "ftp://x"}, "MEDIASVC_STORE_URL"),
}


@pytest.mark.parametrize(("env", "named"), REFUSED.values(), ids=REFUSED)
def test_a_setting_without_sense_stops_the_start(tmp_path: Path, env: dict[str, str], named: str) -> None:
    refused = serve(tmp_path / "data", **env)
    assert refused.returncode not in (0, 2)
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "msk_short" not in refused.stderr


def test_what_kubernetes_injects_is_ignored(tmp_path: Path) -> None:
    injected = {
        "MEDIASVC_SERVICE_HOST": "10.0.0.1",
        "MEDIASVC_SERVICE_PORT": "8000",
        "MEDIASVC_PORT": "tcp://10.0.0.1:8000",
        "MEDIASVC_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "MEDIASVC_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    with running(tmp_path / "data", **injected) as server:
        assert httpx.get(server.url + "/readyz").status_code == 200
        assert "MEDIASVC_SERVICE_HOST" in server.logged()


def test_sigterm_under_load_is_clean(tmp_path: Path) -> None:
    """An upload and a download in flight: both end whole or visibly cut, the exit code is 0."""
    data_dir = tmp_path / "data"
    server = Server(data_dir).start()
    with server.client() as api:
        assert api.put("/b/public/large", content=bytes(50 << 20)).status_code == 201
    upload, download = wire.connect(server.url), wire.connect(server.url)
    with upload, download:
        upload.sendall(wire.head("PUT", "/b/media/late", server.headers | {"Content-Length": "3000000"}))
        upload.sendall(bytes(1_000_000))
        download.sendall(wire.head("GET", "/b/public/large", {}))
        assert download.recv(1000).startswith(b"HTTP/1.1 200")

        def finish() -> None:
            time.sleep(0.3)
            upload.sendall(bytes(2_000_000))

        finisher = threading.Thread(target=finish)
        finisher.start()
        began = time.monotonic()
        threading.Thread(target=download.close).start()
        assert server.stop() == 0
        assert time.monotonic() - began < 30
        finisher.join()
        assert wire.read_answer(upload).status == 201  # what could finish in time did
    with running(data_dir) as again, again.client() as api:
        assert len(api.get("/b/media/late").content) == 3_000_000
        assert again.run("fsck", "--json").returncode == 0


def test_the_module_starts_like_the_command() -> None:
    for command in ([sys.executable, "-m", "mediasvc"], [str(Path(sys.executable).with_name("mediasvc"))]):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert "serve" in done.stdout


def test_the_limit_of_open_files_is_raised(server: Server) -> None:
    (line,) = (
        one
        for one in Path(f"/proc/{server.pid}/limits").read_text().splitlines()
        if one.startswith("Max open files")
    )
    soft, hard = line.split()[3:5]
    assert soft == hard


def test_sigterm_does_not_wait_for_ever(stopped_early: Ending) -> None:
    stopped_early.join()
    assert stopped_early.code == 0
    assert stopped_early.seconds < 30
    with running(stopped_early.server.data_dir) as again, again.client() as api:
        assert api.get("/b/media/never").status_code == 404
        assert again.run("fsck", "--json").returncode == 0
