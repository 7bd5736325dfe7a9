"""A link opens what it was made for, in one spelling, for as long as it says."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.catalogue.interface import Source
from mediasvc.core.asset import Asset, Blob, State
from mediasvc.core.errors import Forbidden, NotFound, RenditionPending
from mediasvc.core.ids import new_asset_id, new_link_id
from mediasvc.core.link import Link
from mediasvc.core.signing import Signer
from mediasvc.deliver.find import ById, ByKey, OfPreset, Target, find_linked
from mediasvc.deliver.links import Claim, Terms, claim_in, ends_at

NOW = 1_700_000_000.0
END = int(NOW) + 3600
SIGNER = Signer(["a secret of the tests"])
HERE, ELSEWHERE, ABSENT, LINK = new_asset_id(), new_asset_id(), new_asset_id(), new_link_id()
ORIGINAL = Terms(HERE, END)
GRID = Terms(HERE, END, "grid", "webp")
COUNTED = Terms(HERE, END, link_id=LINK)


class Shelf:
    """Two assets of one bucket, private, with a grid each; one link with a row to the first."""

    def __init__(self, *, epoch: int = 0, revoked: bool = False, state: State = "processing") -> None:
        self.epoch = epoch
        self.revoked = revoked
        self.state = state

    async def source(self, asset_id: str, preset: str = "") -> Source | None:
        if asset_id not in (HERE, ELSEWHERE) or preset not in ("", "grid"):
            return None
        return Source(
            asset_id, "media", "a/b.png", "b.png", False, 1, 5, "b" * 32, 9, "c" * 64,
            "image/webp" if preset else "image/png", link_epoch=self.epoch,
        )  # fmt: skip

    async def link(self, link_id: str) -> Link | None:
        return None if self.revoked or link_id != LINK else Link(LINK, HERE, NOW, END, "", 1)

    async def asset(self, asset_id: str) -> Asset | None:
        blob = Blob("b" * 32, 9, "c" * 64, 1)
        return Asset(asset_id, "media", "a/b.png", "b.png", blob, "image/png", self.state, NOW, 5)


def target_of(terms: Terms) -> Target:
    if terms.recipe:
        return OfPreset(terms.recipe.encode(), terms.asset_id.encode(), terms.ext.encode())
    return ById(terms.asset_id.encode())


def query_of(terms: Terms, *, epoch: int = 0, signer: Signer = SIGNER) -> bytes:
    return terms.url(signer, epoch, "b.png").partition("?")[2].encode()


def open_(
    terms: Terms, *, at: Target | None = None, query: bytes | None = None, shelf: Shelf | None = None, **signed: Any
) -> tuple[Source, Link | None]:  # fmt: skip
    """What a request with the link's query gets at its own URL, or at another."""
    claim = claim_in(query_of(terms, **signed) if query is None else query, NOW)
    assert claim is not None
    place: Any = shelf or Shelf()
    return asyncio.run(find_linked(place, at or target_of(terms), claim, SIGNER))


# --- how a link stands in a URL


def test_a_link_is_a_path_and_a_query() -> None:
    assert ORIGINAL.url(SIGNER, 0, "a b/é?.png").startswith(f"/f/{HERE}/a%20b%2F%C3%A9%3F.png?exp={END}&kid=")
    assert GRID.url(SIGNER, 0, "b.png").startswith(f"/i/grid/{HERE}.webp?exp={END}&kid=")
    whole = replace(COUNTED, disposition="attachment").url(SIGNER, 0, "b.png")
    assert whole.endswith(f"&link={LINK}&disposition=attachment")


def test_equal_terms_give_equal_urls() -> None:
    assert Terms(HERE, END).url(SIGNER, 3, "x") == Terms(HERE, END).url(SIGNER, 3, "x")


