"""Proxy headers, believed only from trusted proxies: X-Forwarded-* and Forwarded (RFC 7239)."""

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"\s]*)\s*')
_PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]+)*")


class Proxied:
    """Puts the client's address, scheme, host and path prefix into the scope, as a trusted proxy told them; and
    `behind_proxy` into its state where one passed the request on, for only such a one may be told where blobs lie.

    Of several addresses the rightmost that is no trusted proxy counts: what stands left of it was sent by
    whoever connected to that proxy, and may be forged.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if scope["type"] == "http" and self._trusted and client and is_trusted(client[0], self._trusted):
            scope.update(self._seen_through(scope))  # in place: the access log names the real client too
        await self._app(scope, receive, send)

    def _seen_through(self, scope: Scope) -> Scope:
        """What changes."""
        values: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            if name == b"forwarded" or name.startswith(b"x-forwarded-"):
                values.setdefault(name, []).append(value.decode("latin-1"))
        told = {name: ",".join(parts) for name, parts in values.items()}
        hops = _forwarded(told.get(b"forwarded", ""))
        addresses = [hop["for"] for hop in hops if "for" in hop] or _split(told.get(b"x-forwarded-for", ""))
        last = hops[-1] if hops else {}
        scheme = last.get("proto") or _last(told.get(b"x-forwarded-proto", ""))
        host = last.get("host") or _last(told.get(b"x-forwarded-host", ""))
        prefix = _last(told.get(b"x-forwarded-prefix", "")).rstrip("/")

        # A client that shares the proxy's address and asks us directly is none.
        if addresses:
            scope["state"]["behind_proxy"] = True

        changed: Scope = {}
        for address in reversed([_bare(address) for address in addresses]):
            changed["client"] = (address, 0)
            if not is_trusted(address, self._trusted):
                break
        if scheme.lower() in ("http", "https"):
            changed["scheme"] = scheme.lower()
        if host:
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            changed["headers"] = [(b"host", host.encode("latin-1")), *others]
        if prefix and _PREFIX.fullmatch(prefix):
            scope["state"]["prefix"] = prefix
        return changed


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
