"""A ZIP of stored files of which every byte is known beforehand, so that it can be sent from anywhere in it.

As APPNOTE.TXT 6.3.10 has it: each file behind a header (§4.3.7), then the central directory, here called the
listing (§4.3.12), then the tail (§4.3.14 to §4.3.16). ZIP64 stands only where a number does not fit: some
extractors refuse it elsewhere.
"""

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mediasvc.core.span import Span

_HEADER = struct.Struct("<4s5H3L2H")
_LISTED = struct.Struct("<4s6H3L5H2L")
_TAIL = struct.Struct("<4s4H2LH")
_TAIL64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "look into the ZIP64 field"
_PLAIN, _ZIP64 = 20, 45  # versions of the format that an extractor has to know
_UNIX = 3 << 8
_UTF8 = 1 << 11
_STORED = 0
_MODE = 0o100644 << 16
_TIME_FIELD = 9  # bytes of an extra field with seconds since the epoch ("UT", of Info-ZIP)
_SIZES_FIELD = 20
_LAST_SECOND = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A file and where it stands. `modified_at` is seconds since the epoch, `start` the offset of its header in
    the archive, `listed` that of its line in the listing."""

    name: str
    size: int
    crc32: int
    modified_at: int
    start: int
    listed: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in an archive of `count` entries the parts begin that follow the files."""

    count: int
    listing_start: int
    tail_start: int

    @property
    def size(self) -> int:
        """Bytes of the whole archive."""
        return self.tail_start + len(tail(self))


class Measure:
    """Puts one file behind the other, in the order they are to stand in."""

    def __init__(self) -> None:
        self._count = 0
        self._end = 0
        self._listed = 0

    def place(self, name: str, size: int, crc32: int, modified_at: int) -> Entry:
        """The next entry; `name` is taken as it is, at most 65535 bytes of UTF-8."""
        entry = Entry(name, size, crc32, modified_at, self._end, self._listed)
        length = len(name.encode()) + (_TIME_FIELD if modified_at <= _LAST_SECOND else 0)
        self._count += 1
        self._end += _HEADER.size + length + (_SIZES_FIELD if size >= _FULL32 else 0) + size
        self._listed += _LISTED.size + length + len(_listed_numbers(entry))
        return entry

    def layout(self) -> Layout:
        """Of all that was placed."""
        return Layout(self._count, self._end, self._end + self._listed)


def header(entry: Entry) -> bytes:
    """What stands before a file's bytes."""
    name, large = entry.name.encode(), entry.size >= _FULL32
    extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.size) if large else b""
    extra += _time_field(entry)
    size = _FULL32 if large else entry.size
    fixed = _HEADER.pack(
        b"PK\3\4",
        _ZIP64 if large else _PLAIN,
        _UTF8,
        _STORED,
        *_dos_time(entry.modified_at),
        entry.crc32,
        size,
        size,
        len(name),
        len(extra),
    )
    return fixed + name + extra


def listed(entry: Entry) -> bytes:
    """A file's line in the listing."""
    name, numbers = entry.name.encode(), _listed_numbers(entry)
    extra = numbers + _time_field(entry)
    needed, size = _ZIP64 if numbers else _PLAIN, min(entry.size, _FULL32)
    fixed = _LISTED.pack(
        b"PK\1\2",
        _UNIX | needed,
        needed,
        _UTF8,
        _STORED,
        *_dos_time(entry.modified_at),
        entry.crc32,
        size,
        size,
        len(name),
        len(extra),
        0,
        0,
        0,
        _MODE,
        min(entry.start, _FULL32),
    )
    return fixed + name + extra


def tail(layout: Layout) -> bytes:
    """What stands at the very end: an extractor begins to read there."""
    count, start, size = layout.count, layout.listing_start, layout.tail_start - layout.listing_start
    ending = b""
    if count >= _FULL16 or size >= _FULL32 or start >= _FULL32:
        made_by, rest = _UNIX | _ZIP64, _TAIL64.size - 12
        ending = _TAIL64.pack(b"PK\6\6", rest, made_by, _ZIP64, 0, 0, count, count, size, start)
        ending += _LOCATOR.pack(b"PK\6\7", 0, layout.tail_start, 1)
    count16 = min(count, _FULL16)
    return ending + _TAIL.pack(b"PK\5\6", 0, 0, count16, count16, min(size, _FULL32), min(start, _FULL32), 0)


def within(entry: Entry, span: Span) -> Iterator[bytes | Span]:
    """What of an entry's header and file lies in a span of the archive; a Span counts within the file."""
    head = header(entry)
    content = entry.start + len(head)
    if span.start < content and (
        cut := head[max(0, span.start - entry.start) : max(0, span.stop - entry.start)]
    ):
        yield cut
    start, stop = max(span.start, content), min(span.stop, content + entry.size)
    if start < stop:
        yield Span(start - content, stop - content)


def _listed_numbers(entry: Entry) -> bytes:
    """The ZIP64 field of the listing: only the numbers that do not fit into their places (§4.5.3)."""
    numbers = [entry.size] * 2 if entry.size >= _FULL32 else []
    if entry.start >= _FULL32:
        numbers.append(entry.start)
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def _time_field(entry: Entry) -> bytes:
    """Seconds in UTC: the time that every entry has counts in pairs, in a zone that nobody names."""
    if entry.modified_at > _LAST_SECOND:
        return b""
    return struct.pack("<2HBl", 0x5455, 5, 1, entry.modified_at)


def _dos_time(seconds: int) -> tuple[int, int]:
    t = time.gmtime(seconds)
    if t.tm_year < 1980:
        return 0, 1 << 5 | 1
    if t.tm_year > 2107:
        return 23 << 11 | 59 << 5 | 29, 127 << 9 | 12 << 5 | 31
    clock = t.tm_hour << 11 | t.tm_min << 5 | min(t.tm_sec, 59) // 2
    return clock, t.tm_year - 1980 << 9 | t.tm_mon << 5 | t.tm_mday
