"""What every test may ask for."""

import re
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.ceph import Ceph, refuse_without_ceph
from tests.modes import MODES
from tests.servers import Server, running

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_CEPH = pytest.StashKey[Ceph]()


class ByServers(LoadScopeScheduling):
    """With `-n 2`: the tests of a mode of delivery, or else of a module, run in one process. They share servers."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        named = test.partition("[")[2]
        modes = [mode for mode in MODES if re.match(rf"{mode}[-\]]", named)]
        return modes[0] if modes and "/delivery/" in module else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServers:
    return ByServers(config, log)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A random id gives a test no name: the tests have to be called the same in every process."""
    return val[:3] if isinstance(val, str) and re.fullmatch(r"[a-z]{3}_[0-9a-z]{36}", val) else None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def ceph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """One real S3 service for all tests, each of which makes a bucket of its own."""
    refuse_without_ceph()
    ceph = Ceph(tmp_path_factory.mktemp("ceph"))
    ceph.up()
    request.config.stash[_CEPH] = ceph
    try:
        yield ceph
    finally:
        ceph.down()


@pytest.fixture(scope="module", autouse=True)
def _room_in_ceph(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module's tests have put into their buckets goes with it."""
    yield
    if _CEPH in request.config.stash:
        request.config.stash[_CEPH].empty_buckets()


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
        Server(data_dir, **env).prepare_store()
    with running(data_dir, **env) as server:
        yield server
