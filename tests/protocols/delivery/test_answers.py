"""RFC 9110 in every mode, on every class of URL: one table of questions, asked with GET and with HEAD.

Three things meet here: what is asked, at which URL, and which way the bytes leave. Each two of them meet in full;
asking for all three at once takes thousands of requests and finds nothing more, for the code has no such branch:

- The preconditions and the range are decided in one place, before the way is chosen, and whatever URL it was. Every
  question is asked at every URL where the service sends all by itself, and so shows all of that decision.
- nginx and the store are told the decision and read the client's headers too. What they make of a question does not
  depend on what kind of URL it was. In every mode every question is asked for a large body and for a small one.
- What an answer says about a URL (who may keep it, embed it, see it) takes a way of its own for each kind of answer.
  In every mode every URL is asked one question of each kind.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.modes import MODES, Mode
from tests.protocols.delivery.conftest import PLACES, Place
from tests.watch import check_headers

WHOLE = (slice(None),)


@dataclass(frozen=True)
class Case:
    """A question and its answer; what stands in braces in a value is filled in for the place that is asked."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[slice] = ()

    def asked_of(self, place: Place) -> dict[str, str]:
        date = parsedate_to_datetime(place.last_modified)
        known = {
            "etag": place.etag,
            "modified": place.last_modified,
            "earlier": place.moved(-10),
            "later": place.moved(+10),
            "rfc850": date.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
            "asctime": date.strftime("%a %b %e %H:%M:%S %Y"),
            "size": len(place.body),
        }
        return {name: value.format_map(known) for name, value in self.headers.items()}


def part(range_field: str, *parts: slice, **more: str) -> Case:
    return Case(206, {"Range": range_field} | {n.replace("_", "-"): v for n, v in more.items()}, parts)


def whole(**headers: str) -> Case:
    return Case(200, {name.replace("_", "-"): value for name, value in headers.items()}, WHOLE)


def answer(status: int, **headers: str) -> Case:
    return Case(status, {name.replace("_", "-"): value for name, value in headers.items()})


FIRST = slice(0, 2)
SIXTEEN = [slice(n, n + 1) for n in range(0, 32, 2)]

