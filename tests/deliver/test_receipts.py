"""nginx's lines are read strictly, believed once, and written down once."""

import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc import metrics
from mediasvc.core.errors import CatalogueUnavailable
from mediasvc.core.tally import Delivery, Tally
from mediasvc.deliver import receipts as module
from mediasvc.deliver.receipts import MAX_LINE, Receipt, Receipts, parse

ASSET, LINK = "ast_" + "0" * 36, "lnk_" + "1" * 36


def line(**fields: Any) -> bytes:
    said = {"id": f"{ASSET}.{'a' * 24}", "st": 200, "b": 7, "ok": "OK", "cr": "", "t": 0.001} | fields
    return f"<190>Nov 24 19:51:34 nginx: {json.dumps(said)}".encode()


@pytest.mark.parametrize(
    ("datagram", "receipt"),
    [
        (line(), Receipt(f"{ASSET}.{'a' * 24}", 200, 7, True)),
        (line(st=206, ok=""), Receipt(f"{ASSET}.{'a' * 24}", 206, 7, False)),
        (line(id="x", b=0), Receipt("x", 200, 0, True)),
        (line(st=404), Receipt(f"{ASSET}.{'a' * 24}", 404, 7, True)),
        (b'{"id":"x","st":200,"b":1,"ok":"OK"}', Receipt("x", 200, 1, True)),
    ],
    ids=["whole", "cut", "empty", "another answer", "no syslog head"],
)
def test_a_line_of_nginx_is_a_receipt(datagram: bytes, receipt: Receipt) -> None:
    assert parse(datagram) == receipt


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0" * 60_000,
        random.Random(9).randbytes(500),
        b"<190>Nov 24 19:51:34 nginx: hello",
        line()[:-1],
        line() + b"x",
        b"<190>nginx: [1, 2]",
        b'{"id":' * 150,
        b'{"a":' + b"[" * 1000,
        b"<190>" + b" " * 200 + b"{}",
        b"{}",
        line(b=-1),
        line(b=2**50),
        line(b=1.5),
        line(b=float("nan")),
        line(b="7"),
        line(b=True),
        line(b=None),
        line(st=True),
        line(st="200"),
        line(st=-200),
        line(st=99),
        line(st=2**64),
        line(ok="NO"),
        line(ok=1),
        line(ok=None),
        line(id=None),
        line(id=["x"]),
        line(pad="x" * MAX_LINE),
        line(b=7).replace(b'"b": 7', b'"b": ' + b"9" * 600),
        '<190>nginx: {"id":"é"'.encode("utf-16"),
    ],
    ids=lambda datagram: repr(datagram[:40]),
)
def test_anything_else_is_not(datagram: bytes) -> None:
    assert parse(datagram) is None


@given(st.binary(max_size=300))
def test_no_datagram_is_an_error(noise: bytes) -> None:
    parse(noise)
    parse(b"<190>nginx: {" + noise)
    found = parse(b'{"id":"x","st":200,"ok":"OK","b":' + noise + b"}")
    assert found is None or found.sent >= 0


@pytest.mark.parametrize(
    ("from_start", "sent", "complete", "count"),
    [
        (True, 10, True, 1),
        (True, 1, False, 1),
        (True, 0, False, 0),
        (True, 0, True, 1),
        (False, 10, True, 0),
        (False, 0, False, 0),
    ],
    ids=["whole", "cut after a byte", "cut before any", "an empty asset", "a later range", "cut later range"],
)
def test_an_answer_that_held_the_first_byte_is_one_download(
    from_start: bool, sent: int, complete: bool, count: int
) -> None:
    tally = Delivery(ASSET, "", True, from_start).tally(sent, complete=complete)
    assert tally == Tally(count, sent)


class Ledger:
    """A catalogue that keeps counters alone; `fails` is raised at the named step of the next transactions."""

    def __init__(self) -> None:
        self.counted: dict[str, Tally] = {}
        self.fails: dict[str, Exception] = {}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Ledger"]:
        self._at("begin")
        before = {name: replace(t) for name, t in self.counted.items()}
        try:
            yield self
        except BaseException:
            self.counted = before
            raise
        self._at("commit")

    def _at(self, step: str) -> None:
        if step in self.fails:
            raise self.fails[step]

    async def count_downloads(self, assets: Mapping[str, Tally], links: Mapping[str, Tally]) -> int:
        for counted, tally in (assets | links).items():  # type: ignore[operator]
            self.counted.setdefault(counted, Tally()).add(tally)
            self._at("within")
        return 0


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def receipts(ledger: Ledger) -> Receipts:
    return Receipts(ledger, heard=True)  # type: ignore[arg-type]


@pytest.fixture
def outcomes() -> Callable[[], dict[str, float]]:
    """What happened to lines since the test began."""
    names = ("counted", "failed", "unknown", "malformed", "lost")
    before = {name: _value(name) for name in names}
    return lambda: {name: grown for name in names if (grown := _value(name) - before[name])}


def _value(outcome: str) -> float:
    return metrics.registry.get_sample_value("mediasvc_receipts_total", {"outcome": outcome}) or 0.0


