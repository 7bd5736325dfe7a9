"""Proxy headers, believed only from trusted proxies: X-Forwarded-* and Forwarded (RFC 7239)."""

import ipaddress
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"\s]*)\s*')
_PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]+)*")


TOLD = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a trusted proxy told of a request; None and "" for what it did not tell."""

    forwarded: bool
    client: str | None
    scheme: str
    host: bytes
    prefix: str


class Proxies:
    """The trusted proxies, and what they tell.

    Of several addresses the rightmost that is no trusted proxy counts: what stands left of it was sent by
    whoever connected to that proxy, and may be forged.
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        networks = tuple(trusted)
        # Clients come again: finding out took a sixth of a small download, and networks are slow to hash (measured).
        self.trusts = lru_cache(maxsize=4096)(partial(is_trusted, trusted=networks))
        self.seen = lru_cache(maxsize=4096)(partial(_seen, networks))  # by the values of the headers in TOLD


class Proxied:
    """Puts the client's address, scheme, host and path prefix into the scope, as a trusted proxy told them; and
    `behind_proxy` into its state where one passed the request on, for only such a one may be told where blobs lie.
    """

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        client = scope.get("client")
        if scope["type"] == "http" and client and self._proxies.trusts(client[0]):
            self._see_through(scope)
        return self._app(scope, receive, send)

    def _see_through(self, scope: Scope) -> None:
        """In place: the access log names the real client too."""
        told = dict.fromkeys(TOLD, b"")
        asked_host = b""
        for name, value in scope["headers"]:
            if name in told:
                told[name] = told[name] + b"," + value if told[name] else value
            elif name == b"host":
                asked_host = value
        seen = self._proxies.seen(*told.values())
        # A client that shares the proxy's address and asks us directly is none.
        if seen.forwarded:
            scope["state"]["behind_proxy"] = True
        if seen.client is not None:
            scope["client"] = (seen.client, 0)
        if seen.scheme:
            scope["scheme"] = seen.scheme
        if seen.host and seen.host != asked_host:
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"] = [(b"host", seen.host), *others]
        if seen.prefix:
            scope["state"]["prefix"] = seen.prefix


def _seen(
    trusted: Sequence[Network], forwarded: bytes, addresses: bytes, scheme: bytes, host: bytes, prefix: bytes
) -> Seen:
    """From the values of the headers in `TOLD`."""
    hops = _forwarded(forwarded.decode("latin-1"))
    told = [hop["for"] for hop in hops if "for" in hop] or _split(addresses.decode("latin-1"))
    last = hops[-1] if hops else {}
    client = None
    for address in reversed([_bare(address) for address in told]):
        client = address
        if not is_trusted(address, trusted):
            break
    told_scheme = (last.get("proto") or _last(scheme.decode("latin-1"))).lower()
    told_prefix = _last(prefix.decode("latin-1")).rstrip("/")
    return Seen(
        forwarded=bool(told),
        client=client,
        scheme=told_scheme if told_scheme in ("http", "https") else "",
        host=(last.get("host") or _last(host.decode("latin-1"))).encode("latin-1"),
        prefix=told_prefix if _PREFIX.fullmatch(told_prefix) else "",
    )


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in trusted if network.version == ip.version)


def _split(text: str) -> list[str]:
    return [part for part in map(str.strip, text.split(",")) if part]


def _last(text: str) -> str:
    parts = _split(text)
    return parts[-1] if parts else ""


def _forwarded(text: str) -> list[dict[str, str]]:
    """The hops of a Forwarded header, in order; what is malformed is left out."""
    hops = []
    for element in text.split(","):
        pairs = (_PAIR.fullmatch(pair) for pair in element.split(";"))
        hop = {match[1].lower(): match[2].strip('"') for match in pairs if match}
        if hop:
            hops.append(hop)
    return hops


def _bare(address: str) -> str:
    """Without port and brackets."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