CASES: dict[str, Case] = {
    "everything": whole(),
    # One range (§14.1.2).
    "range: first byte": part("bytes=0-0", slice(0, 1)),
    "range: Safari's probe": part("bytes=0-1", FIRST),
    "range: middle": part("bytes=10-19", slice(10, 20)),
    "range: from the start": part("bytes=0-", slice(0, None)),
    "range: from within": part("bytes=20-", slice(20, None)),
    "range: last byte": part("bytes=-1", slice(-1, None)),
    "range: suffix": part("bytes=-7", slice(-7, None)),
    "range: suffix longer than the whole": part("bytes=-99999999999", slice(0, None)),
    "range: clipped": part("bytes=5-99999999999", slice(5, None)),
    "range: clipped from beyond 64 bits": part("bytes=5-99999999999999999999999", slice(5, None)),
    "range: leading zeros": part("bytes=000-003", slice(0, 4)),
    "range: unit in capitals": part("BYTES=0-3", slice(0, 4)),
    "range: space before the number": part("bytes= 0-3", slice(0, 4)),
    "range: empty list members": part("bytes=,0-3,,", slice(0, 4)),
    # Several (§14.6, §15.3.7.2).
    "ranges: three": part("bytes=0-1,10-11,-2", FIRST, slice(10, 12), slice(-2, None)),
    "ranges: spaces": part("bytes=0-1 , 10-11,\t-2", FIRST, slice(10, 12), slice(-2, None)),
    "ranges: out of order": part("bytes=10-11,0-1", slice(10, 12), FIRST),
    "ranges: sixteen": part("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 32, 2)), *SIXTEEN),
    "ranges: one of two satisfiable": part("bytes=99999999999-,0-1", FIRST),
    "ranges: two of three satisfiable": part("bytes=0-1,99999999999-,4-5", FIRST, slice(4, 6)),
    "ranges: more than the whole": whole(Range="bytes=0-,0-"),
    "ranges: seventeen": whole(Range="bytes=" + ",".join(f"{n}-{n}" for n in range(0, 34, 2))),
    "ranges: a thousand": whole(Range="bytes=" + ",".join(f"{n}-{n}" for n in range(1000))),
    # Not understood: as if it were not there (§14.2).
    "nonsense: backwards": whole(Range="bytes=5-3"),
    "nonsense: another unit": whole(Range="lines=1-2"),
    "nonsense: no number": whole(Range="bytes=x"),
    "nonsense: no list": whole(Range="bytes"),
    "nonsense: only a dash": whole(Range="bytes=-"),
    "nonsense: two dashes": whole(Range="bytes=1-2-3"),
    "nonsense: negative": whole(Range="bytes=--1"),
    "nonsense: hexadecimal": whole(Range="bytes=0x0-0x1"),
    "nonsense: one of two": whole(Range="bytes=0-1,x"),
    "nonsense: empty": whole(Range=""),
    # Outside (§15.5.17).
    "outside: at the end": answer(416, Range="bytes={size}-"),
    "outside: at the end, closed": answer(416, Range="bytes={size}-{size}"),
    "outside: empty suffix": answer(416, Range="bytes=-0"),
    "outside: beyond 64 bits": answer(416, Range="bytes=99999999999999999999999-"),
    "outside: all of them": answer(416, Range="bytes={size}-,-0"),
    # If-Match (§13.1.1): strong comparison.
    "If-Match: ours": whole(If_Match="{etag}"),
    "If-Match: in a list": whole(If_Match='"x", {etag}, W/"y"'),
    "If-Match: anything": whole(If_Match="*"),
    "If-Match: weak": answer(412, If_Match="W/{etag}"),
    "If-Match: another": answer(412, If_Match='"x"'),
    "If-Match: ours, with a range": part("bytes=0-1", FIRST, If_Match="{etag}"),
    "If-Match: another, with a range": answer(412, If_Match='"x"', Range="bytes=0-1"),
    "If-Match: another, with a range outside": answer(412, If_Match='"x"', Range="bytes=-0"),
    "If-Match: shadows If-Unmodified-Since": whole(If_Match="{etag}", If_Unmodified_Since="{earlier}"),
    # If-Unmodified-Since (§13.1.4).
    "If-Unmodified-Since: then": whole(If_Unmodified_Since="{modified}"),
    "If-Unmodified-Since: later": whole(If_Unmodified_Since="{later}"),
    "If-Unmodified-Since: earlier": answer(412, If_Unmodified_Since="{earlier}"),
    "If-Unmodified-Since: no date": whole(If_Unmodified_Since="yesterday"),
    "If-Unmodified-Since: a resuming browser": part(
        "bytes=20-", slice(20, None), If_Match="{etag}", If_Unmodified_Since="{modified}"
    ),
    # If-None-Match (§13.1.2): weak comparison.
    "If-None-Match: ours": answer(304, If_None_Match="{etag}"),
    "If-None-Match: weak": answer(304, If_None_Match="W/{etag}"),
    "If-None-Match: in a list": answer(304, If_None_Match='"x",W/"y, z", {etag}'),
    "If-None-Match: anything": answer(304, If_None_Match="*"),
    "If-None-Match: another": whole(If_None_Match='"x"'),
    "If-None-Match: ours without quotes": whole(If_None_Match="x{etag}x".replace("{etag}", "0123")),
    "If-None-Match: ours, with a range": answer(304, If_None_Match="{etag}", Range="bytes=0-1"),
    "If-None-Match: ours, with a range outside": answer(304, If_None_Match="{etag}", Range="bytes=-0"),
    "If-None-Match: another, with a range": part("bytes=0-1", FIRST, If_None_Match='"x"'),
    "If-None-Match: shadows If-Modified-Since": whole(If_None_Match='"x"', If_Modified_Since="{modified}"),
    "If-None-Match: ours, changed since": answer(304, If_None_Match="{etag}", If_Modified_Since="{earlier}"),
    "If-None-Match: and If-Match": answer(304, If_Match="{etag}", If_None_Match="{etag}"),
    "If-None-Match: and If-Match another": answer(412, If_Match='"x"', If_None_Match="{etag}"),
    # If-Modified-Since (§13.1.3).
    "If-Modified-Since: then": answer(304, If_Modified_Since="{modified}"),
    "If-Modified-Since: later": answer(304, If_Modified_Since="{later}"),
    "If-Modified-Since: earlier": whole(If_Modified_Since="{earlier}"),
    "If-Modified-Since: no date": whole(If_Modified_Since="yesterday"),
    "If-Modified-Since: as RFC 850 wrote it": answer(304, If_Modified_Since="{rfc850}"),
    "If-Modified-Since: as asctime wrote it": answer(304, If_Modified_Since="{asctime}"),
    "If-Modified-Since: then, with a range": answer(304, If_Modified_Since="{modified}", Range="bytes=0-1"),
    # If-Range (§13.1.5): the same strong tag or exactly the date.
    "If-Range: ours": part("bytes=0-1", FIRST, If_Range="{etag}"),
    "If-Range: ours, several": part("bytes=0-1,4-5", FIRST, slice(4, 6), If_Range="{etag}"),
    "If-Range: weak": whole(If_Range="W/{etag}", Range="bytes=0-1"),
    "If-Range: another": whole(If_Range='"x"', Range="bytes=0-1"),
    "If-Range: the date": part("bytes=0-1", FIRST, If_Range="{modified}"),
    "If-Range: an earlier date": whole(If_Range="{earlier}", Range="bytes=0-1"),
    "If-Range: a later date": whole(If_Range="{later}", Range="bytes=0-1"),
    "If-Range: nonsense": whole(If_Range="x", Range="bytes=0-1"),
    "If-Range: another, with a range outside": whole(If_Range='"x"', Range="bytes={size}-"),
    "If-Range: ours, with a range outside": answer(416, If_Range="{etag}", Range="bytes={size}-"),
    "If-Range: without a range": whole(If_Range="{etag}"),
}


# One question for each way in which an answer comes about.
KINDS = [
    "everything",  # handed over whole
    "range: middle",  # cut by whoever sends it
    "range: clipped from beyond 64 bits",  # not what others would make of it: we send it
    "ranges: three",  # multipart
    "nonsense: backwards",  # whole, although a range is asked for
    "outside: at the end",
    "If-Match: ours, with a range",  # nginx and the store would judge it again: we send it
    "If-Match: another",
    "If-Unmodified-Since: earlier",
    "If-None-Match: ours",
    "If-Modified-Since: then",
    "If-Range: ours",  # the range counts
    "If-Range: another",
]
DECIDING = "direct-disk"

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_method = pytest.mark.parametrize("method", ["GET", "HEAD"])


@each_method
@each_case
@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("each_mode", [DECIDING], indirect=True)
def test_every_question_at_every_url(place: Place, case: Case, method: str) -> None:
    check_answer(place, case, method)


@each_method
@each_case
@pytest.mark.parametrize("place", ["public b", "link i"], indirect=True)  # large, and small
@pytest.mark.parametrize("each_mode", [name for name in MODES if name != DECIDING], indirect=True)
def test_every_question_in_every_mode(place: Place, case: Case, method: str) -> None:
    check_answer(place, case, method)


@each_method
@pytest.mark.parametrize("case", [CASES[name] for name in KINDS], ids=KINDS)
@pytest.mark.parametrize(
    "place", [name for name in PLACES if name not in ("public b", "link i")], indirect=True
)
@pytest.mark.parametrize("each_mode", [name for name in MODES if name != DECIDING], indirect=True)
def test_every_kind_of_question_at_every_url_in_every_mode(place: Place, case: Case, method: str) -> None:
    check_answer(place, case, method)


def test_head_tells_what_get_tells(place: Place) -> None:
    told = [
        {name: value for name, value in got.headers.items() if name not in ("date", "x-request-id")}
        for got in (place.ask(), place.ask("HEAD"))
    ]
    assert told[0] == told[1]


def check_answer(place: Place, case: Case, method: str) -> None:
    """Ranges are for GET only (§14.2); all else HEAD tells as GET would, without a body."""
    got = place.ask(method, case.asked_of(place))
    if method == "HEAD":
        assert got.status_code == (200 if case.status in (206, 416) else case.status)
        check_fields(place, got, body=False)
        assert got.content == b""
        return
    assert got.status_code == case.status
    check_fields(place, got)
    if case.status in (200, 206):
        assert parts_of(got) == [place.body[part] for part in case.parts]
    if case.status == 206 and len(case.parts) == 1:
        start, stop, _ = case.parts[0].indices(len(place.body))
        assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(place.body)}"


