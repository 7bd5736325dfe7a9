"""kill -9 at any moment: what was acknowledged is there, what was not leaves nothing."""

import hashlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.servers import Server
from tests.stories.conftest import need_strace, threads_of, wait_until_traced
from tests.stories.disk_model import Disk
from tests.stories.history import History, judge, picture


def test_a_kill_after_any_call_of_a_whole_life_loses_nothing(history: History, tmp_path: Path) -> None:
    draw = random.Random(8)
    disk = Disk(history.root, history.steps)
    for step, last in history.moments(disk):
        # Most calls are pages of the catalogue's log; of the others every fifth is a moment to die.
        if draw.random() < (0.02 if step.call == "pwrite64" else 0.2):
            disk.after_a_kill(tmp_path / "left")
            judge(tmp_path / "left" / "data", *history.known(last))
            shutil.rmtree(tmp_path / "left")


@dataclass
class Ledger:
    """One data directory that is killed again and again, and what its servers acknowledged."""

    server: Server
    present: dict[str, bytes] = field(default_factory=dict)
    unsure: dict[str, set[bytes | None]] = field(default_factory=dict)  # what a lost answer leaves open

    def put(self, client: httpx.Client, name: str, content: bytes) -> None:
        self.unsure[name] = {self.present.get(name), content}
        client.put(f"/b/media/{name}", content=content).raise_for_status()
        self._settle(name, content)

    def delete(self, client: httpx.Client, name: str) -> None:
        self.unsure[name] = {self.present.get(name), None}
        client.delete(f"/b/media/{name}").raise_for_status()
        self._settle(name, None)

    def form(self, client: httpx.Client, files: dict[str, bytes]) -> None:
        self.unsure |= {name: {None, content} for name, content in files.items()}
        sent = [("file", (name, content)) for name, content in files.items()]
        client.post("/v1/assets", files=sent).raise_for_status()
        for name, content in files.items():
            self._settle(name, content)

    def _settle(self, name: str, content: bytes | None) -> None:
        del self.unsure[name]
        self.present.pop(name, None)
        if content is not None:
            self.present[name] = content

    def check(self, client: httpx.Client) -> None:
        """Everything reads back; what is unsure is one of two things, as a whole, and is known from now on."""
        form = {name: None for name in self.unsure if name.startswith("form-")}
        for name in self.unsure:
            found = client.get(f"/b/media/{name}")
            content = found.content if found.status_code == 200 else None
            assert content in self.unsure[name], name
            form |= {name: content is not None} if name in form else {}
            self.present.pop(name, None)
            if content is not None:
                self.present[name] = content
        assert len(set(form.values())) <= 1, "a form is one thing"
        self.unsure.clear()
        listed = client.get("/v1/assets", params={"bucket": "media", "limit": 1000}).json()["assets"]
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.present.items()}
        assert {asset["key"]: asset["sha256"] for asset in listed} == digests
        for name, content in self.present.items():
            assert client.get(f"/b/media/{name}").content == content


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    need_strace()
    ledger = Ledger(Server(tmp_path_factory.mktemp("kills") / "data"))
    yield ledger
    with ledger.server.start().client() as client:
        ledger.check(client)
    assert ledger.server.stop() == 0
    fsck(ledger.server)


def attach(pid: int, call: str, number: int) -> "subprocess.Popen[bytes]":
    """Kill the process when a thread of it makes the call for the so-manieth time from now."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *inject, "-p", str(pid)])
    wait_until_traced(threads_of(pid))
    return tracer


def fsck(server: Server) -> None:
    checked = server.run("fsck", "--deep", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def a_new_asset(ledger: Ledger, client: httpx.Client, call: str) -> None:
    ledger.put(client, f"new-{call}", call.encode() * 200_000)


def a_replacement(ledger: Ledger, client: httpx.Client, call: str) -> None:
    ledger.put(client, "again", b"first")
    ledger.put(client, "again", call.encode() * 100)


def a_form(ledger: Ledger, client: httpx.Client, call: str) -> None:
    ledger.form(client, {f"form-{call}-{number}": call.encode() * 9 ** (2 + number) for number in range(3)})


def a_deletion(ledger: Ledger, client: httpx.Client, call: str) -> None:
    ledger.put(client, "gone", b"soon")
    ledger.delete(client, "gone")


def a_picture(ledger: Ledger, client: httpx.Client, call: str) -> None:
    ledger.put(client, f"picture-{call}", picture())
    deadline = time.monotonic() + 20  # its renditions are made after the answer: wait to be killed
    while time.monotonic() < deadline:
        time.sleep(0.05)
        client.get("/healthz")


@pytest.mark.parametrize(
    ("what", "call", "number"),
    [
        (a_new_asset, "pwrite64", 4),
        (a_new_asset, "rename", 1),
        (a_new_asset, "write,sendto,sendmsg", 2),
        (a_replacement, "pwrite64", 30),
        (a_form, "fdatasync", 3),
        (a_deletion, "unlink", 1),
        (a_picture, "rename", 2),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_kill_at_a_call_leaves_what_sweep_and_fsck_put_right(
    ledger: Ledger, what: Callable[[Ledger, httpx.Client, str], None], call: str, number: int
) -> None:
    server = ledger.server.start()
    with server.client() as client:
        ledger.check(client)
        tracer = attach(server.pid, call, number)
        with pytest.raises(httpx.TransportError):
            what(ledger, client, call.partition(",")[0])
    assert server.wait() == -9
    tracer.wait(10)
    swept = server.run("sweep")
    assert swept.returncode == 0, swept.stderr
    fsck(server)
    left = [path.name for path in (server.data_dir / "blobs" / "incoming").iterdir()]
    assert left == []
    assert list((server.data_dir / "runs").iterdir()) == []
