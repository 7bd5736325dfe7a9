"""What only a store on disk can get wrong."""

import asyncio
import ctypes
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from mediasvc.core.errors import StartupRefused, StoreFault, StoreFull, StoreUnavailable
from mediasvc.core.ids import new_blob_id
from mediasvc.core.span import Span
from mediasvc.store import disk
from mediasvc.store.digests import Digests
from mediasvc.store.interface import BlobMissing
from mediasvc.store.local import LocalStore

MIB = 1 << 20


async def body(size: int) -> AsyncIterator[bytes]:
    chunk = os.urandom(64 << 10)
    for at in range(0, size, len(chunk)):
        yield chunk[: size - at]


async def put(store: LocalStore, size: int, blob_id: str | None = None) -> str:
    blob_id = blob_id or new_blob_id()
    await store.put(blob_id, body(size), Digests())
    return blob_id


async def started(root: Path) -> LocalStore:
    store = LocalStore(root)
    await store.start()
    return store


def files_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_files_are_0640_in_0750_folders_whatever_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int
) -> None:
    async def story() -> None:
        umask(mask)
        store = await started(tmp_path / "new" / "blobs")
        await put(store, 10)
        await store.close()

    asyncio.run(story())
    root = tmp_path / "new" / "blobs"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_dir()}
    assert modes == {0o750} == {stat.S_IMODE(root.stat().st_mode)}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_in(root)} == {0o640}


def test_a_blob_lies_where_nginx_looks_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        store = await started(tmp_path)
        blob_id = await put(store, 10)
        assert files_in(tmp_path) == [tmp_path / blob_id[:2] / blob_id[2:4] / blob_id]
        with store.files.open(blob_id) as file:
            assert file.read() == store.files.path(blob_id).read_bytes()
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("blob_id", ["../../etc/passwd", "", "A" * 32, "a" * 31 + "\n", "a" * 31, "a" * 33])
def test_what_is_no_blob_id_never_becomes_a_path(tmp_path: Path, blob_id: str) -> None:
    with pytest.raises(ValueError, match="not a blob id"):
        LocalStore(tmp_path).files.path(blob_id)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=5m") != 0:
        reason = f"tmpfs cannot be mounted here: {os.strerror(ctypes.get_errno())}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield folder
    assert libc.umount2(bytes(folder), 2) == 0


def test_a_full_disk_says_so_leaves_nothing_and_takes_small_blobs_again(small_disk: Path) -> None:
    async def story() -> None:
        store = await started(small_disk)
        with pytest.raises(StoreFull):
            await put(store, 20 * MIB)
        assert files_in(small_disk) == []
        await put(store, MIB)
        assert len(files_in(small_disk)) == 1
        (small_disk / "filler").write_bytes(b"x" * 3 * MIB)
        with pytest.raises(StoreFull):
            await asyncio.gather(*(put(store, 2 * MIB) for _ in range(4)))
        await store.close()

    asyncio.run(story())


def test_a_full_disk_does_not_stop_the_start(small_disk: Path) -> None:
    async def story() -> None:
        store = await started(small_disk)
        blob_id = await put(store, 10)
        await store.close()
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "filler").write_bytes(b"x" * 6 * MIB)
        store = await started(small_disk)
        with pytest.raises(StoreUnavailable):
            await store.check()
        await store.delete(blob_id)
        await store.close()

    asyncio.run(story())


FAULTS = {"fdatasync": "fdatasync", "fsync of a folder": "fsync", "pwrite": "pwrite", "close": "close"}


@pytest.mark.parametrize("call", FAULTS.values(), ids=FAULTS)
def test_a_disk_that_fails_is_asked_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def story() -> None:
        store = await started(tmp_path)
        real, asked = getattr(os, call), []

        def failing(fd: int, *arguments: object) -> None:
            asked.append(fd)
            if call == "close":
                real(fd)
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(disk.os, call, failing)
            with pytest.raises(StoreFault, match="Input/output error"):
                await put(store, 3 * MIB)
        assert len(asked) == len(set(asked)) or call == "fsync"
        assert files_in(tmp_path) == []
        await put(store, 3 * MIB)
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("call", ["fcntl", "pwrite"])
def test_a_file_system_that_only_writes_through_the_page_cache_gets_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    content, refused = os.urandom(5 * MIB + 1), 0

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 100_003):
            yield content[at : at + 100_003]

    async def story() -> None:
        store = await started(tmp_path)
        real_fcntl, real_pwrite = fcntl.fcntl, os.pwrite

        def refuse() -> NoReturn:
            nonlocal refused
            refused += 1
            raise OSError(errno.EINVAL, "Invalid argument")

        def some_fcntl(fd: int, command: int, flags: int) -> int:
            return refuse() if flags & os.O_DIRECT else real_fcntl(fd, command, flags)

        def some_pwrite(fd: int, data: memoryview, at: int) -> int:
            return refuse() if real_fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT else real_pwrite(fd, data, at)

        if call == "fcntl":
            monkeypatch.setattr(disk.fcntl, "fcntl", some_fcntl)
        else:
            monkeypatch.setattr(disk.os, "pwrite", some_pwrite)
        blob_id = new_blob_id()
        digests = Digests()
        await store.put(blob_id, chunks(), digests)
        assert store.files.path(blob_id).read_bytes() == content
        assert digests.sha256 == hashlib.sha256(content).hexdigest()
        await store.close()

    asyncio.run(story())
    assert refused


