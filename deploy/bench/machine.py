"""Servers as processes, what they use of the machine, and the files they are measured with."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

KEY = "msk_" + "b" * 40
AUTHORISED = f"Authorization: Bearer {KEY}"
TICK = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclass(frozen=True)
class Figure:
    """One line of the table; `goal` is compared with `value` in the direction `at_least` says."""

    what: str
    value: float
    unit: str
    goal: float
    at_least: bool
    note: str = ""

    def __str__(self) -> str:
        reached = self.value >= self.goal if self.at_least else self.value <= self.goal
        sign = "≥" if self.at_least else "≤"
        what = f"{self.what} ({self.note})" if self.note else self.what
        return (
            f"| {what} | {self.value:.2f} {self.unit} | {sign} {self.goal:g} | {'yes' if reached else 'no'} |"
        )


@dataclass(frozen=True)
class Workplace:
    """Where a run keeps its files, how many rounds it makes, and how large its files are."""

    folder: Path
    rounds: int
    scale: float

    def file(self, mib: int) -> Path:
        """A file of random bytes, in the page cache; made once."""
        path = self.folder / f"{mib}.bin"
        size = max(64 * 1024, int(mib * MIB * self.scale))
        if not path.exists():
            with path.open("wb") as file:
                for at in range(0, size, MIB):
                    file.write(os.urandom(min(MIB, size - at)))
            os.sync()
        return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running process that answers at `url`; `ready_after` is the seconds from its start to the first 200."""

    url: str
    pid: int
    ready_after: float

    def family(self) -> list[int]:
        """The process and all that descend from it."""
        parents: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = _stat(int(entry))
                if fields:
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        found = [self.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found

    def cpu(self, program: str = "") -> float:
        """Seconds of CPU, user and system, of the process and its children, the ended ones included; of those only
        that run `program`, where one is named."""
        chosen = [pid for pid in self.family() if not program or _program(pid).startswith(program)]
        return sum(sum(map(int, fields[11:15])) for pid in chosen if (fields := _stat(pid))) / TICK

    def resident(self, *, peak: bool = False) -> float:
        """MiB of the serving process now, or at most since `forget_peak`."""
        return _memory(self.pid, "VmHWM" if peak else "VmRSS")

    def helpers(self) -> float:
        """MiB of its children: the decoders and what starts them."""
        return sum(_memory(pid, "VmRSS") for pid in self.family()[1:])

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def _stat(pid: int) -> list[str] | None:
    """The fields after the name: state, parent, … utime at 11."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").resolve().name
    except OSError:
        return ""


def _memory(pid: int, field: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field)), 0)


@contextmanager
def running(command: list[str], url: str, path: str, *, folder: Path, **env: str) -> Iterator[Server]:
    """A process of ours, from when `url` + `path` answers 200 until the end of the block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MEDIASVC_")}
    with (folder / "log").open("ab") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=clean | env, cwd=folder, stdout=log, stderr=log)
        try:
            while not answers(url + path):
                if process.poll() is not None or time.perf_counter() - started > 60:
                    raise SystemExit(f"{command[0]} did not start: {(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.005)
            yield Server(url, process.pid, time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def bare(place: Workplace) -> Iterator[Server]:
    """bare.py: uvicorn with our protocol and nothing behind it."""
    port = free_port()
    folder = place.folder / f"bare-{port}"
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(port)]
    with running(command, f"http://127.0.0.1:{port}", "/", folder=folder) as server:
        yield server


@contextmanager
def mediasvc(place: Workplace, **env: str) -> Iterator[Server]:
    """`mediasvc serve` on a data directory of its own."""
    port = free_port()
    folder = place.folder / f"mediasvc-{port}"
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "mediasvc",
        "serve",
        "--port",
        str(port),
        "--data-dir",
        str(folder / "data"),
    ]
    env = {"MEDIASVC_ADMIN_KEY": KEY, "MEDIASVC_SWEEP_INTERVAL": "1h", **env}
    try:
        with running(command, f"http://127.0.0.1:{port}", "/readyz", folder=folder, **env) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@dataclass
class Pair(Server):
    """nginx in front of a `mediasvc`, as deploy/behind-nginx starts them: `resident` of the service, `log` of both."""

    log: Path

    def resident(self, *, peak: bool = False) -> float:
        return max(_memory(pid, "VmHWM" if peak else "VmRSS") for pid in self.family() if _serves(pid))


