"""How often a caller may ask: the counting of `limits`, decided before any body is read.

Imported only where MEDIASVC_RATE_LIMIT is set: whoever sets none pays nothing.
"""

import ipaddress
import math
import time
from collections.abc import Callable
from functools import lru_cache

from limits import parse
from limits.storage.base import Storage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from mediasvc.core.access import Caller
from mediasvc.core.errors import MediasvcError, RateLimited
from mediasvc.web.caller import CallerOf
from mediasvc.web.middleware import header
from mediasvc.web.paths import WATCHED
from mediasvc.web.preflight import is_preflight

MOST = 50_000  # windows in memory, some 300 bytes each


class Windows(Storage):
    """Counts in memory, bounded: where it is full, the window that began first gives way.

    The storage that comes with `limits` starts a thread for nearly every request and looks through all
    windows in it; this one never looks at another window than the one that is asked for.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        super().__init__()
        self._clock = clock
        self._most = most
        self._windows: dict[str, tuple[int, float]] = {}  # count and end, in the order in which they began

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count, end = self._windows.get(key, (0, 0.0))
        if end <= self._clock():
            self._windows.pop(key, None)
            if len(self._windows) >= self._most:
                del self._windows[next(iter(self._windows))]
            count, end = 0, self._clock() + expiry
        self._windows[key] = (count + amount, end)
        return count + amount

    def get(self, key: str) -> int:
        count, end = self._windows.get(key, (0, 0.0))
        return count if end > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        return max(self._windows.get(key, (0, 0.0))[1], self._clock())

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        gone = len(self._windows)
        self._windows.clear()
        return gone

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def __len__(self) -> int:
        return len(self._windows)


class RateLimits:
    """`rate` (`100/second`) for each key, and for each address that sends none.

    A fixed window, begun by the first request: a client costs one number, however high its rate, and
    `Retry-After` is exact. Keys and addresses are kept apart, so that no flood from many addresses drives
    out what keys have used up.
    """

    def __init__(self, rate: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = parse(rate)
        self._clock = clock
        self._keys = FixedWindowRateLimiter(Windows(clock))
        self._addresses = FixedWindowRateLimiter(Windows(clock))

    def count(self, caller: Caller, address: str) -> None:
        """One more request. Raises RateLimited."""
        windows, name = self._window(caller, address)
        if not windows.hit(self._rate, name):
            raise self._refusal(caller, windows, name)

    def look(self, caller: Caller, address: str) -> None:
        """Whether one more request would be too many, without counting it. Raises RateLimited."""
        windows, name = self._window(caller, address)
        if not windows.test(self._rate, name):
            raise self._refusal(caller, windows, name)

    def _window(self, caller: Caller, address: str) -> tuple[FixedWindowRateLimiter, str]:
        if caller.key_id is None:
            return self._addresses, network_of(address)
        return self._keys, caller.key_id

    def _refusal(self, caller: Caller, windows: FixedWindowRateLimiter, name: str) -> RateLimited:
        left = windows.get_window_stats(self._rate, name).reset_time - self._clock()
        seconds = max(1, math.ceil(left))
        return RateLimited(
            f"{self._rate} are allowed; send it again in {seconds} s",
            limit=self._rate.amount,
            limit_source="server" if caller.anonymous else "key",
            retry_after=seconds,
        )


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Who stands behind an address: with IPv6 whoever has one has all of its /64."""
    if ":" not in address:
        return address[:64]
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(ip) >> 64 << 64)) + "/64"


class Limited:
    """Counts every request but those that watch over the service, and refuses what is too much."""

    def __init__(self, app: ASGIApp, caller_of: CallerOf, limits: RateLimits) -> None:
        self._app = app
        self._caller_of = caller_of
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in WATCHED:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        who = await self._caller_of(header(scope, b"authorization")), client[0] if client else ""
        if not is_preflight(scope):
            self._limits.count(*who)
            await self._app(scope, receive, send)
            return
        # An upload that is welcome comes itself and is counted then; one that is refused here was all there is.
        self._limits.look(*who)
        try:
            await self._app(scope, receive, send)
        except MediasvcError:
            self._limits.count(*who)
            raise
        self._limits.count(*who)
