"""What the stories share."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.stories.history import History, live


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A server's life under strace, lived once."""
    need_strace()
    return live(tmp_path_factory.mktemp("history"))


def need_strace() -> None:
    """Skip where strace is missing or may not trace; under CI that is a failure."""
    if not shutil.which("strace"):
        reason = "strace is not installed"
    elif subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True).returncode:
        reason = "strace may not trace here (a container without CAP_SYS_PTRACE)"
    else:
        return
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def threads_of(pid: int) -> set[str]:
    return {path.name for path in Path(f"/proc/{pid}/task").iterdir()}


def wait_until_traced(threads: set[str]) -> None:
    """strace has attached to each of them (or it has ended)."""
    deadline = time.monotonic() + 10
    while not all(map(_traced, threads)):
        assert time.monotonic() < deadline, "strace did not attach"
        time.sleep(0.01)


def _traced(thread: str) -> bool:
    try:
        return "TracerPid:\t0\n" not in Path(f"/proc/{thread}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
