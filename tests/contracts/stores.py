"""Every store behind its door; a new one is one line in STORES."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mediasvc.store.interface import BlobStore
from tests.ceph import Ceph
from tests.contracts.stalled_put import store_at


@dataclass(frozen=True)
class NewStore:
    """Makes stores over the same, at first empty, room; each must be started and closed by who made it."""

    address: str

    def __call__(self) -> BlobStore:
        return store_at(self.address)


def _local(request: pytest.FixtureRequest) -> str:
    folder: Path = request.getfixturevalue("tmp_path")
    return str(folder / "blobs")


def _s3(request: pytest.FixtureRequest, *, tls: bool = False) -> str:
    ceph: Ceph = request.getfixturevalue("ceph")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    bucket = ceph.new_bucket()
    for name, value in ceph.environment(bucket, tls=tls).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return ceph.store_url(bucket, tls=tls)


def _s3_tls(request: pytest.FixtureRequest) -> str:
    return _s3(request, tls=True)


STORES: dict[str, Callable[[pytest.FixtureRequest], str]] = {"local": _local, "s3": _s3, "s3-tls": _s3_tls}


@pytest.fixture(params=STORES.values(), ids=STORES)
def new_store(request: pytest.FixtureRequest) -> NewStore:
    return NewStore(request.param(request))
