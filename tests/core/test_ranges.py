"""Range requests: RFC 9110, section 14, as a table and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.errors import RangeNotSatisfiable
from mediasvc.core.ranges import MAX_PARTS, content_range, parse
from mediasvc.core.span import Span

SATISFIED = {
    "the first byte": ("bytes=0-0", [(0, 1)]),
    "Safari's probe": ("bytes=0-1", [(0, 2)]),
    "the middle": ("bytes=2-5", [(2, 6)]),
    "open end": ("bytes=4-", [(4, 10)]),
    "everything, still a range": ("bytes=0-", [(0, 10)]),
    "suffix": ("bytes=-3", [(7, 10)]),
    "suffix longer than the whole": ("bytes=-99", [(0, 10)]),
    "end clipped": ("bytes=8-99", [(8, 10)]),
    "a number no file reaches": (f"bytes=8-{'9' * 5000}", [(8, 10)]),
    "leading zeros": (f"bytes={'0' * 5000}1-2", [(1, 3)]),
    "two": ("bytes=0-0,-1", [(0, 1), (9, 10)]),
    "in the order asked for": ("bytes=8-9,0-1", [(8, 10), (0, 2)]),
    "white space": ("bytes= 0-0 ,\t4-5 ", [(0, 1), (4, 6)]),
    "empty list members": ("bytes=,,0-0,,", [(0, 1)]),
    "the unit in capitals": ("BYTES=0-0", [(0, 1)]),
    "one of two cannot be had": ("bytes=99-,0-0", [(0, 1)]),
    "as many as are allowed": ("bytes=" + ",".join(["0-0"] * 10 + ["20-"] * 6), [(0, 1)] * 10),
}
WHOLE = {
    "no header": None,
    "nothing": "",
    "another unit": "chapters=1-2",
    "no unit": "0-1",
    "only the unit": "bytes=",
    "only a dash": "bytes=-",
    "backwards": "bytes=5-2",
    "letters": "bytes=a-b",
    "Arabic digits": "bytes=٠-١",
    "negative": "bytes=--1",
    "one good, one malformed": "bytes=0-0,x",
    "overlapping beyond the whole": "bytes=0-,0-0",
    "too many": "bytes=" + ",".join(["0-0"] * (MAX_PARTS + 1)),
    "thousands": "bytes=" + ",".join(f"{n}-{n}" for n in range(8000)),
    "thousands of nothing": "bytes=" + "," * 60_000,
}
UNSATISFIABLE = {
    "beyond the end": "bytes=10-",
    "far beyond": f"bytes={'9' * 5000}-",
    "a suffix of nothing": "bytes=-0",
    "all of several": "bytes=10-11,-0",
}


@pytest.mark.parametrize(("header", "expected"), SATISFIED.values(), ids=SATISFIED)
def test_ranges_are_spans(header: str, expected: list[tuple[int, int]]) -> None:
    assert parse(header, 10) == [Span(*span) for span in expected]


@pytest.mark.parametrize("header", WHOLE.values(), ids=WHOLE)
def test_what_is_no_range_means_the_whole(header: str | None) -> None:
    assert parse(header, 10) is None


@pytest.mark.parametrize("header", UNSATISFIABLE.values(), ids=UNSATISFIABLE)
def test_what_cannot_be_had_says_how_much_there_is(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as raised:
        parse(header, 10)
    assert raised.value.size == 10


def test_of_nothing_only_a_suffix_can_be_had() -> None:
    assert parse("bytes=-5", 0) is None
    with pytest.raises(RangeNotSatisfiable):
        parse("bytes=0-", 0)


@given(st.lists(st.from_regex(r"\A[0-9]{0,4}-[0-9]{0,4}\Z"), min_size=1, max_size=20), st.integers(0, 5000))
def test_spans_lie_within_and_never_sum_to_more_than_the_whole(specs: list[str], size: int) -> None:
    try:
        spans = parse("bytes=" + ",".join(specs), size)
    except RangeNotSatisfiable:
        return
    if spans is not None:
        assert 1 <= len(spans) <= MAX_PARTS
        assert all(0 <= span.start < span.stop <= size for span in spans)
        assert sum(span.length for span in spans) <= size


@given(st.text(max_size=200), st.integers(0, 2**63))
def test_no_text_breaks_it(header: str, size: int) -> None:
    try:
        spans = parse("bytes=" + header, size)
    except RangeNotSatisfiable:
        return
    assert spans is None or all(span.stop <= size for span in spans)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_content_range_asks_for_the_same_again(start: int, length: int) -> None:
    span = Span(start, start + length)
    header = content_range(span, start + length + 7)
    assert parse(header.replace("bytes ", "bytes=").partition("/")[0], start + length + 7) == [span]


@pytest.mark.parametrize(
    "header", ["bytes=" + "0" * 60_000 + "-", "bytes=" + " " * 60_000, "bytes=" + "0-," * 20_000]
)
def test_long_hostile_headers_are_only_long(header: str) -> None:
    assert parse(header, 10) in (None, [Span(0, 10)])
