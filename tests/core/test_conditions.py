"""Conditional requests: the order of RFC 9110, section 13.2.2, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.conditions import check_write, evaluate, format_date, parse_date, range_counts
from mediasvc.core.errors import PreconditionFailed

ETAG = '"0123456789abcdef0123456789abcdef"'
OTHER = '"ffffffffffffffffffffffffffffffff"'
MADE = 1_700_000_000
THEN, BEFORE, AFTER = format_date(MADE), format_date(MADE - 1), format_date(MADE + 1)

TABLE = {
    "nothing asked": ({}, "proceed"),
    "If-Match, right": ({"if_match": ETAG}, "proceed"),
    "If-Match, right in a list": ({"if_match": f"{OTHER}, {ETAG}"}, "proceed"),
    "If-Match, any": ({"if_match": " * "}, "proceed"),
    "If-Match, wrong": ({"if_match": OTHER}, "failed"),
    "If-Match, weak never matches": ({"if_match": "W/" + ETAG}, "failed"),
    "If-Match, not quoted": ({"if_match": ETAG.strip('"')}, "failed"),
    "If-Unmodified-Since, the same second": ({"if_unmodified_since": THEN}, "proceed"),
    "If-Unmodified-Since, earlier": ({"if_unmodified_since": BEFORE}, "failed"),
    "If-Unmodified-Since, no date": ({"if_unmodified_since": "yesterday"}, "proceed"),
    "If-Match shadows If-Unmodified-Since": ({"if_match": ETAG, "if_unmodified_since": BEFORE}, "proceed"),
    "If-None-Match, right": ({"if_none_match": ETAG}, "not_modified"),
    "If-None-Match, weak matches": ({"if_none_match": "W/" + ETAG}, "not_modified"),
    "If-None-Match, right in a list": ({"if_none_match": f'"a,b", W/"", {ETAG}'}, "not_modified"),
    "If-None-Match, any": ({"if_none_match": "*"}, "not_modified"),
    "If-None-Match, wrong": ({"if_none_match": OTHER}, "proceed"),
    "If-None-Match shadows a date": ({"if_none_match": OTHER, "if_modified_since": AFTER}, "proceed"),
    "If-Modified-Since, the same second": ({"if_modified_since": THEN}, "not_modified"),
    "If-Modified-Since, later": ({"if_modified_since": AFTER}, "not_modified"),
    "If-Modified-Since, earlier": ({"if_modified_since": BEFORE}, "proceed"),
    "If-Modified-Since, no date": ({"if_modified_since": "0"}, "proceed"),
    "If-Match comes first": ({"if_match": OTHER, "if_none_match": ETAG}, "failed"),
    "both right": ({"if_match": ETAG, "if_none_match": ETAG}, "not_modified"),
    "a date that failed ends it": ({"if_unmodified_since": BEFORE, "if_none_match": ETAG}, "failed"),
}


@pytest.mark.parametrize(("headers", "verdict"), TABLE.values(), ids=TABLE)
def test_preconditions_of_reading(headers: dict[str, str], verdict: str) -> None:
    assert evaluate(ETAG, MADE, **headers) == verdict


@pytest.mark.parametrize(
    ("if_range", "counts"),
    [
        (None, True),
        (ETAG, True),
        (OTHER, False),
        ("W/" + ETAG, False),
        (f"{ETAG}, {OTHER}", False),
        (THEN, True),
        (BEFORE, False),
        (AFTER, False),
        ("nonsense", False),
    ],
)
def test_if_range_is_the_same_tag_or_exactly_the_date(if_range: str | None, counts: bool) -> None:
    assert range_counts(if_range, ETAG, MADE) is counts


WRITES = {
    "nothing asked, nothing there": ({}, None, True),
    "nothing asked, something there": ({}, ETAG, True),
    "create only, nothing there": ({"if_none_match": "*"}, None, True),
    "create only, something there": ({"if_none_match": "*"}, ETAG, False),
    "unless this version, it is": ({"if_none_match": f"{OTHER}, {ETAG}"}, ETAG, False),
    "unless this version, another": ({"if_none_match": OTHER}, ETAG, True),
    "replace only, nothing there": ({"if_match": "*"}, None, False),
    "replace only, something there": ({"if_match": "*"}, ETAG, True),
    "this version, it is": ({"if_match": ETAG}, ETAG, True),
    "this version, it is another": ({"if_match": OTHER}, ETAG, False),
    "this version, weakly": ({"if_match": "W/" + ETAG}, ETAG, False),
    "this version, nothing there": ({"if_match": ETAG}, None, False),
    "unchanged since, it is": ({"if_unmodified_since": THEN, "last_modified": MADE}, ETAG, True),
    "unchanged since, it was changed": ({"if_unmodified_since": BEFORE, "last_modified": MADE}, ETAG, False),
    "the tag shadows the date": (
        {"if_match": ETAG, "if_unmodified_since": BEFORE, "last_modified": MADE},
        ETAG,
        True,
    ),
}


@pytest.mark.parametrize(("asked", "current", "may"), WRITES.values(), ids=WRITES)
def test_preconditions_of_writing(asked: dict[str, str], current: str | None, may: bool) -> None:
    if may:
        check_write(current, **asked)  # type: ignore[arg-type]
    else:
        with pytest.raises(PreconditionFailed):
            check_write(current, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    ids=["IMF-fixdate", "RFC 850", "asctime"],
)
def test_dates_have_three_forms(text: str) -> None:
    assert parse_date(text) == 784_111_777


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert parse_date(text) is None


def test_a_year_of_two_digits_lies_near() -> None:
    assert parse_date("Monday, 01-Jan-24 00:00:00 GMT") == 1_704_067_200


@given(st.integers(0, 253_402_300_799))
def test_a_date_written_is_the_date_read(seconds: int) -> None:
    assert parse_date(format_date(seconds)) == seconds


@given(st.text(max_size=100))
def test_no_text_breaks_the_reading_of_dates_and_tags(text: str) -> None:
    parse_date(text)
    range_counts(text, ETAG, MADE)
    evaluate(ETAG, MADE, if_match=text, if_none_match=text)
