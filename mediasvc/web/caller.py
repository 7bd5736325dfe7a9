"""Who is asking: the key in `Authorization`, as Bearer or as the password of Basic."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.access import ADMIN_KEY_ID, ADMIN_SCOPES, ANONYMOUS, Caller
from mediasvc.web.session import SCHEME, Sessions

_LONGEST = 1024  # bytes of what is remembered; no key that we made is that long
CallerOf = Callable[[bytes | None], Coroutine[Any, Any, Caller]]


def secret_in(authorization: bytes | None) -> bytes | None:
    """The key a request carries, whichever of the two schemes it uses; None where there is none."""
    if not authorization:
        return None
    scheme, _, rest = authorization.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip() or None
        case b"basic":
            try:
                return base64.b64decode(rest.strip(), validate=True).partition(b":")[2] or None
            except binascii.Error:
                return None
    return None


def _digest_in(authorization: bytes) -> bytes | None:
    """The sha256 of the key a request carries."""
    secret = secret_in(authorization)
    return None if secret is None else hashlib.sha256(secret).digest()


_remembered_digest = lru_cache(maxsize=1024)(_digest_in)  # who asked once asks again


def caller_resolver(
    catalogue: Catalogue, admin_secret: str | None, sessions: Sessions | None = None
) -> CallerOf:
    """Finds the caller behind an Authorization header; an unknown, revoked or malformed key is nobody.

    `admin_secret` is the fixed admin key of the settings: compared, never stored. The catalogue is asked
    every time (microseconds), so that a key made or revoked elsewhere counts at once. `sessions` finds the one
    behind a cookie, which arrives as `Authorization: Session …` (see `web/session.py`).
    """
    fixed = hashlib.sha256(admin_secret.encode()).digest() if admin_secret else None
    admin = Caller(ADMIN_KEY_ID, ADMIN_SCOPES)

    async def caller_of(authorization: bytes | None) -> Caller:
        if authorization is None:
            return ANONYMOUS
        if authorization.startswith(SCHEME):
            return await sessions.caller(authorization[len(SCHEME) :]) if sessions is not None else ANONYMOUS
        usual = len(authorization) <= _LONGEST
        digest = _remembered_digest(authorization) if usual else _digest_in(authorization)
        if digest is None:
            return ANONYMOUS
        if fixed is not None and hmac.compare_digest(fixed, digest):
            return admin
        key = await catalogue.key_by_secret(digest.hex())
        return Caller.bearing(key) if key else ANONYMOUS

    return caller_of
