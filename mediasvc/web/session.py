"""The page's cookie: names a key and until when, signed; never the key itself.

The key is looked up each time, so one that was revoked or has expired ends its sessions at once. A browser sends a
cookie along whoever made it ask: hence it counts for reading only, and for all else where the request says that it
comes from our own pages (`Origin`).
"""

import hashlib
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.access import ADMIN_KEY_ID, ADMIN_SCOPES, ANONYMOUS, Caller
from mediasvc.core.errors import Unauthorised
from mediasvc.core.origins import parse_origin
from mediasvc.core.signing import Signer
from mediasvc.web.errors import problem, request_id_of
from mediasvc.web.urls import base_url

COOKIE = "mediasvc_session"
LIFETIME = 30 * 86400  # seconds
PURPOSE = "session"
SCHEME = b"Session "  # stands before a cookie's value where an Authorization header is expected
# A 401 that offers Basic makes browsers ask for a password by themselves, over the page that knows better.
_CHALLENGE = (b"www-authenticate", b'Session realm="mediasvc"')


class Sessions:
    """Makes what stands in the cookie, and finds the caller behind it.

    The signature covers the SHA-256 of the key's secret, too: another fixed admin key ends the sessions of the last.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        signer: Signer,
        admin_secret: str | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalogue = catalogue
        self._signer = signer
        self._admin_sha256 = hashlib.sha256(admin_secret.encode()).hexdigest() if admin_secret else None
        self._clock = clock

    async def begin(self, secret: str) -> tuple[str, int] | None:
        """The cookie's value and the seconds it lives, for the bearer of a key; None where there is no such key."""
        sha256, now = hashlib.sha256(secret.encode()).hexdigest(), self._clock()
        key_id, ends = ADMIN_KEY_ID, int(now) + LIFETIME
        if sha256 != self._admin_sha256:
            key = await self._catalogue.key_by_secret(sha256)
            if key is None:
                return None
            key_id = key.id
            if key.expires_at is not None:
                ends = min(ends, int(key.expires_at))
        signed_by, signature = self._signer.sign(PURPOSE, key_id, ends, sha256)
        return f"{key_id}.{ends}.{signed_by}.{signature}", max(0, ends - int(now))

    async def caller(self, value: bytes) -> Caller:
        """Whoever the cookie is of; nobody where it is over, forged, or its key does not live any more."""
        key_id, _, rest = value.decode("latin-1").partition(".")
        ends, _, rest = rest.partition(".")
        signed_by, _, signature = rest.partition(".")
        now = self._clock()
        if not (ends.isascii() and ends.isdigit()) or len(ends) > 15 or int(ends) <= now:
            return ANONYMOUS
        if key_id == ADMIN_KEY_ID:
            caller, sha256 = Caller(ADMIN_KEY_ID, ADMIN_SCOPES), self._admin_sha256
        else:
            key = await self._catalogue.key(key_id)
            if key is None or not key.live(now):
                return ANONYMOUS
            caller, sha256 = Caller.bearing(key), key.secret_sha256
        if sha256 is None or not self._signer.verify(
            signed_by, signature, PURPOSE, key_id, int(ends), sha256
        ):
            return ANONYMOUS
        return caller

    async def lives(self, caller: Caller) -> bool:
        """Whether a caller who was let in a while ago would still be."""
        if caller.key_id is None or caller.key_id == ADMIN_KEY_ID:
            return caller.key_id is not None
        key = await self._catalogue.key(caller.key_id)
        return key is not None and key.live(self._clock())


def from_elsewhere(scope: Scope, public_url: str | None) -> bool:
    """Whether the request says that it comes from a page that is not ours (no `Origin`: it does not say)."""
    for name, value in scope["headers"]:
        if name == b"origin":
            return bool(value.decode("latin-1") != origin_of(base_url(scope, public_url)))
    return False


def origin_of(url: str) -> str:
    """As browsers write it; nothing they ever write where the URL is none (a Host header may say anything)."""
    parts = urlsplit(url)
    try:
        return parse_origin(f"{parts.scheme}://{parts.netloc}")
    except ValueError:
        return ""


def cookie_in(scope: Scope) -> bytes | None:
    """What our cookie holds, where one was sent and no key, which would count more."""
    found = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            return None
        if name == b"cookie":
            for pair in value.split(b";"):
                cookie, _, content = pair.strip().partition(b"=")
                if cookie == COOKIE.encode():
                    found = content
    return found


class Remembered:
    """Puts the cookie where the key would stand, `Authorization: Session …`, for all layers below at once."""

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookie = cookie_in(scope) if scope["type"] == "http" else None
        asks_for_one = scope.get("path") == "/v1/session"
        if cookie is None and not asks_for_one:
            await self._app(scope, receive, send)
            return

        async def quiet_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                others = [pair for pair in message["headers"] if pair[0] != _CHALLENGE[0]]
                message["headers"] = [*others, _CHALLENGE]
            await send(message)

        if cookie is not None and self._counts(scope):
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", SCHEME + cookie)]}
        try:
            await self._app(scope, receive, quiet_send)
        except Unauthorised as error:  # always before an answer has begun
            await problem(error, request_id_of(scope))(scope, receive, quiet_send)

    def _counts(self, scope: Scope) -> bool:
        names = {name for name, _ in scope["headers"]}
        # What says that it is another method will be taken for it.
        if scope["method"] in ("GET", "HEAD") and b"x-http-method-override" not in names:
            return True
        said = b"origin" in names
        return said and not from_elsewhere(scope, self._public_url)
