"""What every test may ask for."""

from collections.abc import Iterator

import pytest

from tests.servers import Server, running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server on disk, shared by the tests of a module; tests use keys of their own."""
    with running(tmp_path_factory.mktemp("server") / "data") as server:
        yield server
