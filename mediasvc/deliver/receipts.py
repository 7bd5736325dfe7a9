"""Downloads are counted: what nginx says it delivered, and what we delivered ourselves.

nginx sends one log line for each download (syslog over UDP): `<190>Nov 24 19:51:34 nginx: {"id":…,"st":200,"b":…,
"ok":"OK"}`. Losing one is allowed, counting one twice is not. So a line is believed only if its id was given out by
this process and no line with that id came before: the id is unguessable, and counting takes it away. A line that is
repeated, forged, or older than this start of the server finds nothing to count.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.errors import MediasvcError
from mediasvc.core.tally import Delivery, Tally
from mediasvc.deliver.plan import HandToNginx
from mediasvc.logs import log

# Finding a labelled metric costs more than counting it.
_COUNTED, _FAILED, _UNKNOWN, _MALFORMED, _LOST = map(
    metrics.receipts.labels, ("counted", "failed", "unknown", "malformed", "lost")
)

MAX_LINE = 1024  # bytes; ours have about 250
_DELIVERED = (200, 206)  # else nginx said something of its own: the blob is gone, or too many came at once
# A pattern costs a fifth of a JSON parser, and nothing nested, negative or huge gets through: 15 digits are more than
# anybody's answer, and the sum of many fits the catalogue's 64 bits.
_LINE = re.compile(
    rb'[^{]{0,99}\{"id": ?"([!#-\[\]-~]{1,160})", ?"st": ?([1-5]\d\d), ?"b": ?(\d{1,15}), ?"ok": ?"(OK|)"(?:,[^{}]*)?\}'
)
# Answers on their way that are remembered at least: all that four workers of nginx (8192 connections each) can have.
# Twice as many, at 300 bytes each, are remembered at most, and only where nginx sends no lines.
_MOST_EXPECTED = 32_768
_MOST_WAITING = 50_000  # counters to be written while the catalogue is away
_PAUSE = 1.0  # seconds between two transactions, at least
# A commit makes the catalogue forget the answers it remembers for downloads: 15 µs for each asset asked for again.
_FEW = 500  # assets: that many cost less than 1 % of a core, if it is done every second
_LONG_PAUSE = 5.0
_AT_ONCE = 5_000  # counters in one transaction: other writers wait for 20 µs each


class Receipt(NamedTuple):
    """One line of nginx's. `sent` is bytes of the body; `complete`: nothing of the answer was missing."""

    id: str
    status: int
    sent: int
    complete: bool


def parse(datagram: bytes) -> Receipt | None:
    """The receipt in a datagram, or None for anything else, whatever it is. Fields after ours are no error."""
    found = _LINE.fullmatch(datagram) if len(datagram) <= MAX_LINE else None
    if found is None:
        return None
    download_id, status, sent, completion = found.groups()
    return Receipt(download_id.decode("ascii"), int(status), int(sent), completion == b"OK")


class Receipts:
    """Hands out the ids of downloads, believes each once, and adds up what to write down.

    Nothing here waits but `work` and `write_down`. `heard`: nginx's lines reach us, so ids are worth remembering.
    """

    def __init__(self, catalogue: Catalogue, *, heard: bool) -> None:
        self._catalogue = catalogue
        self._heard = heard
        # Two generations: dropping the elder is cheap and keeps the younger whole.
        self._expected: dict[str, Delivery] = {}
        self._elder: dict[str, Delivery] = {}
        self._assets: dict[str, Tally] = {}
        self._links: dict[str, Tally] = {}
        self._bell = asyncio.Event()

    def expect(self, delivery: Delivery) -> str:
        """The new id of an answer that nginx is about to send; call it for each answer, once nothing can fail."""
        subject = f"{delivery.asset_id}+{delivery.link_id}" if delivery.link_id else delivery.asset_id
        download_id = f"{subject}.{os.urandom(12).hex()}"
        if self._heard:
            if len(self._expected) >= _MOST_EXPECTED:
                _LOST.inc(len(self._elder))
                self._elder, self._expected = self._expected, {}
            self._expected[download_id] = delivery
        return download_id

    def hear(self, datagram: bytes) -> None:
        """Count what a line says, if it is one of ours; anything else is dropped, and shows in the metrics."""
        if (receipt := parse(datagram)) is None:
            _MALFORMED.inc()
            return
        delivery = self._expected.pop(receipt.id, None) or self._elder.pop(receipt.id, None)
        if delivery is None:
            _UNKNOWN.inc()
        elif receipt.status not in _DELIVERED:
            _FAILED.inc()
            if delivery.link_id and delivery.from_start:
                self._add(self._links, delivery.link_id, Tally(returned=1))
        else:
            _COUNTED.inc()
            metrics.download_bytes.inc(HandToNginx.name, by=receipt.sent)
            self.delivered(delivery, receipt.sent, complete=receipt.complete)

    def delivered(self, delivery: Delivery, sent: int, *, complete: bool) -> None:
        """An answer has ended: `sent` bytes of its body went out, and whether those were all."""
        if not complete:
            metrics.downloads_cut.inc()
        tally = delivery.tally(sent, complete=complete)
        if delivery.original:
            self._add(self._assets, delivery.asset_id, tally)
        if delivery.link_id:
            self._add(self._links, delivery.link_id, tally)

    def _add(self, waiting: dict[str, Tally], counted: str, tally: Tally) -> None:
        if tally == Tally():
            return
        if counted not in waiting:
            if len(waiting) >= _MOST_WAITING:
                metrics.downloads_uncounted.labels("no room").inc()
                return
            waiting[counted] = Tally()
        waiting[counted].add(tally)
        self._bell.set()

    @property
    def waiting(self) -> bool:
        """Whether something was counted that is not written down."""
        return bool(self._assets or self._links)

    async def work(self) -> None:
        """Write down what was counted, until cancelled: soon after a download, and seldom while there are many."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(_PAUSE)
            if _FEW < len(self._assets) < _AT_ONCE:
                await asyncio.sleep(_LONG_PAUSE - _PAUSE)
            self._bell.clear()
            try:
                await self.write_down()
            except MediasvcError as away:
                log.warning("downloads_wait", reason=away.detail)
                await asyncio.sleep(_LONG_PAUSE)
            except Exception:
                log.exception("downloads_error")
                await asyncio.sleep(_LONG_PAUSE)

    async def write_down(self) -> None:
        """Add what was counted to the catalogue's counters, in one transaction that takes as much as one should.

        What was not written waits for the next time; if the commit itself failed nobody knows, so it is given up.
        Raises what the transaction raises.
        """
        assets, links = _taken(self._assets), _taken(self._links)
        if not assets and not links:
            return
        committing = False
        try:
            async with self._catalogue.transaction() as tx:
                gone = await tx.count_downloads(assets, links)
                committing = True
        except BaseException:
            if committing:
                lost = sum(tally.count for tally in assets.values())
                metrics.downloads_uncounted.labels("commit failed").inc(lost)
            else:
                self._put_back(assets, links)
            raise
        if gone:
            metrics.downloads_uncounted.labels("deleted").inc(gone)
        if self.waiting:
            self._bell.set()

    def _put_back(self, assets: Mapping[str, Tally], links: Mapping[str, Tally]) -> None:
        for waiting, unwritten in ((self._assets, assets), (self._links, links)):
            for counted, tally in unwritten.items():
                self._add(waiting, counted, tally)


def _taken(waiting: dict[str, Tally]) -> dict[str, Tally]:
    """The eldest of them, which wait no more."""
    eldest = dict(islice(waiting.items(), _AT_ONCE))
    for counted in eldest:
        del waiting[counted]
    return eldest
