"""What the stories share."""

import os
import shutil

import pytest

from tests.stories.history import History, live


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A server's life under strace, lived once."""
    need("strace")
    return live(tmp_path_factory.mktemp("history"))


def need(tool: str) -> None:
    """Skip where a tool is missing; under CI that is a failure."""
    if not shutil.which(tool):
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
