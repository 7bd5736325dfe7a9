"""A mediasvc server as a client sees it: asks what is there, sends bytes, tries again."""

import base64
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import stamina

from mediasvc.cli.local_files import SourceChanged
from mediasvc.core.keys import encode_path

CHUNK = 256 * 1024
TUS = {"Tus-Resumable": "1.0.0"}
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
    """Not now: the same request may go through later."""

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
        self._asking = threading.Lock()
        self._begun: dict[tuple[str, str, int, str], str] | None = None

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
        answer = self._json(
            self.ask(lambda: self._client.post(f"{self._url}/v1/assets/check", json={"items": asked}))
        )
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
                self.check_stopped()
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

        asset: Mapping[str, Any] = self._json(self.ask(send))
        return asset

    def begin(self, bucket: str, item: Item) -> str:
        """Begin an upload that can be resumed; gives its path. Raises Refused, Away, Stopped."""
        said = {"bucket": bucket, "key": item.key, "filename": item.key.rpartition("/")[2]}
        metadata = ",".join(
            f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in said.items()
        )
        headers = {
            **TUS,
            "Upload-Length": str(item.size),
            "Upload-Metadata": metadata,
            "X-Checksum-Sha256": item.sha256,
        }
        answer = self.ask(lambda: self._client.post(f"{self._url}/v1/uploads", headers=headers))
        return urlsplit(answer.headers["Location"]).path.rpartition("/")[2]

    def unfinished(self, bucket: str, item: Item) -> str | None:
        """The id of an upload of just this that was begun with the same key and broken off."""
        if self._begun is None:
            with self._asking:
                self._begun = self._begun if self._begun is not None else dict(self._uploads())
        return self._begun.pop((bucket, item.key, item.size, item.sha256), None)

    def _uploads(self) -> Iterator[tuple[tuple[str, str, int, str], str]]:
        cursor: str | None = ""
        while cursor is not None:
            page = self._page({"limit": "1000", **({"cursor": cursor} if cursor else {})})
            for one in page["uploads"]:
                if one["state"] in ("open", "completing") and one["sha256"] and one["length"] is not None:
                    yield (one["bucket"], one["key"], one["length"], one["sha256"]), one["id"]
            cursor = page["next_cursor"]

    def _page(self, params: Mapping[str, str]) -> Any:
        return self._json(self.ask(lambda: self._client.get(f"{self._url}/v1/uploads", params=params)))

    def offset(self, upload_id: str) -> int:
        """Bytes that the server has. Raises Refused (410: it is over), Away, Stopped."""
        answer = self.ask(lambda: self._client.head(self._upload(upload_id), headers=TUS))
        return int(answer.headers["Upload-Offset"])

    def append(self, upload_id: str, offset: int, piece: Callable[[int], tuple[int, Iterator[bytes]]]) -> int:
        """Send the piece that begins at `offset` (its size, and its bytes); gives the offset after it. After a break
        the server is asked where to go on. Raises Refused (404, 410: the upload is over), Away, Stopped, and what
        `piece` raises."""
        at: int | None = offset

        def send() -> httpx.Response:
            nonlocal at
            if at is None:
                asked = self._understood(self._client.head(self._upload(upload_id), headers=TUS))
                at = int(asked.headers["Upload-Offset"])
            size, body = piece(at)
            headers = {
                **TUS,
                "Upload-Offset": str(at),
                "Content-Type": "application/offset+octet-stream",
                "Content-Length": str(size),
            }
            at = None
            return self._client.patch(self._upload(upload_id), content=body, headers=headers)

        return int(self.ask(send).headers["Upload-Offset"])

    def _upload(self, upload_id: str) -> str:
        return f"{self._url}/v1/uploads/{upload_id}"

    def completed(self, upload_id: str) -> Mapping[str, Any]:
        """The asset that an upload has become."""
        told = self._json(self.ask(lambda: self._client.get(self._upload(upload_id))))
        asset: Mapping[str, Any] = told["asset"] or {}
        return asset

    def check_stopped(self) -> None:
        """Raises Stopped."""
        if self._stopped.is_set():
            raise Stopped

    def ask(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer, after as many attempts as it takes. Raises Refused, Away, Stopped."""
        try:
            for attempt in stamina.retry_context(
                on=_wait, attempts=self._attempts, timeout=None, wait_initial=0.5, wait_max=8
            ):
                with attempt:
                    self.check_stopped()
                    return self._understood(send())
        except (httpx.TransportError, _Busy) as error:
            raise Away(f"{self._url} is away ({error or type(error).__name__})") from error
        except httpx.InvalidURL as error:
            raise Refused(400, f"{self._url} is not an address: {error}") from error
        raise AssertionError("retry_context either returns or raises")

    def _json(self, response: httpx.Response) -> Any:
        try:
            told: Any = response.json()
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise Refused(502, f"what answers at {self._url} is not mediasvc")
        return told

    def _understood(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            told: Any = response.json()
        except ValueError:
            told = None
        problem = told if isinstance(told, dict) else {}
        detail = str(problem.get("detail") or f"the server answered {response.status_code}")
        if response.status_code in (423, 429, 502, 503, 504) or problem.get("retryable") is True:
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