pytestmark = pytest.mark.anyio
ORIGINAL = Delivery(ASSET, "", True, True)
BY_LINK = Delivery(ASSET, LINK, True, True)


async def test_a_receipt_counts_once_however_often_it_comes(receipts, ledger, outcomes) -> None:
    heard = line(id=receipts.expect(ORIGINAL))
    for _ in range(3):
        receipts.hear(heard)
        await receipts.write_down()
    assert ledger.counted == {ASSET: Tally(1, 7)}
    assert outcomes() == {"counted": 1, "unknown": 2}


async def test_the_asset_and_its_link_are_counted_apart(receipts, ledger) -> None:
    for delivery in (ORIGINAL, BY_LINK, Delivery(ASSET, LINK, True, False)):
        receipts.hear(line(id=receipts.expect(delivery)))
    receipts.delivered(BY_LINK, 100, complete=False)
    await receipts.write_down()
    assert ledger.counted == {ASSET: Tally(3, 121), LINK: Tally(2, 114)}


async def test_a_rendition_counts_for_its_link_alone(receipts, ledger) -> None:
    receipts.hear(line(id=receipts.expect(Delivery(ASSET, "", False, True))))
    receipts.hear(line(id=receipts.expect(Delivery(ASSET, LINK, False, True))))
    await receipts.write_down()
    assert ledger.counted == {LINK: Tally(1, 7)}


async def test_a_start_of_the_server_believes_only_ids_of_its_own(receipts, ledger, outcomes) -> None:
    before_the_start = Receipts(ledger, heard=True).expect(ORIGINAL)
    for forged in (before_the_start, f"{ASSET}.{'0' * 24}", ASSET, "", "\ud800"):
        receipts.hear(line(id=forged))
    receipts.hear(b"\xff" * 2000)
    await receipts.write_down()
    assert ledger.counted == {}
    assert outcomes() == {"unknown": 3, "malformed": 3}


async def test_what_nginx_answered_instead_counts_nothing(receipts, ledger, outcomes) -> None:
    download_id = receipts.expect(ORIGINAL)
    receipts.hear(line(id=download_id, st=404, b=120))
    receipts.hear(line(id=download_id))
    await receipts.write_down()
    assert ledger.counted == {}
    assert outcomes() == {"failed": 1, "unknown": 1}


@pytest.mark.parametrize("status", [403, 404, 429, 499, 502, 503])
async def test_what_nginx_could_not_send_is_given_back_to_the_link(receipts, ledger, status) -> None:
    for from_start in (True, False):
        download_id = receipts.expect(Delivery(ASSET, LINK, True, from_start))
        for _ in range(2):
            receipts.hear(line(id=download_id, st=status, b=120))
    await receipts.write_down()
    assert ledger.counted == {LINK: Tally(returned=1)}


async def test_ids_are_bounded_and_the_youngest_are_kept(receipts, ledger, outcomes, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_EXPECTED", 10)
    ids = [receipts.expect(ORIGINAL) for _ in range(35)]
    for download_id in ids:
        receipts.hear(line(id=download_id, b=1))
    await receipts.write_down()
    assert ledger.counted == {ASSET: Tally(15, 15)}
    assert outcomes() == {"counted": 15, "unknown": 20, "lost": 20}


async def test_counters_that_wait_are_bounded(receipts, ledger, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    for number in range(5):
        receipts.delivered(Delivery(f"ast_{number}", "", True, True), 3, complete=True)
    receipts.delivered(Delivery("ast_1", "", True, True), 4, complete=True)
    await receipts.write_down()
    assert ledger.counted == {"ast_0": Tally(1, 3), "ast_1": Tally(2, 7)}


async def test_a_transaction_takes_the_eldest_and_leaves_the_rest(receipts, ledger, monkeypatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    for name in ("a", "b", "c", "a"):
        receipts.delivered(Delivery(name, "", True, True), 1, complete=True)
    await receipts.write_down()
    assert ledger.counted == {"a": Tally(2, 2), "b": Tally(1, 1)}
    assert receipts.waiting
    await receipts.write_down()
    assert ledger.counted["c"] == Tally(1, 1)
    assert not receipts.waiting


async def test_nobody_listens_nothing_is_remembered(ledger, outcomes) -> None:
    receipts = Receipts(ledger, heard=False)
    receipts.hear(line(id=receipts.expect(ORIGINAL)))
    assert outcomes() == {"unknown": 1}


@pytest.mark.parametrize(
    ("step", "kept"), [("begin", True), ("within", True), ("commit", False)], ids=lambda value: str(value)
)
async def test_a_failed_transaction_loses_at_most_what_it_may_have_committed(
    receipts, ledger, step, kept
) -> None:
    receipts.delivered(BY_LINK, 5, complete=True)
    ledger.fails[step] = CatalogueUnavailable("locked")
    with pytest.raises(CatalogueUnavailable):
        await receipts.write_down()
    receipts.delivered(BY_LINK, 6, complete=True)
    ledger.fails.clear()
    ledger.counted.clear()
    await receipts.write_down()
    expected = Tally(2, 11) if kept else Tally(1, 6)
    assert ledger.counted == {ASSET: expected, LINK: expected}
