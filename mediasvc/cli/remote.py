"""A mediasvc server as a client sees it: asks what is there, sends bytes, tries again."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import stamina

from mediasvc.cli.local_files import SourceChanged
from mediasvc.core.keys import encode_path

CHUNK = 256 * 1024
LONGEST_WAIT = 60.0  # seconds; a larger Retry-After is cut to this


class Refused(Exception):
    """The server said no, and will again."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.exit_code = {401: 1, 404: 3, 413: 8}.get(status, 1)


class Away(Exception):
    """The server did not answer, or asked to come back later, until patience ran out."""

    exit_code = 5


class Stopped(Exception):
    """The push was called off."""


class _Busy(Exception):
    def __init__(self, detail: str, retry_after: float | None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Item:
    """One asset to ask about."""

    key: str
    size: int
    sha256: str


class Remote:
    """One server and one key. Safe to use from several threads."""

    def __init__(self, server: str, key: str, *, connections: int, retries: int) -> None:
        self._url = server.rstrip("/")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            # A large upload may take long to become durable after its last byte.
            timeout=httpx.Timeout(60, connect=10, read=300, pool=None),
            limits=httpx.Limits(max_connections=connections + 1),
        )
        self._attempts = retries + 1
        self._stopped = threading.Event()

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        """Call off what is under way: it raises Stopped at its next chunk or attempt."""
        self._stopped.set()

    def present(self, bucket: str, items: Sequence[Item]) -> list[bool]:
        """Which of at most 1000 assets are there with this content, in order. Raises Refused, Away."""
        asked = [{"bucket": bucket, "key": i.key, "size": i.size, "sha256": i.sha256} for i in items]
        answer = self._try(lambda: self._client.post(f"{self._url}/v1/assets/check", json={"items": asked}))
        return [bool(item["present"]) for item in answer["items"]]

    def put(
        self,
        bucket: str,
        item: Item,
        read: Callable[[int], bytes],
        rewind: Callable[[], object],
        sent: Callable[[int], object],
    ) -> Mapping[str, Any]:
        """Store `item.size` bytes that `read` gives, and return the asset's JSON.

        `rewind` goes back to the first byte for another attempt; `sent` hears how many bytes went out, negative
        when they have to go again. Raises Refused, Away, Stopped, SourceChanged, and what `read` raises.
        """
        done = 0

        def body() -> Iterator[bytes]:
            nonlocal done
            while done < item.size:
                if self._stopped.is_set():
                    raise Stopped
                chunk = read(min(CHUNK, item.size - done))
                if not chunk:
                    raise SourceChanged
                done += len(chunk)
                sent(len(chunk))
                yield chunk

        def send() -> httpx.Response:
            nonlocal done
            sent(-done)
            done = 0
            rewind()
            return self._client.put(
                f"{self._url}/b/{bucket}/{encode_path(item.key)}",
                content=body(),
                headers={"Content-Length": str(item.size), "X-Checksum-Sha256": item.sha256},
            )

        asset: Mapping[str, Any] = self._try(send)
        return asset

    def _try(self, send: Callable[[], httpx.Response]) -> Any:
        try:
            for attempt in stamina.retry_context(
                on=_wait, attempts=self._attempts, timeout=None, wait_initial=0.5, wait_max=8
            ):
                with attempt:
                    if self._stopped.is_set():
                        raise Stopped
                    return self._understand(send())
        except (httpx.TransportError, _Busy) as error:
            raise Away(f"{self._url} is away ({error or type(error).__name__})") from error
        except httpx.InvalidURL as error:
            raise Refused(400, f"{self._url} is not an address: {error}") from error
        raise AssertionError("retry_context either returns or raises")

    def _understand(self, response: httpx.Response) -> Any:
        try:
            told: Any = response.json()
        except ValueError:
            told = None
        if response.is_success:
            if not isinstance(told, dict):
                raise Refused(502, f"what answers at {self._url} is not mediasvc")
            return told
        problem = told if isinstance(told, dict) else {}
        detail = str(problem.get("detail") or f"the server answered {response.status_code}")
        if response.status_code in (429, 502, 503, 504) or problem.get("retryable") is True:
            raise _Busy(detail, _seconds(response.headers.get("Retry-After", "")))
        raise Refused(response.status_code, detail)


def _seconds(retry_after: str) -> float | None:
    return min(float(retry_after), LONGEST_WAIT) if retry_after.isascii() and retry_after.isdigit() else None


def _wait(error: Exception) -> bool | float:
    """Whether another attempt may help, and after how long if the server said so."""
    if isinstance(error, _Busy):
        if error.retry_after is None:
            return True
        return error.retry_after + random.uniform(0, 1)  # noqa: S311 - spreads clients, guards nothing
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol | httpx.LocalProtocolError
    )
