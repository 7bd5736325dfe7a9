"""The credentials that boto3 has found, at hand for signing without ever waiting for a network."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple

from mediasvc.core.errors import StoreFault, StoreUnavailable

# Temporary credentials are renewed a quarter of an hour before they end: a minute late is early enough.
FRESH_SECONDS = 60.0


class Credentials(NamedTuple):
    """What requests are signed with; `token` belongs to temporary ones."""

    access_key: str
    secret_key: str
    token: str | None = None


class CurrentCredentials:
    """Calling it gives them; what has to be asked for again is asked for in a thread, and the old ones serve on."""

    def __init__(self, found: Any, threads: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        """`found`: what boto3's session found, or None."""
        self._found = found
        self._threads = threads
        self._clock = clock
        self._current: Credentials | None = None
        self._fresh_until = 0.0

    def __call__(self) -> Credentials:
        """Blocks the very first time, where boto3 has to ask for them and never did. Raises StoreFault where there
        are none, StoreUnavailable where whoever gives them is away."""
        if self._current is None:
            self._take()
        elif self._clock() >= self._fresh_until:
            # First the time: one thread asks, however many need credentials meanwhile.
            self._fresh_until = self._clock() + FRESH_SECONDS
            self._threads.submit(self._take)
        assert self._current is not None
        return self._current

    def _take(self) -> None:
        if self._found is None:
            raise StoreFault("the store needs credentials, and there are none: see the server's log")
        try:
            access_key, secret_key, token = self._found.get_frozen_credentials()[:3]
        except Exception as error:  # whatever a provider of credentials runs into
            raise StoreUnavailable("credentials for the store cannot be had at the moment") from error
        taken = Credentials(access_key, secret_key, token)
        if taken != self._current:  # the same object as long as they are the same
            self._current = taken
        self._fresh_until = self._clock() + FRESH_SECONDS