def _serves(pid: int) -> bool:
    """Whether it is the service itself, and not what started it or what it started."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False
    return "serve" in words and not any(word.endswith("behind-nginx") for word in words)


@contextmanager
def behind_nginx(place: Workplace, **env: str) -> Iterator[Pair]:
    """`deploy/behind-nginx serve` on a data directory of its own."""
    port = free_port()
    folder = place.folder / f"pair-{port}"
    folder.mkdir()
    command = [str(Path(__file__).parents[1] / "behind-nginx"), "serve", "--port", str(port)]
    command += ["--data-dir", str(folder / "data")]
    env = {"MEDIASVC_ADMIN_KEY": KEY, "MEDIASVC_SWEEP_INTERVAL": "1h", **env}
    try:
        with running(command, f"http://127.0.0.1:{port}", "/readyz", folder=folder, **env) as server:
            yield Pair(server.url, server.pid, server.ready_after, folder / "log")
    finally:
        shutil.rmtree(folder)


@contextmanager
def bare_behind_nginx(place: Workplace, *blobs: Path) -> Iterator[Server]:
    """The same nginx, but what it asks is bare.py, which hands it the blob that the URL's path names."""
    folder = place.folder / "shim"
    folder.mkdir()
    port = free_port()
    service = folder / "mediasvc"
    # Called as `mediasvc serve --data-dir … --host … --port N`.
    service.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("bare.py")} "$7"\n')
    service.chmod(0o755)
    for blob in blobs:
        (folder / "data/blobs").mkdir(parents=True, exist_ok=True)
        shutil.copy(blob, folder / "data/blobs" / blob.name)
    command = [str(Path(__file__).parents[1] / "behind-nginx"), "serve", "--port", str(port)]
    command += ["--data-dir", str(folder / "data")]
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    with running(command, f"http://127.0.0.1:{port}", f"/{blobs[0].name}", folder=folder, **env) as server:
        yield server


@contextmanager
def nginx(place: Workplace) -> Iterator[Server]:
    """nginx with sendfile in front of the workplace's files, and without a log."""
    port = free_port()
    folder = place.folder / f"nginx-{port}"
    folder.mkdir()
    place.folder.chmod(0o755)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(
        f"daemon off; {user} worker_processes 1; pid {folder}/pid; events {{ worker_connections 2048; }} "
        f"http {{ {temporary} access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; "
        f"server {{ listen 127.0.0.1:{port}; root {place.folder}; location = /up {{ return 200; }} }} }}"
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "nginx"
    command = [program, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/conf"]
    with running(command, f"http://127.0.0.1:{port}", "/up", folder=folder) as server:
        yield server


@contextmanager
def apart(*servers: Server) -> Iterator[None]:
    """Servers on the first core and this process, with the clients it starts, on the last: where the scheduler happens
    to put a sender and its receiver is worth a tenth of the throughput of one transfer."""
    cores = os.sched_getaffinity(0)

    def bind(serving: set[int], asking: set[int]) -> None:
        for server in servers:
            for pid in server.family():
                os.sched_setaffinity(pid, serving)
        os.sched_setaffinity(0, asking)

    bind({min(cores)}, {max(cores)})
    try:
        yield
    finally:
        bind(cores, cores)


def curl(*arguments: str | Path) -> float:
    """Seconds that one transfer by curl took. Ends the run if it was no success."""
    command = [
        "curl",
        "-sS",
        "--fail-with-body",
        "-o",
        "/dev/null",
        "-w",
        "%{time_total}",
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[5:])}: {done.stderr.strip()} {done.stdout}")
    return float(done.stdout)


def get(url: str, *, receive_buffer: int = 0) -> socket.socket:
    """A connection that was asked for a download and closes after it. `receive_buffer`: the bytes that the kernel takes
    in for a reader that is slow; 0: as it likes."""
    where = urlsplit(url)
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((where.hostname, where.port))
    head = f"GET {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n{AUTHORISED}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


@dataclass
class Best:
    """The fastest and the cheapest of several rounds; `busy` is the share of all cores that the fastest used."""

    seconds: float = float("inf")
    cpu: float = float("inf")
    busy: float = 0

    def measure(self, server: Server, work: Callable[[], float]) -> None:
        before, idle, began = server.cpu(), idle_seconds(), time.perf_counter()
        seconds = work()
        passed = time.perf_counter() - began
        if seconds < self.seconds:
            self.seconds = seconds
            self.busy = 1 - (idle_seconds() - idle) / passed / (os.cpu_count() or 1)
        self.cpu = min(self.cpu, server.cpu() - before)


def at_most(naive: Best, ours: Best, goal: float) -> Figure:
    """What more parallel work could reach at best, with the CPU that ours and the client's take together."""
    what = f"the same, were all cores busy all of the time and not {ours.busy:.0%} of it"
    return Figure(what, naive.seconds / ours.seconds / ours.busy, "×", goal, True)


def idle_seconds() -> float:
    """Seconds that all cores together had nothing to do, since the machine started."""
    return int(Path("/proc/stat").read_text().split(maxsplit=5)[4]) / TICK
