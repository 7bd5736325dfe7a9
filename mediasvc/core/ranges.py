"""Range requests without I/O: RFC 9110, section 14."""

import re
from collections.abc import Sequence

from mediasvc.core.errors import RangeNotSatisfiable
from mediasvc.core.span import Span

MAX_PARTS = 16  # more ranges than that in one request are an attack or a mistake: the whole is cheaper

_UNIT = re.compile(r"[ \t]*bytes[ \t]*=", re.IGNORECASE)
_SPEC = re.compile(r"(\d*)[ \t]*-[ \t]*(\d*)", re.ASCII)
_MAX_DIGITS = 19  # a longer number lies beyond every file, and int() is slow or refuses


def parse(header: str | None, size: int) -> Sequence[Span] | None:
    """The spans asked for of `size` bytes, in the order asked for; None means the whole (200).

    None for: no header, another unit, anything malformed, more than MAX_PARTS ranges, ranges that overlap so
    much that they sum to more than the whole. Members that cannot be satisfied are dropped; where none is
    left, raises RangeNotSatisfiable.
    """
    if header is None:
        return None
    unit = _UNIT.match(header)
    if not unit or header.count(",", unit.end()) > 4 * MAX_PARTS:
        return None
    specs = [spec for text in header[unit.end() :].split(",") if (spec := text.strip(" \t"))]
    if not 1 <= len(specs) <= MAX_PARTS:
        return None
    spans: list[Span] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if not match or spec == "-":
            return None
        first, last = match[1], match[2]
        if first and last and _number(last) < _number(first):
            return None
        if first:
            start, stop = _number(first), min(_number(last) + 1, size) if last else size
        else:
            suffix = _number(last)
            if suffix and not size:
                return None  # satisfiable by the letter, but no Content-Range can say "no bytes"
            start, stop = max(size - suffix, 0), size
        if start < stop:
            spans.append(Span(start, stop))
    if not spans:
        raise RangeNotSatisfiable(f"the range lies outside of the {size} bytes there are", size=size)
    return spans if sum(span.length for span in spans) <= size else None


def content_range(span: Span, size: int) -> str:
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