@pytest.mark.parametrize("terms", [ORIGINAL, GRID, COUNTED], ids=["original", "rendition", "counted"])
def test_what_a_url_says_is_what_was_promised(terms: Terms) -> None:
    terms = replace(terms, disposition="inline")
    claim = claim_in(query_of(terms), NOW)
    assert claim is not None
    assert (claim.expires_at, claim.disposition, claim.link_id) == (END, "inline", terms.link_id)
    assert terms.signed_by(SIGNER, 0, claim.key_id, claim.signature)


@pytest.mark.parametrize(
    "query", [b"", b"download", b"v=3", b"disposition=inline", b"signature=1&expires=2", b"&&"]
)
def test_a_query_without_a_link_is_none(query: bytes) -> None:
    assert claim_in(query, NOW) is None


GOOD = query_of(ORIGINAL)
FIELDS = dict(field.split(b"=") for field in GOOD.split(b"&"))


def with_(name: bytes, value: bytes) -> bytes:
    return b"&".join(b"%b=%b" % pair for pair in (FIELDS | {name: value}).items())


MALFORMED = {
    **{f"{name.decode()} twice": GOOD + b"&%b=%b" % (name, FIELDS[name]) for name in FIELDS},
    **{
        f"without {gone.decode()}": b"&".join(b"%b=%b" % pair for pair in FIELDS.items() if pair[0] != gone)
        for gone in FIELDS
    },
    "exp twice, first another": b"exp=%d&" % (END + 9999) + GOOD,
    "link twice": GOOD + b"&link=%b" % LINK.encode() * 2,
    "no value": b"sig",
    "all in capitals": GOOD.upper(),
    "all names percent-encoded": GOOD.replace(b"exp", b"%65xp")
    .replace(b"kid", b"ki%64")
    .replace(b"sig", b"%73%69g"),
    "a name in capitals": GOOD.replace(b"sig=", b"SIG="),
    "a name percent-encoded": GOOD.replace(b"exp=", b"%65xp="),
    "a value percent-encoded": with_(b"exp", b"%31" + FIELDS[b"exp"][1:]),
    "something more": GOOD + b"&utm_source=mail",
    "an empty field": GOOD + b"&",
    "a semicolon": GOOD.replace(b"&", b";"),
    "a space": with_(b"exp", b"+" + FIELDS[b"exp"]),
    "a negative end": with_(b"exp", b"-1"),
    "an end of zero": with_(b"exp", b"0"),
    "an end with a zero before": with_(b"exp", b"0" + FIELDS[b"exp"]),
    "an end with an underscore": with_(b"exp", b"1_000_000_000_0"),
    "an end with a fraction": with_(b"exp", FIELDS[b"exp"] + b".5"),
    "an end with an exponent": with_(b"exp", b"1e11"),
    "an end in other digits": with_(b"exp", "１７０００００００００".encode()),
    "a huge end": with_(b"exp", b"9" * 13),
    "an enormous end": with_(b"exp", b"9" * 10_000),
    "no end": with_(b"exp", b""),
    "a long signature": with_(b"sig", FIELDS[b"sig"] + b"A"),
    "a padded signature": with_(b"sig", FIELDS[b"sig"] + b"="),
    "a short signature": with_(b"sig", FIELDS[b"sig"][:-1]),
    "no signature": with_(b"sig", b""),
    "a signature in UTF-8": with_(b"sig", ("é" * 43).encode()),
    "a signature in no encoding": with_(b"sig", b"\xff" * 43),
    "a key id that is none": with_(b"kid", b"../../x"),
    "a key id in capitals": with_(b"kid", b"ABCDEF01"),
    "a link id that is none": GOOD + b"&link=",
    "another kind of id": GOOD + b"&link=" + HERE.encode(),
    "a disposition that is none": GOOD + b"&disposition=form-data",
    "a disposition that breaks the line": GOOD + b"&disposition=inline%0d%0aX:1",
    "a download of its own": GOOD + b"&download=x",
}


@pytest.mark.parametrize("query", MALFORMED.values(), ids=MALFORMED)
def test_a_link_has_one_spelling(query: bytes) -> None:
    with pytest.raises(Forbidden):
        claim_in(query, NOW)


