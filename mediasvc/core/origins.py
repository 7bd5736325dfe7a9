"""Origins of web pages (RFC 6454): scheme, host and port, as browsers write them into `Origin`."""

import re
from collections.abc import Sequence

EVERY = "*"
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?", re.ASCII)
_IMPLIED = {"http": 80, "https": 443}


def parse_origin(text: str) -> str:
    """The origin as a browser sends it, or `*`. Raises ValueError."""
    text = text.strip()
    if text == EVERY:
        return EVERY
    match = _ORIGIN.fullmatch(text.lower())
    port = int(match[3]) if match and match[3] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise ValueError(f"{text[:100]!r} is no origin; write https://app.example.org, without a path, or *")
    scheme, host = match[1], match[2]
    return f"{scheme}://{host}" if port in (None, _IMPLIED.get(scheme)) else f"{scheme}://{host}:{port}"


def narrow(allowed: Sequence[str], by: Sequence[str]) -> Sequence[str]:
    """Those of `allowed` that `by` leaves; an empty `by` leaves all of them. Never more than was allowed."""
    if not by or EVERY in by:
        return allowed
    return by if EVERY in allowed else [origin for origin in allowed if origin in by]