def parts_of(got: httpx.Response) -> list[bytes]:
    """The bodies of an answer's parts."""
    kind, _, boundary = got.headers["Content-Type"].partition("; boundary=")
    if kind != "multipart/byteranges":
        return [got.content]
    parts = got.content.split(b"--" + boundary.strip('"').encode())
    assert parts[-1] == b"--\r\n"
    found = []
    for text in parts[1:-1]:
        head, _, content = text.partition(b"\r\n\r\n")
        match = re.search(rb"(?i)content-range: bytes (\d+)-(\d+)/", head)
        assert match, head
        assert len(content) - 2 == int(match[2]) - int(match[1]) + 1
        found.append(content.removesuffix(b"\r\n"))
    return found


def check_fields(place: Place, got: httpx.Response, *, body: bool = True) -> None:
    """What the status asks for, and what every answer carries."""
    headers = got.headers
    check_headers(headers, got.status_code)
    assert parsedate_to_datetime(headers["Date"])
    assert headers["X-Request-Id"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Encoding" not in headers
    assert "Transfer-Encoding" not in headers
    if got.status_code in (200, 206, 304):
        assert headers["ETag"] == place.etag
        assert headers["Last-Modified"] == place.last_modified
        assert parsedate_to_datetime(headers["Last-Modified"]) <= parsedate_to_datetime(headers["Date"])
        check_caching(place, headers["Cache-Control"])
    if got.status_code in (200, 206):
        several = headers["Content-Type"].startswith("multipart/byteranges")
        assert several or headers["Content-Type"] == place.media_type
        assert not (several and "Content-Range" in headers)
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["Repr-Digest"] == place.repr_digest
        assert headers["Content-Disposition"].startswith("inline" if place.door == "i" else "attachment")
        assert "sandbox" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        corp = None if place.kind == "private" else "cross-origin"
        assert headers.get("Cross-Origin-Resource-Policy") == corp
        length = len(got.content) if body else len(place.body)
        assert headers["Content-Length"] == str(length)
    if got.status_code == 304:
        assert got.content == b""
        assert headers.get("Content-Length") in (None, str(len(place.body)))
    if got.status_code >= 400:
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["Cache-Control"] == "no-store"
        if body:
            assert got.json()["status"] == got.status_code
    if got.status_code == 416:
        assert headers["Content-Range"] == f"bytes */{len(place.body)}"


def check_caching(place: Place, control: str) -> None:
    if place.kind == "private":
        assert control == "private, no-cache"
    elif place.kind == "link":
        match = re.fullmatch(r"public, max-age=(\d+)", control)
        assert match
        assert 0 < int(match[1]) <= 300
    elif place.door == "i":
        assert "v=" in place.url
        assert control == "public, max-age=31536000, immutable"
    else:
        assert control == "public, no-cache"


def test_a_rendition_without_its_version_is_asked_for_again_each_time(places: dict[str, Place]) -> None:
    place = places["public i"]
    for query in ("", "?v=99", "?v="):
        got = place.client.get(place.url.partition("?")[0] + query)
        assert got.headers["Cache-Control"] == "public, no-cache"
        assert got.content == place.body


@pytest.mark.parametrize("start", [(1 << 20) - 1, 1 << 20, (2 << 20) - 3])
def test_a_range_around_a_mebibyte(places: dict[str, Place], each_mode: Mode, start: int) -> None:
    place = places["public b"]
    got = place.ask(headers={"Range": f"bytes={start}-{start + 5}"})
    assert (got.status_code, got.content) == (206, place.body[start : start + 6])


def test_a_range_asked_for_twice_over_is_left_aside(place: Place) -> None:
    got = place.ask(headers=[("Range", "bytes=0-1"), ("Range", "bytes=4-5")])
    assert (got.status_code, got.content) == (200, place.body)
