"""The power fails: what was acknowledged is on the disk, judged by the system calls and not by luck."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from tests.servers import running
from tests.stories.disk_model import Disk
from tests.stories.history import History, judge


def test_a_power_cut_at_the_moment_of_an_acknowledgement_loses_nothing(
    history: History, tmp_path: Path
) -> None:
    disk, cuts = Disk(history.root, history.steps), 0
    for step, last in history.moments(disk):
        if history.answered(step) is not None:
            cuts += 1
            disk.after_a_power_cut(tmp_path / "cut")
            judge(tmp_path / "cut" / "data", *history.known(last))
            shutil.rmtree(tmp_path / "cut")
    assert cuts == len(history.answers)


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_moment_may_keep_some_of_what_was_not_synced(
    history: History, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    disk = Disk(history.root, history.steps)
    for _, last in history.moments(disk):
        if draw.random() < 0.02:
            disk.torn(tmp_path / "cut", draw)
            judge(tmp_path / "cut" / "data", *history.known(last))
            shutil.rmtree(tmp_path / "cut")


@pytest.mark.parametrize(
    "unsynced", ["catalogue.db-wal", "/incoming/"], ids=["the catalogue's log", "the blobs"]
)
def test_the_judge_would_notice_a_sync_that_is_missing(
    history: History, tmp_path: Path, unsynced: str
) -> None:
    trace = [
        step
        for step in history.steps
        if not (step.call in ("fsync", "fdatasync") and unsynced in step.paths[0])
    ]
    disk, noticed = Disk(history.root, trace), False
    for step, last in history.moments(disk):
        if history.answered(step) == 3:
            disk.after_a_power_cut(tmp_path / "cut")
            with pytest.raises(AssertionError):
                judge(tmp_path / "cut" / "data", *history.known(last))
            noticed = True
    assert noticed


def test_a_server_starts_on_what_a_power_cut_left_and_serves_it_all(history: History, tmp_path: Path) -> None:
    disk = Disk(history.root, history.steps)
    for step, _ in history.moments(disk):
        if history.answered(step) == len(history.answers) - 1:
            disk.after_a_power_cut(tmp_path / "cut")
    with running(tmp_path / "cut" / "data") as server, server.client() as client:
        for name, digest in history.states[-1].assets.items():
            assert hashlib.sha256(client.get(f"/b/{name}").content).hexdigest() == digest
        assert server.run("sweep").returncode == 0
        checked = server.run("fsck", "--deep")
        assert checked.returncode == 0, checked.stdout
