"""What every test may ask for."""

import secrets
from collections.abc import Iterator

import pytest

from tests.ceph import Ceph, refuse_without_ceph
from tests.modes import MODES, Mode, mode
from tests.servers import Server, running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """One real S3 service for all tests, each of which makes a bucket of its own."""
    refuse_without_ceph()
    ceph = Ceph(tmp_path_factory.mktemp("ceph"))
    ceph.up()
    try:
        yield ceph
    finally:
        ceph.down()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server on disk, shared by the tests of a module; tests use keys of their own."""
    with running(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture(scope="module", params=["disk", "s3"])
def each_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server for each kind of store; what a test promises holds on both."""
    data_dir = tmp_path_factory.mktemp(f"server-{request.param}") / "data"
    env = {}
    if request.param == "s3":
        env = request.getfixturevalue("ceph").environment(f"mediasvc-{secrets.token_hex(4)}")
        made = Server(data_dir, **env).run("store", "init")
        assert made.returncode == 0, made.stderr
    with running(data_dir, **env) as server:
        yield server


@pytest.fixture(scope="module", params=MODES)
def each_mode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mode]:
    """A real service for each way in which bytes leave; what HTTP promises holds in all of them."""
    folder = tmp_path_factory.mktemp(request.param)
    with mode(request.param, folder, lambda: request.getfixturevalue("ceph")) as started:
        yield started
