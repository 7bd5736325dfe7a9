"""Many assets as one ZIP: which bytes, fixed when it is made, and the names that they get in it."""

import posixpath
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from mediasvc.core.filenames import FALLBACK, MAX_NAME_BYTES, safe_name
from mediasvc.core.zip64 import Entry, Layout

MAX_ENTRIES = 100_000

_SEPARATORS = re.compile(r"[/\\]")
_UNSAFE_ON_WINDOWS = re.compile(r'[<>:"|?*]')
# Devices, whatever follows the first dot, and blanks before it do not count.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(?:\.|\Z)", re.IGNORECASE
)
_JOINERS = re.compile("[\u200c\u200d]")


@dataclass(frozen=True, slots=True)
class Archive:
    """A ZIP that can be downloaded until it expires. Times are seconds since the epoch; `name` ends in `.zip`."""

    id: str
    created_at: float
    expires_at: float
    name: str
    layout: Layout

    @property
    def etag(self) -> str:
        """Strong: what an archive holds never changes."""
        return f'"{self.id}"'


@dataclass(frozen=True, slots=True)
class Member:
    """An entry and whose bytes they are."""

    entry: Entry
    asset_id: str
    blob_id: str


def safe_path(raw: str) -> str:
    """A relative path that every system can make; never fails.

    No empty segments, no `.` or `..`, nothing that `safe_name` takes away, and none of Windows' devices,
    forbidden characters, or dots and blanks at the end.
    """
    segments = [_safe_segment(part) for part in _SEPARATORS.split(raw) if part not in ("", ".", "..")]
    return "/".join(segments) or FALLBACK


def _safe_segment(raw: str) -> str:
    name = _UNSAFE_ON_WINDOWS.sub("_", safe_name(raw)).rstrip(". ")
    if _DEVICE.match(name):
        name = safe_name("_" + name).rstrip(". ")
    return name or FALLBACK


class Names:
    """Gives each file of an archive a name of its own, different also where capitals do not count.

    `expect` every path first: a file must not have the name of a folder, wherever that comes.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._folders: set[str] = set()
        self._next: dict[str, int] = {}

    def expect(self, path: str) -> None:
        """Note the folders of a safe path."""
        self._folders.update(_folders(_folded(path)))

    def take(self, path: str) -> str:
        """The path, or one beside it that is free: `a.jpg`, `a (2).jpg`."""
        wanted = _folded(path)
        chosen, folded = path, wanted
        number = self._next.get(wanted, 2)
        while folded in self._taken or folded in self._folders:
            chosen = _numbered(path, number)
            folded = _folded(chosen)
            number += 1
        if chosen != path:
            self._next[wanted] = number
        self._taken.add(folded)
        return chosen


def _folded(path: str) -> str:
    """Equal for paths that some file system takes for one (Unicode's canonical caseless matching)."""
    if path.isascii():
        return path.lower()
    visible = unicodedata.normalize("NFD", _JOINERS.sub("", path))
    return unicodedata.normalize("NFD", visible.casefold())


def _folders(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _numbered(path: str, number: int) -> str:
    folder, name = posixpath.split(path)
    stem, extension = posixpath.splitext(name)
    suffix = f" ({number}){extension}"
    room = MAX_NAME_BYTES - len(suffix.encode())
    if room < 1:  # all of it is extension
        stem, suffix = name, f" ({number})"
        room = MAX_NAME_BYTES - len(suffix)
    return posixpath.join(folder, stem.encode()[:room].decode(errors="ignore") + suffix)
