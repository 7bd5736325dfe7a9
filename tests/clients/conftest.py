"""What clients upload, and where to."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.line import Line
from tests.clients.service import MIB, File, Service
from tests.servers import Server, behind_nginx, running

KINDS = ("disk", "nginx", "s3")


def _environment(kind: str, request: pytest.FixtureRequest, data_dir: Path) -> dict[str, str]:
    """What a server needs for its store; the bucket is made."""
    if not kind.endswith("s3"):
        return {}
    env: dict[str, str] = request.getfixturevalue("ceph").environment(f"mediasvc-{secrets.token_hex(4)}")
    Server(data_dir, **env).prepare_store()
    return env


@pytest.fixture(scope="session", params=KINDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on disk, on disk behind nginx, and on S3 ("nginx-s3": both), for clients that have no trouble. Tests
    share it."""
    data_dir = tmp_path_factory.mktemp(f"clients-{request.param}") / "data"
    start = behind_nginx if request.param.startswith("nginx") else running
    with start(data_dir, **_environment(request.param, request, data_dir)) as server:
        yield Service(request.param, server)
        server.check_leftovers()


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as line:
        yield line


@pytest.fixture(params=["disk", "nginx"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path, line: Line) -> Iterator[Service]:
    """A service of the test's own at the other end of `line`; it can be killed, and started on what it left."""
    data_dir = tmp_path / "data"
    env = {"MEDIASVC_PUBLIC_URL": line.url} | _environment(request.param, request, data_dir)
    with contextlib.ExitStack() as stack:
        start = behind_nginx if request.param == "nginx" else running
        server = stack.enter_context(start(data_dir, **env))
        line.target = server.url
        yield Service(request.param, server)


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], File]:
    """Files of random bytes, of this size."""
    folder = tmp_path_factory.mktemp("files")
    return lambda size: File.of(folder / f"{secrets.token_hex(4)}.bin", size)


@pytest.fixture(scope="session")
def file(new_file: Callable[[int], File]) -> File:
    """A few MiB and an odd rest."""
    return new_file(5 * MIB + 12_345)


@pytest.fixture(scope="session")
def large(new_file: Callable[[int], File]) -> File:
    return new_file(80 * MIB)
