"""Signed links: what one promises, how it stands in a URL, and what of a URL is believed.

A plain link is nothing but its URL: checking one costs microseconds and writes nothing. It ends when its time is
over or when the asset's `link_epoch`, which is signed too, rises.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from mediasvc.core.errors import Forbidden
from mediasvc.core.signing import Signer

LONGEST = 366 * 86400  # seconds; what should be seen for longer belongs into a public bucket
_PURPOSE = "link"
_NARROWEST = 60  # seconds
_KEPT = 300  # seconds
_FORM: Mapping[bytes, re.Pattern[bytes]] = {
    b"exp": re.compile(rb"[1-9][0-9]{0,11}"),
    b"kid": re.compile(rb"[0-9a-f]{8}"),
    b"sig": re.compile(rb"[A-Za-z0-9_-]{43}"),
    b"link": re.compile(rb"lnk_[0-9a-z]{26,36}"),
    b"disposition": re.compile(rb"inline|attachment"),
    b"download": re.compile(rb"1?"),  # not signed: it only ever takes showing in place away
}
_NEEDED = frozenset((b"exp", b"kid", b"sig"))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a link promises, all of it signed. `expires_at` is whole seconds since the epoch.

    `recipe` is a preset with its `ext`, or "" for the original; `disposition` is `inline`, `attachment`, or ""
    for what the media type allows; `link_id` names the row of a link that is counted.
    """

    asset_id: str
    expires_at: int
    recipe: str = ""
    ext: str = ""
    disposition: str = ""
    link_id: str = ""

    def _signed(self, epoch: int) -> tuple[str | int, ...]:
        kind = "i" if self.recipe else "f"
        return (
            kind, self.asset_id, self.recipe, self.ext, self.disposition, self.expires_at, epoch, self.link_id
        )  # fmt: skip

    def url(self, signer: Signer, epoch: int, name: str) -> str:
        """Path and query of the link; `name` is cosmetic."""
        key_id, signature = signer.sign(_PURPOSE, *self._signed(epoch))
        if self.recipe:
            path = f"/i/{self.recipe}/{self.asset_id}.{self.ext}"
        else:
            path = f"/f/{self.asset_id}/{quote(name, safe='')}"
        more = f"&link={self.link_id}" if self.link_id else ""
        if self.disposition:
            more += f"&disposition={self.disposition}"
        return f"{path}?exp={self.expires_at}&kid={key_id}&sig={signature}{more}"

    def signed_by(self, signer: Signer, epoch: int, key_id: str, signature: str) -> bool:
        return signer.verify(key_id, signature, _PURPOSE, *self._signed(epoch))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a URL's query says of a link: not believed before `Terms.signed_by` says so."""

    expires_at: int
    key_id: str
    signature: str
    link_id: str = ""
    disposition: str = ""

    def max_age(self, now: float, asset_ends: float | None) -> int:
        """How long, in seconds, a cache may keep what the link opened: a revoked link lives on there so long."""
        ends = self.expires_at if asset_ends is None else min(self.expires_at, asset_ends)
        return max(0, min(int(ends - now), _KEPT))


def claim_in(query: bytes, now: float) -> Claim | None:
    """The link in a URL's query, as it came over the wire; None where nothing there is a link's.

    A link has one spelling: a parameter that is missing, doubled, percent-encoded or not a link's is Forbidden, and so
    is one whose time is over. Raises Forbidden.
    """
    if not query:
        return None
    fields = [field.partition(b"=") for field in query.split(b"&")]
    given = {name: value for name, _, value in fields}
    # However somebody spells them, these names are a link's: a misspelt link is a bad link, and not none.
    if _NEEDED.isdisjoint(unquote_to_bytes(name).lower() for name in given):
        return None
    if (
        len(given) != len(fields)
        or not given.keys() >= _NEEDED
        or not all(name in _FORM and _FORM[name].fullmatch(value) for name, value in given.items())
    ):
        raise bad_link()
    if (expires_at := int(given[b"exp"])) <= now:
        raise Forbidden("the link is over: ask for a new one")
    return Claim(
        expires_at,
        given[b"kid"].decode(),
        given[b"sig"].decode(),
        given.get(b"link", b"").decode(),
        given.get(b"disposition", b"").decode(),
    )


def bad_link() -> Forbidden:
    """The one answer to every link that does not hold, so that it tells nothing about the asset."""
    return Forbidden("the link does not hold: it was changed, revoked or used up; ask for a new one")


def ends_at(now: float, expires_in: float, *, counted: bool) -> int:
    """When a link made now ends, in whole seconds. For a plain one rounded up to a window, so that whoever asks for
    the same within it gets the same URL: a tenth of `expires_in`, at least a minute."""
    window = 1 if counted else max(_NARROWEST, round(expires_in / 10))
    return math.ceil((now + expires_in) / window) * window
