"""What tells the living from the dead, with real processes."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mediasvc.catalogue.interface import Runs
from mediasvc.catalogue.runs import FileRuns
from mediasvc.core.ids import new_run_id

RUNS = {"files": FileRuns}

_LIVE = """
import subprocess, sys
from pathlib import Path
from mediasvc.catalogue.runs import FileRuns
runs = FileRuns(Path(sys.argv[1]))
print(runs.begin(), flush=True)
if "with a child" in sys.argv:
    child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=False)
    print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=RUNS.values(), ids=RUNS)
def new_runs(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Runs]:
    return lambda: request.param(tmp_path / "runs")  # type: ignore[no-any-return]


@pytest.fixture
def runs(new_runs: Callable[[], Runs]) -> Runs:
    return new_runs()


@contextmanager
def living(directory: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process with a run of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LIVE, str(directory), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_run_lives_until_it_ends(runs: Runs, new_runs: Callable[[], Runs]) -> None:
    assert runs.known() == []
    run = runs.begin()
    for asked in (runs, new_runs()):
        assert asked.alive(run)
        assert asked.known() == [run]
    runs.end(run)
    assert not runs.alive(run)
    assert runs.known() == []
    runs.end(run)


@pytest.mark.parametrize("name", [new_run_id(), "", ".", "../runs", "run_x", "/etc/passwd"])
def test_a_run_nobody_began_is_dead(runs: Runs, name: str) -> None:
    other = runs.begin()
    assert not runs.alive(name)
    runs.end(name)
    assert runs.known() == [other]


def test_runs_are_told_apart(runs: Runs) -> None:
    first, second = runs.begin(), runs.begin()
    assert sorted([first, second]) == runs.known()
    runs.end(first)
    assert not runs.alive(first)
    assert runs.alive(second)


def test_a_killed_process_is_dead_at_once_and_stays_known(tmp_path: Path) -> None:
    runs = FileRuns(tmp_path)
    with living(tmp_path) as (process, run):
        assert runs.alive(run)
        assert runs.alive(run)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not runs.alive(run)
        assert runs.known() == [run]
        runs.end(run)
        assert runs.known() == []


def test_a_child_does_not_keep_its_parents_run_alive(tmp_path: Path) -> None:
    with living(tmp_path, "with a child") as (process, run):
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            assert not FileRuns(tmp_path).alive(run)
        finally:
            os.kill(child, signal.SIGKILL)


def test_askers_do_not_mistake_one_another_for_the_living(tmp_path: Path) -> None:
    runs = FileRuns(tmp_path)
    with living(tmp_path) as (process, run):
        process.kill()
        process.wait()
        asking = os.open(tmp_path / run, os.O_RDONLY)
        try:
            fcntl.flock(asking, fcntl.LOCK_SH)
            assert not runs.alive(run)
        finally:
            os.close(asking)


def test_a_start_killed_before_its_run_had_a_name_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / f"{new_run_id()}.new").touch()
    runs = FileRuns(tmp_path)
    run = runs.begin()
    assert [path.name for path in tmp_path.iterdir()] == [run]


def test_many_starts_at_once_all_live(tmp_path: Path) -> None:
    several = [
        subprocess.Popen(
            [sys.executable, "-c", _LIVE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        named = {process.stdout.readline().strip() for process in several if process.stdout}
        runs = FileRuns(tmp_path)
        assert set(runs.known()) == named
        assert all(map(runs.alive, named))
    finally:
        for process in several:
            process.kill()
            process.communicate()
