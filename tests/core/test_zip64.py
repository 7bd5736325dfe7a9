"""The layout of an archive, read back by Python's zipfile and by unzip."""

import io
import os
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.span import Span
from mediasvc.core.zip64 import Entry, Layout, Measure, header, listed, tail, within

MADE = int(datetime(2024, 2, 29, 12, 34, 56, tzinfo=UTC).timestamp())
FULL = 0xFFFFFFFF
GIB = 1 << 30


def laid_out(files: Sequence[tuple[str, bytes]], made: int = MADE) -> tuple[list[Entry], Layout]:
    measure = Measure()
    entries = [measure.place(name, len(data), zlib.crc32(data), made) for name, data in files]
    return entries, measure.layout()


def whole(files: Sequence[tuple[str, bytes]], made: int = MADE) -> bytes:
    entries, layout = laid_out(files, made)
    parts = [part for entry, (_, data) in zip(entries, files, strict=True) for part in (header(entry), data)]
    parts += [listed(entry) for entry in entries] + [tail(layout)]
    return b"".join(parts)


def test_zipfile_reads_what_was_laid_out() -> None:
    files = [("a.txt", b"hello"), ("empty", b""), ("Ordner/zoë 🎞.bin", os.urandom(70_000))]
    archive = whole(files)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert [(info.filename, opened.read(info)) for info in opened.infolist()] == files
        for info in opened.infolist():
            assert info.date_time == (2024, 2, 29, 12, 34, 56)
            assert (info.external_attr >> 16, info.create_system) == (0o100644, 3)
            assert info.flag_bits == 1 << 11
            assert info.extract_version == 20
    assert len(archive) == laid_out(files)[1].size


def test_unzip_agrees_and_restores_names_times_and_modes(tmp_path: Path) -> None:
    made = MADE + 1  # an odd second: the extra field knows it, the format itself does not
    (tmp_path / "a.zip").write_bytes(whole([("zoë/夏.txt", b"x" * 1000), ("b", b"")], made))
    tested = subprocess.run(["unzip", "-t", "a.zip"], cwd=tmp_path, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    subprocess.run(["unzip", "-q", "a.zip"], cwd=tmp_path, check=True, env=environment)
    restored = tmp_path / "zoë" / "夏.txt"
    assert restored.read_bytes() == b"x" * 1000
    assert (restored.stat().st_mtime, restored.stat().st_mode & 0o7777) == (made, 0o644)


def test_an_archive_of_nothing_is_whole() -> None:
    assert zipfile.ZipFile(io.BytesIO(whole([]))).namelist() == []


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (0, (1980, 1, 1, 0, 0, 0)),
        (315532800, (1980, 1, 1, 0, 0, 0)),
        (0x80000000, (2038, 1, 19, 3, 14, 8)),
        (1 << 40, (2107, 12, 31, 23, 59, 58)),
    ],
    ids=["before ZIP", "the first", "beyond 31 bits", "beyond ZIP"],
)
def test_any_time_is_written_as_near_as_the_format_can(made: int, shown: tuple[int, ...]) -> None:
    (info,) = zipfile.ZipFile(io.BytesIO(whole([("a", b"a")], made))).infolist()
    assert info.date_time == shown


def _extra_ids(extra: bytes) -> dict[int, bytes]:
    found = {}
    while extra:
        kind, size = struct.unpack_from("<2H", extra)
        found[kind] = extra[4 : 4 + size]
        extra = extra[4 + size :]
    return found


def _fields(entry: Entry) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """The extra fields of an entry's header and of its line in the listing."""
    name = len(entry.name.encode())
    return _extra_ids(header(entry)[30 + name :]), _extra_ids(listed(entry)[46 + name :])


@pytest.mark.parametrize(
    ("size", "start", "header_field", "listed_field"),
    [
        (FULL - 1, FULL - 1, None, None),
        (FULL, 0, [FULL, FULL], [FULL, FULL]),
        (5 * GIB, 6 * GIB, [5 * GIB] * 2, [5 * GIB, 5 * GIB, 6 * GIB]),
        (10, FULL, None, [FULL]),
    ],
    ids=["just not", "the size alone", "both", "the offset alone"],
)
def test_zip64_stands_only_where_a_number_does_not_fit(
    size: int, start: int, header_field: list[int] | None, listed_field: list[int] | None
) -> None:
    entry = Entry("a", size, 1, MADE, start, 0)
    for field, expected in zip(_fields(entry), (header_field, listed_field), strict=True):
        numbers = list(struct.unpack(f"<{len(field[1]) // 8}Q", field[1])) if 1 in field else None
        assert numbers == expected
    assert struct.unpack_from("<H", header(entry), 4)[0] == (45 if header_field else 20)


