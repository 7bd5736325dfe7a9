"""The power fails: what was acknowledged is on the disk, judged by the system calls and not by luck."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.stories.disk_model import Disk
from tests.stories.history import History, State, judge


def moments(history: History, disk: Disk) -> Iterator[tuple[int | None, bool]]:
    """After each step that matters: which answer was sent last, and whether this step sends one."""
    last: int | None = None
    for step in disk.play():
        answered = history.answered(step)
        if answered is not None:
            last = answered
        yield last, answered is not None


def known(history: History, last: int | None) -> tuple[State | None, State | None]:
    """What was acknowledged by then, and what the request under way may make of it."""
    if last is None:
        return None, None
    return history.states[last], history.states[min(last + 1, len(history.states) - 1)]


def test_a_power_cut_at_the_moment_of_an_acknowledgement_loses_nothing(
    history: History, tmp_path: Path
) -> None:
    disk, cuts = Disk(history.root, history.steps), 0
    for last, answers in moments(history, disk):
        if answers:
            cuts += 1
            disk.after_a_power_cut(tmp_path / "cut")
            judge(tmp_path / "cut" / "data", *known(history, last))
            shutil.rmtree(tmp_path / "cut")
    assert cuts == len(history.answers)
