"""Plain downloads behind nginx, answered by the connection itself.

nginx asks with a head and is told with a head where the blob lies: no body either way, and nothing to wait for. Of what
such a request costs, three quarters were the way there and back (a parser's callbacks, a task, nine layers that have
nothing to do). Here the same decision is made in one go. What is out of the ordinary in any way, a header that is not
listed here, an error, something that must be waited for, goes the long way instead, from its beginning.
"""

import re
import time
from collections.abc import Callable
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from mediasvc.deliver.plan import Header
from mediasvc.web.observe import new_request_id, note, own_headers
from mediasvc.web.proxy import TOLD, Proxies

# One head and nothing after it, as nginx writes it: every line "Name: value", no other line ends.
_HEAD = re.compile(
    rb"GET (/[bfi]/[!\"$->@-~]*)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n((?:[!-9;-~]+: [ -~\x80-\xff]*\r\n)+)\r\n"
)
_AUTHORIZATION = b"authorization"
# What a download's answer does not depend on.
_IDLE = frozenset(
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
        b"sec-ch-ua",
        b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform",
    )
)
_KNOWN = frozenset((_AUTHORIZATION, *TOLD))

# The headers of the answer to a plain GET of a path, with a query, by whoever bears an authorization, at an address.
HandedOver = Callable[[bytes, bytes, bytes | None, str], list[Header] | None]


class Express:
    """`handed_over` decides; what it gives is the whole of an answer's headers."""

    def __init__(self, proxies: Proxies, handed_over: HandedOver) -> None:
        self._proxies = proxies
        self._handed_over = handed_over

    def serves(self, address: str) -> bool:
        """Whether whoever connects from there may be answered this way."""
        return self._proxies.trusts(address)

    def answer(self, head: bytes, always: list[Header]) -> bytes | None:
        """The answer to this request, with these headers besides; None: it goes the long way, nothing has happened."""
        began = time.perf_counter()
        if (found := _HEAD.fullmatch(head)) is None:
            return None
        raw_path, query, lines = found.groups()
        known: dict[bytes, bytes] = {}
        for line in lines[:-2].split(b"\r\n"):
            name, _, value = line.partition(b": ")
            name = name.lower()
            if name in _IDLE:
                continue
            if name not in _KNOWN or name in known:
                return None
            known[name] = value
        seen = self._proxies.seen(*[known.get(name, b"") for name in TOLD])
        if not seen.forwarded or seen.client is None:
            return None
        told = self._handed_over(raw_path, query or b"", known.get(_AUTHORIZATION), seen.client)
        if told is None:
            return None
        request_id = new_request_id()
        headers = (*always, *told, *own_headers(request_id))
        answer = b"%b%b\r\n" % (STATUS_LINE[200], b"".join([b"%b: %b\r\n" % pair for pair in headers]))
        path = unquote(raw_path.decode("ascii"))
        note(request_id, "GET", path, raw_path, 200, 0, time.perf_counter() - began, seen.client)
        return answer
