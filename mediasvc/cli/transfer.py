"""Files go up: hashed, asked about, and sent where they are missing, several at a time."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal

from mediasvc.cli.local_files import (
    Content,
    LocalFile,
    SourceChanged,
    Unsendable,
    hash_file,
    reason,
    shown,
    still_holds,
)
from mediasvc.cli.remote import Item, Refused, Remote
from mediasvc.cli.resumed import PIECE, send_in_pieces

BATCH_FILES = 1000  # what assets/check takes at once
BATCH_BYTES = 256 * 1024 * 1024  # so that the first upload does not wait until everything is hashed
CHANGED = "changed while it was being read"


@dataclass(frozen=True)
class Outcome:
    """What became of one file; `path` is fit to print. `id` and `url` only where it was pushed now."""

    path: str
    status: Literal["pushed", "present", "failed", "skipped"]
    key: str | None = None
    size: int = 0
    sha256: str | None = None
    id: str | None = None
    url: str | None = None
    error: str | None = None
    exit_code: int = 0  # what the command would exit with if this were the only file


def transfer(
    found: Iterable[LocalFile | Unsendable],
    bucket: str,
    remote: Remote,
    *,
    concurrency: int,
    sent: Callable[[int], object] = lambda _: None,
) -> Iterator[Outcome]:
    """Push what is found and not yet there, giving each file's outcome as it becomes known.

    `sent` hears of bytes, in any thread. Memory depends on neither the size nor, but for the keys, the number of
    files. Raises Away, and Refused where it concerns every file; then, and when closed, what is under way stops.
    """
    pending: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(concurrency) as hashing, ThreadPoolExecutor(concurrency) as sending:
        try:
            for batch in _batches(found):
                missing: list[tuple[LocalFile, Content]] = []
                for file, content in zip(batch, hashing.map(_content, batch), strict=True):
                    if isinstance(file, Unsendable):
                        status: Literal["skipped", "failed"] = "skipped" if file.skipped else "failed"
                        yield Outcome(shown(file.path), status, error=file.reason, exit_code=1)
                    elif isinstance(content, Content):
                        missing.append((file, content))
                    else:
                        yield _failed(file, content or CHANGED)
                for (file, content), there in zip(missing, _present(remote, bucket, missing), strict=True):
                    if there:
                        sent(content.size)
                        yield Outcome(shown(file.path), "present", file.key, content.size, content.sha256)
                    else:
                        pending.add(sending.submit(_send, remote, bucket, file, content, sent))
                while len(pending) > BATCH_FILES:
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        finally:
            if pending:
                remote.stop()
            sending.shutdown(wait=False, cancel_futures=True)
            hashing.shutdown(wait=False, cancel_futures=True)


def _finished(pending: set[Future[Outcome]]) -> Iterator[Outcome]:
    """Take at least one finished upload out of `pending`; what went well is told before an error is raised."""
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    pending -= done
    for future in sorted(done, key=lambda future: future.exception() is not None):
        yield future.result()


def _batches(found: Iterable[LocalFile | Unsendable]) -> Iterator[list[LocalFile | Unsendable]]:
    batch: list[LocalFile | Unsendable] = []
    size = 0
    for file in found:
        batch.append(file)
        size += file.size if isinstance(file, LocalFile) else 0
        if len(batch) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _content(file: LocalFile | Unsendable) -> Content | str:
    """What the file holds, or why that cannot be told."""
    if isinstance(file, Unsendable):
        return file.reason
    try:
        return hash_file(file.path)
    except OSError as error:
        return f"cannot be read: {reason(error)}"
    except SourceChanged:
        return CHANGED


def _present(remote: Remote, bucket: str, files: list[tuple[LocalFile, Content]]) -> list[bool]:
    if not files:
        return []
    try:
        return remote.present(
            bucket, [Item(file.key, content.size, content.sha256) for file, content in files]
        )
    except Refused as error:
        # A key that may only write cannot ask: everything is sent, and each upload is answered for itself.
        if error.status in (403, 404):
            return [False] * len(files)
        raise


def _send(
    remote: Remote, bucket: str, file: LocalFile, content: Content, sent: Callable[[int], object]
) -> Outcome:
    try:
        with open(file.path, "rb", buffering=0) as source:
            descriptor = source.fileno()
            if not still_holds(file.path, content):
                raise SourceChanged
            item = Item(file.key, content.size, content.sha256)
            if content.size > PIECE:
                asset = send_in_pieces(remote, bucket, item, descriptor, sent)
            else:
                asset = remote.put(
                    bucket, item, source.read, lambda: os.lseek(descriptor, 0, os.SEEK_SET), sent
                )
    except OSError as error:
        return _failed(file, f"cannot be read: {reason(error)}")
    except SourceChanged:
        return _failed(file, CHANGED)
    except Refused as error:
        if error.status == 401:
            raise
        changed = error.status == 422 and not still_holds(file.path, content)
        return _failed(file, CHANGED if changed else str(error), error.exit_code)
    if asset.get("sha256") != content.sha256:
        return _failed(file, "the server stored something else")
    return Outcome(
        shown(file.path), "pushed", file.key, content.size, content.sha256, asset.get("id"), asset.get("url")
    )


def _failed(file: LocalFile, error: str, exit_code: int = 1) -> Outcome:
    return Outcome(shown(file.path), "failed", file.key, file.size, error=error, exit_code=exit_code)
