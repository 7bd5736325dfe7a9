"""What is on the disk before a server is: its data directory and its catalogue, and which server holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mediasvc.core.errors import StartupRefused
from mediasvc.settings import Settings
from mediasvc.store.disk import sync_folder


@contextmanager
def server_lock(settings: Settings, address: str) -> Iterator[None]:
    """Hold data directory and catalogue for this process. Raises StartupRefused naming the server that has one."""
    make_data_dir(settings.data_dir)
    locks = {  # mostly one and the same
        settings.beside_catalogue("server.lock"): (settings.catalogue_path, "MEDIASVC_CATALOGUE_URL"),
        (settings.data_dir / "server.lock").resolve(): (settings.data_dir, "--data-dir"),
    }
    with ExitStack() as held:
        for lock, (what, setting) in locks.items():
            held.enter_context(_locked(lock, what, setting, address))
        yield


@contextmanager
def _locked(path: Path, what: Path, setting: str, address: str) -> Iterator[None]:
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - what the block raises is none of this
    except OSError as error:
        raise StartupRefused(f"{path} cannot be written ({error.strerror}): is {setting} right?") from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another server"
            raise StartupRefused(
                f"{what} is in use by {holder}; stop it or choose another {setting}"
            ) from None
        lock.truncate(0)
        lock.write(f"mediasvc with process id {os.getpid()} at {address}\n")
        lock.flush()
        yield


def find_catalogue(settings: Settings) -> None:
    """Raises StartupRefused."""
    if not settings.catalogue_path.exists():
        hint = "MEDIASVC_CATALOGUE_URL" if settings.catalogue_url else "--data-dir"
        raise StartupRefused(f"there is no catalogue at {settings.catalogue_path}: is {hint} right?")


def make_data_dir(path: Path) -> None:
    """With all its parents, each of them on disk: what lies in a folder is only as durable as the folder."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        # Group may pass through: nginx reads blobs by group; what is private in here has modes of its own.
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        for folder in missing or [path]:
            sync_folder(folder.parent)
    except OSError as error:
        raise StartupRefused(f"the data directory {path} cannot be made: {error.strerror}") from error
