"""Plain downloads, answered by the connection itself.

nginx asks with a head and is told with a head where the blob lies; a browser asks for a thumbnail that lies in memory.
Nothing has to be waited for, and of what such a request costs most was the way there and back (a parser's callbacks, a
task, nine layers that have nothing to do). Here the same decision is made in one go. What is out of the ordinary in any
way, a header that is not listed here, an error, bytes on the disk, goes the long way instead, from its beginning.
"""

import re
import time
from functools import lru_cache, partial
from typing import Protocol
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mediasvc.deliver.plan import Header
from mediasvc.web.carrier import header_lines
from mediasvc.web.observe import new_request_id, note, own_headers, shown_path
from mediasvc.web.proxy import TOLD, Proxies

# One head and nothing after it, as everybody writes it: every line "Name: value" with one blank, no other line ends.
_LINE = re.compile(rb"GET (/[bfi]/[!\"$->@-~]*)(?:\?([!\"$-~]*))? HTTP/1\.1")
_FIELDS = re.compile(rb"(?:[!-9;-~]+: (?! )[ -~\x80-\xff]*\r\n)+\r\n")
_AUTHORIZATION = b"authorization"
# What a download's answer does not depend on.
_IRRELEVANT = frozenset(
    (
        b"host",
        b"user-agent",
        b"accept",
        b"accept-encoding",  # bytes of assets are sent as they are
        b"accept-language",
        b"referer",
        b"cache-control",
        b"pragma",
        b"dnt",
        b"priority",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-user",
        b"sec-gpc",
        b"sec-ch-ua",
        b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform",
        b"upgrade-insecure-requests",
    )
)
_KNOWN = frozenset((_AUTHORIZATION, *TOLD))
_OWN = header_lines(own_headers("%b"))  # to be filled in with the id of each request
_LONGEST = 2048  # bytes of a head: what is remembered of thousands stays within ten megabytes


class AtOnce(Protocol):
    """`Downloads.at_once`."""

    def __call__(
        self, raw_path: bytes, query: bytes, authorization: bytes | None, address: str, *, behind_proxy: bool
    ) -> tuple[bytes, bytes | bytearray] | None:
        """Header lines and body of the 200 to a plain GET; None, or any error: there is none, or not at once."""


class Express:
    """Reads a head and writes an answer; `at_once` decides."""

    def __init__(self, proxies: Proxies, at_once: AtOnce) -> None:
        self._at_once = at_once
        # A page's pictures are asked for with the same fields one after another, and each by many.
        self._asker = lru_cache(maxsize=1024)(partial(_asker, proxies))
        self._asked = lru_cache(maxsize=1024)(_asked)
        self._always: tuple[list[Header], bytes] = [], b""

    def answer(self, head: bytes, peer: str, always: list[Header]) -> tuple[bytes, bytes | bytearray] | None:
        """Head and body of the answer to this request, with these headers besides; None: it goes the long way, and
        nothing has happened. `peer` is the address of whoever is connected. A changed `always` is another list."""
        began = time.perf_counter()
        if len(head) > _LONGEST:
            return None
        line, _, fields = head.partition(b"\r\n")
        if (asked := self._asked(line)) is None or (asker := self._asker(fields, peer)) is None:
            return None
        raw_path, query, path, shown = asked
        authorization, address, behind_proxy = asker
        try:
            decided = self._at_once(raw_path, query, authorization, address, behind_proxy=behind_proxy)
        except Exception:  # whatever it is: the long way meets it again, and tells it
            return None
        if decided is None:
            return None
        told, body = decided
        request_id = new_request_id()
        if always is not self._always[0]:
            self._always = always, STATUS_LINE[200] + header_lines(always)
        answer = b"%b%b%b\r\n" % (self._always[1], told, _OWN % request_id.encode())
        note(request_id, "GET", path, shown, 200, len(body), time.perf_counter() - began, address)
        return answer, body


def _asked(line: bytes) -> tuple[bytes, bytes, str, str] | None:
    """Of a request line: path as it came, query, path decoded, and as the log shows it. None: it is no plain one."""
    if (found := _LINE.fullmatch(line)) is None:
        return None
    raw_path, query = found.groups()
    path = unquote(raw_path.decode("ascii"))
    return raw_path, query or b"", path, shown_path(path, raw_path)


def _asker(proxies: Proxies, fields: bytes, peer: str) -> tuple[bytes | None, str, bool] | None:
    """What the header fields say of whoever asks: Authorization, address, whether a trusted proxy passed it on. None:
    they say more than that."""
    if _FIELDS.fullmatch(fields) is None:
        return None
    known: dict[bytes, bytes] = {}
    for field in fields[:-4].split(b"\r\n"):
        name, _, value = field.partition(b": ")
        name = name.lower()
        if name in _IRRELEVANT or (name == b"connection" and value.lower() == b"keep-alive"):
            continue
        if name not in _KNOWN or name in known:
            return None
        known[name] = value
    authorization = known.pop(_AUTHORIZATION, None)
    if not known:
        return authorization, peer, False
    if not proxies.trusts(peer):
        return None
    seen = proxies.seen(*[known.get(name, b"") for name in TOLD])
    if not seen.forwarded or seen.client is None:
        return None
    return authorization, seen.client, True