@pytest.mark.parametrize(
    ("layout", "zip64"),
    [
        (Layout(0xFFFE, 100, 200), False),
        (Layout(0xFFFF, 100, 200), True),
        (Layout(1, FULL - 1, FULL + 99), False),
        (Layout(1, FULL, FULL + 100), True),
        (Layout(3, 0, FULL), True),
    ],
    ids=["65534 entries", "65535 entries", "a listing just below 4 GiB", "one at 4 GiB", "one of 4 GiB"],
)
def test_the_tail_has_a_zip64_part_only_where_it_must(layout: Layout, *, zip64: bool) -> None:
    assert (b"PK\6\6" in tail(layout)) is zip64
    assert layout.size - layout.tail_start == (98 if zip64 else 22)


class Sparse(io.RawIOBase):
    """A file of any size that is zeros but for the parts that were laid into it."""

    def __init__(self, parts: dict[int, bytes], size: int) -> None:
        self._parts, self._size, self._at = parts, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        out = bytearray(max(0, stop - self._at))
        for start, part in self._parts.items():
            begin, end = max(start, self._at), min(start + len(part), stop)
            if begin < end:
                out[begin - self._at : end - self._at] = part[begin - start : end - start]
        self._at = stop
        return bytes(out)


def test_entries_beyond_4_gib_are_found_without_writing_their_bytes() -> None:
    measure = Measure()
    small = b"behind the large one"
    large = measure.place("film.mkv", 5 * GIB, 0, MADE)
    behind = measure.place("note.txt", len(small), zlib.crc32(small), MADE)
    layout = measure.layout()
    parts = {
        large.start: header(large),
        behind.start: header(behind) + small,
        layout.listing_start: listed(large) + listed(behind) + tail(layout),
    }
    assert layout.tail_start == layout.listing_start + len(listed(large) + listed(behind))
    with zipfile.ZipFile(Sparse(parts, layout.size)) as opened:
        assert [(info.file_size, info.header_offset) for info in opened.infolist()] == [
            (5 * GIB, 0),
            (len(small), behind.start),
        ]
        assert opened.read("note.txt") == small


def test_unzip_finds_a_file_behind_one_of_more_than_4_gib(tmp_path: Path) -> None:
    """A real archive, with a hole where the large file would be."""
    size = 4 * GIB + 1
    measure = Measure()
    large = measure.place("zeros", size, 0, MADE)
    after = measure.place("after", 5, zlib.crc32(b"after"), MADE)
    layout = measure.layout()
    with open(tmp_path / "a.zip", "wb") as file:
        file.write(header(large))
        file.seek(after.start)
        file.write(header(after) + b"after" + listed(large) + listed(after) + tail(layout))
    assert (tmp_path / "a.zip").stat().st_size == layout.size
    tested = subprocess.run(["unzip", "-t", "a.zip", "after"], cwd=tmp_path, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    shown = subprocess.run(["unzip", "-l", "a.zip"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"\n{size}  " in shown.stdout


def test_seventy_thousand_entries_are_all_found(tmp_path: Path) -> None:
    files = [(f"{number}.txt", b"%d" % number) for number in range(70_000)]
    (tmp_path / "a.zip").write_bytes(whole(files))
    with zipfile.ZipFile(tmp_path / "a.zip") as opened:
        assert len(opened.infolist()) == 70_000
        assert opened.read("69999.txt") == b"69999"
    tested = subprocess.run(["unzip", "-tq", tmp_path / "a.zip"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout[-1000:]


FILES = st.lists(st.tuples(st.text("abé/ ", min_size=1, max_size=5), st.binary(max_size=40)), max_size=5)


@given(files=FILES, data=st.data())
def test_any_span_of_an_entry_is_cut_as_from_the_whole(
    files: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    archive = whole(files)
    start = data.draw(st.integers(0, len(archive)))
    span = Span(start, data.draw(st.integers(start, len(archive))))
    entries, layout = laid_out(files)
    cut = b""
    for entry, (_, content) in zip(entries, files, strict=True):
        for part in within(entry, span):
            cut += part if isinstance(part, bytes) else content[part.start : part.stop]
    assert cut == archive[span.start : min(span.stop, layout.listing_start)]


@given(files=FILES)
def test_the_places_are_where_the_bytes_are(files: list[tuple[str, bytes]]) -> None:
    entries, layout = laid_out(files)
    archive = whole(files)
    for entry in entries:
        assert archive[entry.start :].startswith(header(entry))
        assert archive[layout.listing_start + entry.listed :].startswith(listed(entry))
    assert archive[layout.tail_start :] == tail(layout)


@given(
    sizes=st.lists(st.integers(0, 5 * GIB) | st.sampled_from([FULL - 1, FULL, FULL + 1]), max_size=6),
    made=st.integers(0, 1 << 35),
)
def test_the_measure_agrees_with_what_is_written_at_any_size(sizes: list[int], made: int) -> None:
    measure = Measure()
    entries = [measure.place("ä" * number, size, 0, made) for number, size in enumerate(sizes)]
    layout, end, line = measure.layout(), 0, 0
    for entry in entries:
        assert (entry.start, entry.listed) == (end, line)
        end += len(header(entry)) + entry.size
        line += len(listed(entry))
    assert (layout.count, layout.listing_start, layout.tail_start) == (len(sizes), end, end + line)