@given(st.binary(max_size=80))
def test_any_bytes_are_no_link_or_refused(noise: bytes) -> None:
    for query in (noise, b"sig=" + noise, GOOD + noise):
        try:
            claim = claim_in(query, NOW)
        except Forbidden:
            continue
        if claim is not None:
            assert query in (GOOD, GOOD + b"&download", GOOD + b"&download=", GOOD + b"&download=1")


@pytest.mark.parametrize("late", [0, 0.001, 1, 1e9])
def test_a_link_ends_to_the_second(late: float) -> None:
    assert claim_in(GOOD, END - 0.001) is not None
    with pytest.raises(Forbidden, match="over"):
        claim_in(GOOD, END + late)


# --- what a link opens


@pytest.mark.parametrize("terms", [ORIGINAL, GRID], ids=["original", "rendition"])
@pytest.mark.parametrize("disposition", ["", "inline", "attachment"])
def test_a_link_opens_what_it_was_made_for(terms: Terms, disposition: str) -> None:
    source, link = open_(replace(terms, disposition=disposition))
    assert source.asset_id == HERE
    assert source.media_type == ("image/webp" if terms.recipe else "image/png")
    assert link is None


def test_a_link_with_a_row_comes_with_it() -> None:
    _, link = open_(COUNTED)
    assert link is not None
    assert link.id == LINK


OTHERS: dict[str, Target] = {
    "another asset": ById(ELSEWHERE.encode()),
    "no asset": ById(ABSENT.encode()),
    "no id": ById(b"ast_1"),
    "an id in UTF-8": ById("ast_é".encode()),
    "an id percent-encoded": ById(b"%61" + HERE[1:].encode()),
    "an id in capitals": ById(HERE.upper().encode()),
    "the asset's key": ByKey(b"media", b"a/b.png"),
    "a rendition": OfPreset(b"grid", HERE.encode(), b"webp"),
    "a rendition that is not made": OfPreset(b"thumb", HERE.encode(), b"webp"),
    "no preset": OfPreset(b"", HERE.encode(), b""),
    "no preset, as if it were the original": OfPreset(b"\xc3\xa9", HERE.encode(), b"png"),
}


@pytest.mark.parametrize("at", OTHERS.values(), ids=OTHERS)
def test_a_link_to_the_original_opens_nothing_else(at: Target) -> None:
    with pytest.raises(Forbidden) as refused:
        open_(ORIGINAL, at=at)
    assert refused.value.detail.startswith("the link does not hold")


RENDITIONS: dict[str, Target] = {
    "the original": ById(HERE.encode()),
    "of another asset": OfPreset(b"grid", ELSEWHERE.encode(), b"webp"),
    "another preset": OfPreset(b"thumb", HERE.encode(), b"webp"),
    "another extension": OfPreset(b"grid", HERE.encode(), b"jpg"),
}


@pytest.mark.parametrize("at", RENDITIONS.values(), ids=RENDITIONS)
def test_a_link_to_a_rendition_opens_nothing_else(at: Target) -> None:
    with pytest.raises(Forbidden):
        open_(GRID, at=at)


ALTERED = {
    "a later end": query_of(ORIGINAL).replace(b"%d" % END, b"%d" % (END + 60)),
    "an earlier end": query_of(ORIGINAL).replace(b"%d" % END, b"%d" % (END - 60)),
    "the latest end there can be": query_of(ORIGINAL).replace(b"%d" % END, b"9" * 12),
    "a disposition added": query_of(ORIGINAL) + b"&disposition=inline",
    "a disposition changed": query_of(replace(ORIGINAL, disposition="attachment")).replace(b"attachment", b"inline"),
    "a disposition taken away": query_of(replace(ORIGINAL, disposition="inline")).replace(b"&disposition=inline", b""),
    "a row taken away": query_of(COUNTED).replace(b"&link=" + LINK.encode(), b""),
    "a row added": query_of(ORIGINAL) + b"&link=" + LINK.encode(),
    "another row": query_of(COUNTED).replace(LINK.encode(), new_link_id().encode()),
    "another key": query_of(ORIGINAL, signer=Signer(["a secret of somebody else"])),
    "another key's id": query_of(ORIGINAL).replace(b"kid=", b"kid=0000000")[: -1],
}  # fmt: skip


