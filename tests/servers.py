"""A real `mediasvc serve` in a process of its own, for tests that stand outside."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from tests.watch import watch

COMMAND = [sys.executable, "-m", "mediasvc"]
BEHIND_NGINX = Path(__file__).parents[1] / "deploy" / "behind-nginx"


class Server:
    """One data directory and the server that runs on it, started and stopped as often as a test likes."""

    command: ClassVar[list[str]] = COMMAND

    def __init__(self, data_dir: Path, **env: str) -> None:
        self.data_dir = data_dir
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith("MEDIASVC_")
        } | env
        self.url = ""
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, wrapper: tuple[str, ...] = (), wait: float = 30) -> "Server":
        """Run until /healthz answers; on the same port as before. `wrapper` goes before the command (strace …)."""
        self.log = open(self.data_dir.parent / f"{self.data_dir.name}.log", "a", encoding="utf-8")  # noqa: SIM115
        arguments = ["serve", "--data-dir", str(self.data_dir), "--port", str(self._port)]
        self._process = subprocess.Popen(
            [*wrapper, *self.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=self.env,
        )
        assert self._process.stdout is not None
        greeting = self._process.stdout.readline()
        if not (match := re.search(r"http://127\.0\.0\.1:(\d+)", greeting)):
            self.kill()
            raise AssertionError(f"no start: {self.logged()[-2000:]}")
        self.url, self._port = match[0], int(match[1])
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + "/healthz", timeout=5).status_code == 200:
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"not healthy: {self.logged()[-2000:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def admin_key(self) -> str:
        return self.env.get("MEDIASVC_ADMIN_KEY") or (self.data_dir / "admin.key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.admin_key}"}

    def client(self, key: str | None = None, *, anonymous: bool = False, **more: object) -> httpx.Client:
        """An httpx client with the admin key, another one, or none."""
        headers = {} if anonymous else {"Authorization": f"Bearer {key or self.admin_key}"}
        hooks = {"response": [watch]}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, event_hooks=hooks, **more)  # type: ignore[arg-type]

    def logged(self) -> str:
        return (self.data_dir.parent / f"{self.data_dir.name}.log").read_text(
            encoding="utf-8", errors="replace"
        )

    @contextlib.contextmanager
    def request_ends(self, method: str, path: str) -> Iterator[None]:
        """The block begins a request, and may go away from it; it is over for the server as well afterwards."""
        time.sleep(0.15)  # lines are written up to a tenth of a second late: those of earlier requests, too
        line = f'"method": "{method}", "path": "{path}", "status": '
        told, deadline = self.logged().count(line), time.monotonic() + 10
        yield
        while self.logged().count(line) == told:
            assert time.monotonic() < deadline, f"{method} {path} goes on and on"
            time.sleep(0.02)

    def wait(self, timeout: float = 30) -> int:
        """The exit code, once the process has ended by itself."""
        assert self._process is not None
        code = self._process.wait(timeout)
        self._close()
        return code

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.log.close()
        self._process = None

    def run(self, *arguments: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        """Another command on the same data directory: `run("fsck", "--json")`."""
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=self.env | {"MEDIASVC_DATA_DIR": str(self.data_dir)} | env,
        )

    def prepare_store(self) -> None:
        """Make the bucket that `MEDIASVC_STORE_URL` names."""
        made = self.run("store", "init")
        assert made.returncode == 0, made.stderr

    def check_leftovers(self) -> None:
        """Nothing lies about, neither rows nor bytes too many, and nothing went wrong that has no name."""
        deadline = time.monotonic() + 20
        while (checked := self.run("fsck", "--json")).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "request_error" not in self.logged()


class BehindNginx(Server):
    """The same behind nginx, started by deploy/behind-nginx: `url` is nginx's, `pid` that of the script."""

    command: ClassVar[list[str]] = [sys.executable, str(BEHIND_NGINX)]

    def __init__(self, data_dir: Path, **env: str) -> None:
        self._temporary = data_dir.parent / f"{data_dir.name}.tmp"
        self._temporary.mkdir(exist_ok=True)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        super().__init__(data_dir, **{"PATH": path, "TMPDIR": str(self._temporary)} | env)

    @property
    def nginx_dir(self) -> Path:
        """What nginx works in: its configuration, its cache, temporary files."""
        (folder,) = self._temporary.glob("mediasvc-nginx-*")
        return folder

    @property
    def cache_dir(self) -> Path:
        """Where nginx keeps what it fetched from S3."""
        return self.nginx_dir / "cache"


@contextlib.contextmanager
def behind_nginx(data_dir: Path, **env: str) -> Iterator[BehindNginx]:
    """nginx and a server behind it for the length of a block; skips where nginx is not installed, fails under CI."""
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "nginx is not installed (deploy/test installs it)"
        )
    server = BehindNginx(data_dir, **env)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running(data_dir: Path, **env: str) -> Iterator[Server]:
    """A server for the length of a block."""
    server = Server(data_dir, **env).start()
    try:
        yield server
    finally:
        server.stop()
