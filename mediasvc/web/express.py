"""Plain downloads, answered by the connection itself.

nginx asks with a head and is told with a head where the blob lies; a browser asks for a thumbnail that lies in memory.
Nothing has to be waited for, and of what such a request costs most was the way there and back (a parser's callbacks, a
task, nine layers that have nothing to do). Here the same decision is made in one go. What is out of the ordinary in any
way, a header that is not listed here, an error, bytes on the disk, goes the long way instead, from its beginning.
"""

import re
import time
from typing import Protocol
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mediasvc.deliver.plan import Header
from mediasvc.web.observe import new_request_id, note, own_headers
from mediasvc.web.proxy import TOLD, Proxies

# One head and nothing after it, as everybody writes it: every line "Name: value" with one blank, no other line ends.
_HEAD = re.compile(
    rb"GET (/[bfi]/[!\"$->@-~]*)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n((?:[!-9;-~]+: (?! )[ -~\x80-\xff]*\r\n)+)\r\n"
)
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


class AtOnce(Protocol):
    """`Downloads.at_once`."""

    def __call__(
        self, raw_path: bytes, query: bytes, authorization: bytes | None, address: str, *, behind_proxy: bool
    ) -> tuple[list[Header], bytes | bytearray] | None:
        """Headers and body of the 200 to a plain GET; None, or any error: there is no such answer, or not at once."""


class Express:
    """Reads a head and writes an answer; `at_once` decides."""

    def __init__(self, proxies: Proxies, at_once: AtOnce) -> None:
        self._proxies = proxies
        self._at_once = at_once

    def answer(self, head: bytes, peer: str, always: list[Header]) -> tuple[bytes, bytes | bytearray] | None:
        """Head and body of the answer to this request, with these headers besides; None: it goes the long way, and
        nothing has happened. `peer` is the address of whoever is connected."""
        began = time.perf_counter()
        if (found := _HEAD.fullmatch(head)) is None:
            return None
        raw_path, query, lines = found.groups()
        known: dict[bytes, bytes] = {}
        for line in lines[:-2].split(b"\r\n"):
            name, _, value = line.partition(b": ")
            name = name.lower()
            if name in _IRRELEVANT or (name == b"connection" and value.lower() == b"keep-alive"):
                continue
            if name not in _KNOWN or name in known:
                return None
            known[name] = value
        authorization, address = known.pop(_AUTHORIZATION, None), peer
        if known:
            if not self._proxies.trusts(peer):
                return None
            seen = self._proxies.seen(*[known.get(name, b"") for name in TOLD])
            if not seen.forwarded or seen.client is None:
                return None
            address = seen.client
        try:
            decided = self._at_once(raw_path, query or b"", authorization, address, behind_proxy=bool(known))
        except Exception:  # whatever it is: the long way meets it again, and tells it
            return None
        if decided is None:
            return None
        told, body = decided
        request_id = new_request_id()
        headers = (*always, *told, *own_headers(request_id))
        answer = b"%b%b\r\n" % (STATUS_LINE[200], b"".join([b"%b: %b\r\n" % pair for pair in headers]))
        path = unquote(raw_path.decode("ascii"))
        note(request_id, "GET", path, raw_path, 200, len(body), time.perf_counter() - began, address)
        return answer, body
