"""The ways bytes leave: one real service for each, and what is particular to it."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.ceph import Ceph
from tests.servers import Server, running

MIB = 1 << 20
CACHED = 2 * MIB + 600_001
STREAMED = 65 * MIB  # more than the cache takes


@dataclass(frozen=True)
class Mode:
    """`server.url` is where clients ask; an asset of `size` bytes takes the way that `plan` names in /metrics.

    `chill()` makes the caches in front forget what they hold, where the mode is about that.
    """

    name: str
    server: Server
    size: int
    plan: str
    chill: Callable[[], None]
    ceph: Ceph | None
    bucket: str

    @property
    def proxied(self) -> bool:
        return self.name.startswith("nginx")

    def break_blobs(self, keep: set[str]) -> set[str]:
        """Take every blob but those in `keep` out of the store; gives the ids of what is gone."""
        gone = self.blobs() - keep
        if self.ceph is None:
            for path in self._files():
                if path.name in gone:
                    path.unlink()
        else:
            client = self.ceph.client()
            for key in self.ceph.keys_of(self.bucket):
                if key.rpartition("/")[2] in gone:
                    client.delete_object(Bucket=self.bucket, Key=key)
            client.close()
        return gone

    def blobs(self) -> set[str]:
        """The ids of all blobs there are."""
        if self.ceph is None:
            return {path.name for path in self._files()}
        return {key.rpartition("/")[2] for key in self.ceph.keys_of(self.bucket)}

    def _files(self) -> list[Path]:
        return [path for path in (self.server.data_dir / "blobs").rglob("*") if path.is_file()]


@dataclass(frozen=True)
class _Kind:
    store: str
    delivery: str
    plan: str
    size: int = CACHED
    cold: bool = False


MODES = {
    "direct-disk": _Kind("disk", "direct", "sendfile"),
    "direct-s3": _Kind("s3", "direct", "stream"),
    "nginx-disk": _Kind("disk", "nginx", "nginx"),
    "nginx-s3": _Kind("s3", "nginx", "nginx", STREAMED),
    "nginx-cache-warm": _Kind("s3", "nginx", "nginx"),
    "nginx-cache-cold": _Kind("s3", "nginx", "nginx", cold=True),
}
REDIRECT = _Kind("s3", "redirect", "redirect")


@contextmanager
def mode(
    name: str, folder: Path, ceph: Callable[[], Ceph], *, endpoint: str | None = None, **env: str
) -> Iterator[Mode]:
    """A service that delivers in this way, for the length of a block.

    `ceph` is asked for only where needed, and reached at `endpoint`, where that is given.
    """
    kind = MODES.get(name, REDIRECT)
    gateway, bucket = None, ""
    data_dir = folder / "data"
    if kind.store == "s3":
        gateway, bucket = ceph(), f"mediasvc-{secrets.token_hex(4)}"
        env = gateway.keys | {"MEDIASVC_STORE_URL": gateway.store_url(bucket, endpoint=endpoint)} | env
        Server(data_dir, **env).prepare_store()
    if kind.delivery == "redirect":
        env["MEDIASVC_DELIVERY"] = "redirect"
    start = servers.behind_nginx if kind.delivery == "nginx" else running
    with start(data_dir, **env) as server:
        chill = _forgetting(server) if kind.cold else _nothing
        yield Mode(name, server, kind.size, kind.plan, chill, gateway, bucket)


def _nothing() -> None:
    pass


def _forgetting(server: Server) -> Callable[[], None]:
    """nginx takes a cached answer whose file is gone for one it does not have."""

    def forget() -> None:
        for entry in server.cache_dir.iterdir():
            shutil.rmtree(entry, ignore_errors=True)

    return forget


def need(*programs: str) -> None:
    """Skip where a program is missing; under CI that is a failure."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        reason = f"{', '.join(missing)} not installed (deploy/test installs it)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
