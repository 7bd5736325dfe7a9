"""Conditional requests without I/O: RFC 9110, section 13, and the dates they are written in."""

import calendar
import re
import time
from functools import lru_cache
from typing import Literal

from mediasvc.core.errors import PreconditionFailed

Verdict = Literal["proceed", "not_modified", "failed"]

_TAG = re.compile(r'(W/)?"([^"]*)"')
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = (
    re.compile(rf"\w{{3}}, (?P<day>\d\d) (?P<month>\w{{3}}) (?P<year>\d{{4}}) {_CLOCK} GMT", re.ASCII),
    re.compile(rf"\w{{6,9}}, (?P<day>\d\d)-(?P<month>\w{{3}})-(?P<year>\d\d) {_CLOCK} GMT", re.ASCII),
    re.compile(rf"\w{{3}} (?P<month>\w{{3}}) (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})", re.ASCII),
)


def evaluate(
    etag: str,
    last_modified: int,
    *,
    if_match: str | None = None,
    if_unmodified_since: str | None = None,
    if_none_match: str | None = None,
    if_modified_since: str | None = None,
) -> Verdict:
    """What a GET or HEAD comes to, in the order of §13.2.2.

    `etag` is our strong, quoted tag, `last_modified` seconds since the epoch; the rest are header values.
    """
    if if_match is not None:
        if not _matches_strongly(if_match, etag):
            return "failed"
    elif if_unmodified_since is not None:
        since = parse_date(if_unmodified_since)
        if since is not None and last_modified > since:
            return "failed"
    if if_none_match is not None:
        return "not_modified" if _matches_weakly(if_none_match, etag) else "proceed"
    if if_modified_since is not None:
        since = parse_date(if_modified_since)
        if since is not None and last_modified <= since:
            return "not_modified"
    return "proceed"


def range_counts(if_range: str | None, etag: str, last_modified: int) -> bool:
    """Whether `Range` is to be heeded beside this `If-Range`: the same strong tag, or exactly our date (§13.1.5)."""
    if if_range is None:
        return True
    if_range = if_range.strip()
    if if_range.startswith(('"', "W/")):
        return if_range == etag
    return parse_date(if_range) == last_modified


def check_write(
    current_etag: str | None,
    *,
    if_match: str | None = None,
    if_none_match: str | None = None,
    if_unmodified_since: str | None = None,
    last_modified: int | None = None,
) -> None:
    """Whether a PUT or DELETE may change what is there now (`None`: nothing is). Raises PreconditionFailed."""
    if if_match is not None:
        if current_etag is None:
            raise PreconditionFailed("If-Match: there is nothing under this name")
        if not _matches_strongly(if_match, current_etag):
            raise PreconditionFailed(f"If-Match: the current version is {current_etag}")
    elif if_unmodified_since is not None and last_modified is not None:
        since = parse_date(if_unmodified_since)
        if since is not None and last_modified > since:
            raise PreconditionFailed("If-Unmodified-Since: it was changed after that")
    if (
        if_none_match is not None
        and current_etag is not None
        and _matches_weakly(if_none_match, current_etag)
    ):
        raise PreconditionFailed(f"If-None-Match: there is a version already, {current_etag}")


def parse_date(text: str) -> int | None:
    """Seconds since the epoch of an HTTP-date in any of its three forms (§5.6.7); None where it is none."""
    text = text.strip()
    for form in _DATES:
        if match := form.fullmatch(text):
            break
    else:
        return None
    month, year, day = match["month"], int(match["year"]), int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if len(match["year"]) == 2:
        # Two digits that seem more than 50 years ahead mean the past (§5.6.7).
        this_year = time.gmtime().tm_year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    if month not in _MONTHS or not year or hour > 23 or minute > 59 or second > 60:
        return None
    number = _MONTHS.index(month) + 1
    if not 1 <= day <= calendar.monthrange(year, number)[1]:
        return None
    return calendar.timegm((year, number, day, hour, minute, second, 0, 0, 0))


@lru_cache(maxsize=1024)
def format_date(seconds: int) -> str:
    """An IMF-fixdate, whatever the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )


def _matches_strongly(header: str, etag: str) -> bool:
    """Weak tags never match (§8.8.3.2)."""
    if header.strip() == "*":
        return True
    return any(not weak and f'"{opaque}"' == etag for weak, opaque in _TAG.findall(header))


def _matches_weakly(header: str, etag: str) -> bool:
    if header.strip() == "*":
        return True
    return any(f'"{opaque}"' == etag for _, opaque in _TAG.findall(header))
