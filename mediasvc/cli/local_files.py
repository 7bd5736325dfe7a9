"""Which files a push means, and the key each of them gets."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mediasvc.core.errors import BadKey
from mediasvc.core.keys import normalise_key


@dataclass(frozen=True)
class LocalFile:
    """A readable regular file, its size in bytes when it was found, and its key in the bucket."""

    path: str
    key: str
    size: int


@dataclass(frozen=True)
class Unsendable:
    """Something found that will not be pushed. `skipped`: nobody expects it to be, so it is no failure."""

    path: str
    reason: str
    skipped: bool = False


@dataclass(frozen=True)
class Content:
    """What a file held when it was hashed, and the marks by which a later change is noticed."""

    size: int
    sha256: str
    modified_ns: int


class SourceChanged(Exception):
    """The file is no longer what was hashed."""


def shown(path: str) -> str:
    """A path for people: bytes that are no UTF-8 and control characters are escaped."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: OSError) -> str:
    """Why a file cannot be had, in words and without the path."""
    return (error.strerror or str(error)).lower()


def find_files(paths: Sequence[str], prefix: str) -> Iterator[LocalFile | Unsendable]:
    """Walk the paths in the order of names; hidden files count, links to files are followed.

    A link to a folder is skipped as `rclone copy` does it: loops and whole disks hide behind them. Two files
    that would get one key are a failure of the second.
    """
    keys: set[int] = set()  # hashes: a million files fit into 100 MB
    for root in paths:
        folder = os.path.isdir(root)
        for found in _walk(root) if folder else _look_at(root):
            if isinstance(found, Unsendable):
                yield found
                continue
            path, size = found
            name = os.path.relpath(path, root).replace(os.sep, "/") if folder else os.path.basename(path)
            try:
                key = normalise_key(f"{prefix}/{name}" if prefix else name)
            except BadKey as error:
                yield Unsendable(path, error.detail)
                continue
            if hash(key) in keys:
                yield Unsendable(path, f"another file of this push has the key {key!r}")
                continue
            keys.add(hash(key))
            yield LocalFile(path, key, size)


def _walk(root: str) -> Iterator[tuple[str, int] | Unsendable]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        if path != root and not (os.path.isdir(path) and not os.path.islink(path)):
            yield from _look_at(path)
            continue
        try:
            names = sorted(os.listdir(path), reverse=True)
        except OSError as error:
            yield Unsendable(path, f"cannot be listed: {reason(error)}")
        else:
            waiting += [os.path.join(path, name) for name in names]


def _look_at(path: str) -> Iterator[tuple[str, int] | Unsendable]:
    try:
        found = os.stat(path)
    except OSError as error:
        yield Unsendable(path, f"cannot be read: {reason(error)}")
        return
    if stat.S_ISREG(found.st_mode):
        yield path, found.st_size
    elif stat.S_ISDIR(found.st_mode):
        yield Unsendable(path, "a link to a folder; give the folder itself as a PATH", skipped=True)
    else:
        yield Unsendable(path, "not a regular file", skipped=True)


def hash_file(path: str) -> Content:
    """The file's content as it is now. Raises OSError, and SourceChanged if it moved while being read."""
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SourceChanged
    return Content(before.st_size, sha256, before.st_mtime_ns)


def still_holds(path: str, content: Content) -> bool:
    """Whether the file looks as it did when it was hashed."""
    try:
        now = os.stat(path)
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns) == (content.size, content.modified_ns)