@pytest.mark.parametrize("query", ALTERED.values(), ids=ALTERED)
def test_a_link_that_was_changed_opens_nothing(query: bytes) -> None:
    with pytest.raises(Forbidden):
        open_(ORIGINAL, query=query)


def test_every_character_of_a_signature_counts() -> None:
    for at in range(43):
        signature = bytearray(FIELDS[b"sig"])
        signature[at] = ord("A") if signature[at] != ord("A") else ord("B")
        with pytest.raises(Forbidden):
            open_(ORIGINAL, query=with_(b"sig", bytes(signature)))


def test_a_signature_of_something_else_is_no_link() -> None:
    key_id, signature = SIGNER.sign("archive", "f", HERE, "", "", "", END, 0, "")
    with pytest.raises(Forbidden):
        open_(ORIGINAL, query=f"exp={END}&kid={key_id}&sig={signature}".encode())


def test_a_link_of_another_epoch_opens_nothing() -> None:
    assert open_(ORIGINAL, shelf=Shelf(epoch=1), epoch=1)
    for made, current in ((0, 1), (1, 0), (1, 2)):
        with pytest.raises(Forbidden):
            open_(ORIGINAL, shelf=Shelf(epoch=current), epoch=made)


def test_a_link_to_nothing_does_not_hold_whatever_it_was_signed_with() -> None:
    for epoch in (0, -1):
        with pytest.raises(Forbidden):
            open_(Terms(ABSENT, END), epoch=epoch)


def test_a_revoked_link_opens_nothing() -> None:
    with pytest.raises(Forbidden):
        open_(COUNTED, shelf=Shelf(revoked=True))


def test_a_link_to_what_is_not_made_yet_is_pending() -> None:
    thumb = Terms(HERE, END, "thumb", "webp")
    with pytest.raises(RenditionPending):
        open_(thumb)
    with pytest.raises(NotFound) as missing:
        open_(thumb, shelf=Shelf(state="ready"))
    assert type(missing.value) is NotFound


# --- how long


WINDOWS = {
    "an hour": (3600, 360),
    "a day": (86400, 8640),
    "ten minutes": (600, 60),
    "a minute": (60, 60),
    "half a second": (0.5, 60),
    "an odd time": (12_345.67, 1235),
}


@pytest.mark.parametrize(("expires_in", "window"), WINDOWS.values(), ids=WINDOWS)
def test_the_end_is_rounded_up_to_a_window(expires_in: float, window: int) -> None:
    for now in (NOW, NOW + 0.25, NOW + 59):
        end = ends_at(now, expires_in, counted=False)
        assert end % window == 0
        assert now + expires_in <= end < now + expires_in + window


def test_whoever_asks_within_a_window_gets_the_same_end() -> None:
    start = 360 * 4_722_222 + 0.5
    ends = {ends_at(start + second, 3600, counted=False) for second in range(359)}
    assert len(ends) == 1
    assert ends_at(start + 360, 3600, counted=False) not in ends


def test_a_counted_link_ends_when_it_was_asked_to() -> None:
    assert ends_at(NOW + 0.25, 90, counted=True) == NOW + 91


@pytest.mark.parametrize(
    ("now", "asset_ends", "seconds"),
    [
        (NOW, None, 300),
        (END - 299.5, None, 299),
        (END - 0.5, None, 0),
        (NOW, NOW + 10.9, 10),
        (NOW, NOW - 1, 0),
        (NOW, END + 9.0, 300),
    ],
)
def test_a_copy_is_kept_no_longer_than_the_link_holds(
    now: float, asset_ends: float | None, seconds: int
) -> None:
    assert Claim(END, "", "").max_age(now, asset_ends) == seconds