def test_a_put_is_answered_only_after_a_sync_that_began_after_its_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once share rounds of syncs; each blob's folder and the way to it are in a round of its own time."""

    async def story() -> None:
        store = await started(tmp_path)
        synced: dict[Path, set[str]] = {}
        real = disk.sync_folder

        def watched(folder: Path) -> None:
            before = {entry.name for entry in folder.iterdir()}  # what this sync makes durable
            real(folder)
            synced.setdefault(folder, set()).update(before)

        monkeypatch.setattr(disk, "sync_folder", watched)
        same_folder = [f"abcd{number:028x}" for number in range(20)]

        async def one(blob_id: str) -> None:
            await put(store, 1000, blob_id)
            folder = store.files.path(blob_id).parent
            assert blob_id in synced[folder]
            assert folder.name in synced[folder.parent]
            assert folder.parent.name in synced[tmp_path]

        await asyncio.gather(*map(one, [*same_folder, *(new_blob_id() for _ in range(20))]))
        await store.close()

    asyncio.run(story())


def test_a_blob_cut_short_on_disk_breaks_in_the_middle(tmp_path: Path) -> None:
    async def story() -> None:
        store = await started(tmp_path)
        blob_id = await put(store, MIB)
        async with store.open(blob_id, Span(0, MIB)) as chunks:
            assert len(await anext(chunks)) < MIB // 2
            os.truncate(store.files.path(blob_id), MIB // 2)
            with pytest.raises(StoreUnavailable):
                [chunk async for chunk in chunks]
        await store.close()

    asyncio.run(story())


def test_a_blob_is_lost_only_where_the_store_is_there(tmp_path: Path) -> None:
    """With a disk that is not mounted all blobs are away, and none is lost."""

    async def story() -> None:
        store = await started(tmp_path / "blobs")
        lost = new_blob_id()
        asked: list[Callable[[], object]] = [
            lambda: store.files.open(lost),
            lambda: store.files.size(lost),
            lambda: asyncio.run(store.stat(lost)),
        ]
        for ask in asked:
            with pytest.raises(BlobMissing):
                await asyncio.to_thread(ask)
        (tmp_path / "blobs").rename(tmp_path / "away")
        for empty in (False, True):  # which is what is left of a mount
            if empty:
                (tmp_path / "blobs").mkdir()
            for ask in asked:
                with pytest.raises(StoreUnavailable):
                    await asyncio.to_thread(ask)
        await store.close()

    asyncio.run(story())


def test_a_store_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StartupRefused, match="MEDIASVC_STORE_URL"):
        asyncio.run(LocalStore(tmp_path / "blobs", found=True).start())
    assert not (tmp_path / "blobs").exists()


def test_a_folder_that_cannot_be_one_stops_the_start_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    with pytest.raises(StartupRefused, match=r"cannot be used .*MEDIASVC_STORE_URL"):
        asyncio.run(LocalStore(tmp_path / "file").start())


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        store = await started(tmp_path)
        (tmp_path / "README").write_text("not ours")
        (tmp_path / "incoming" / "notes.txt").write_text("not ours")
        (tmp_path / "ab" / "cd").mkdir(parents=True)
        (tmp_path / "ab" / "cd" / "x.jpg").write_text("not ours")
        assert [stored async for stored in store.scan()] == []
        assert [blob_id async for blob_id in store.scan_unfinished()] == []
        await store.close()

    asyncio.run(story())


def test_no_file_stays_open(tmp_path: Path) -> None:
    async def story() -> None:
        store = await started(tmp_path)
        await store.check()
        before = len(os.listdir("/proc/self/fd"))
        blob_id = await put(store, 3 * MIB)
        for _ in range(10):
            async with store.open(blob_id) as chunks:
                await anext(aiter(chunks))
            put_task = asyncio.create_task(put(store, 3 * MIB))
            await asyncio.sleep(0.002)
            put_task.cancel()
            await asyncio.wait([put_task])
        assert len(os.listdir("/proc/self/fd")) == before
        await store.close()

    asyncio.run(story())
