"""Talking to an S3 service: settings that real ones need, what their answers mean, and patience.

`call` blocks and asks once; `ask` and `insist` ask again while the store is away.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import boto3
import stamina
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from mediasvc.core.errors import StoreFault, StoreFull, StoreUnavailable
from mediasvc.store.credentials import CurrentCredentials
from mediasvc.store.interface import BlobMissing
from mediasvc.store.url import S3Url

T = TypeVar("T")

CONNECT_SECONDS = 4.0  # also how long a store may take over 256 KiB of a part
ANSWER_SECONDS = 10.0
RETRY_SECONDS = 10.0  # no attempt begins later than this after the first one failed
ASK_SECONDS = 24.0  # one question and all its repetitions; leaves time to clean up within 30 s

_ASK_AGAIN = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "SlowDown", "429"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}


class StoreAway(Exception):
    """No answer, or one that says: later."""


class GivenUp(Exception):
    """The store has been away for longer than anybody asks again: this question was not put to it."""


class UploadGone(StoreFault):
    """Somebody has aborted or completed the multipart upload, or a part of it is not there."""


class StoreRefused(Exception):
    """An answer that says no. `code` is S3's name for it, `status` the HTTP status (0: nothing was sent)."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.code = code
        self.status = status

    @property
    def missing(self) -> bool:
        return self.code in ("NoSuchKey", "404")  # HEAD has no body to name it in

    def as_store_error(self) -> Exception:
        """What the door calls it."""
        if self.missing:
            return BlobMissing("there are no bytes under this blob id")
        if self.code in ("NoSuchUpload", "InvalidPart"):
            return UploadGone("the store has forgotten a multipart upload; nothing was kept")
        if self.code in _FULL or self.status == 507:
            return StoreFull(f"the store has no room left ({self.code})")
        return StoreFault(f"the store refused ({self.code}); nothing was kept, see the server's log")


class S3Client:
    """One connection pool to one bucket. Safe in many threads at once."""

    def __init__(self, url: S3Url) -> None:
        self.url = url
        self._calls = ThreadPoolExecutor(16, "s3-call")
        self._away_since: float | None = None  # since when nothing has been answered
        self._trying = False
        config = Config(
            signature_version="s3v4",
            # boto3's own checksums are answered with 411 by RGW 16 over TLS, and it does not check them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Over TLS the bytes are safe on their way. Without it the signed SHA-256 is what makes the store
            # notice a damaged part; Content-MD5 costs twice its CPU, and RGW accepts wrong CRCs.
            s3={"addressing_style": "path", "payload_signing_enabled": not url.encrypted},
            # botocore's quota of retries is shared by the whole client: one second without a gateway uses it up.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            max_pool_connections=64,
            tcp_keepalive=True,
        )
        session = boto3.session.Session()
        self._sdk: Any = session.client(
            "s3", region_name=url.region, endpoint_url=url.endpoint, config=config
        )
        self.endpoint: str = self._sdk.meta.endpoint_url
        self.credentials = CurrentCredentials(session.get_credentials(), self._calls)

    def call_unless_away(self, operation: str, **parameters: Any) -> Any:
        """As `call`. Where the store has been away for longer than anybody asks again, one question at a time is put
        to it and the others fail at once with GivenUp: in a queue for threads they would wait ever longer."""
        if self._away_since is None or time.monotonic() - self._away_since < RETRY_SECONDS:
            return self.call(operation, **parameters)
        if self._trying:
            raise GivenUp
        self._trying = True
        try:
            return self.call(operation, **parameters)
        except StoreAway as error:
            raise GivenUp from error
        finally:
            self._trying = False

    def call(self, operation: str, **parameters: Any) -> Any:
        """Ask once and block. Raises StoreAway or StoreRefused."""
        began = time.monotonic()
        try:
            answer = self._call(operation, **parameters)
        except StoreAway:
            if self._away_since is None:
                self._away_since = began
            raise
        except StoreRefused:
            self._away_since = None
            raise
        self._away_since = None
        return answer

    def _call(self, operation: str, **parameters: Any) -> Any:
        try:
            return getattr(self._sdk, operation)(Bucket=self.url.bucket, **parameters)
        except ClientError as error:
            raise _judged(error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StoreRefused("NoCredentials", 0) from error
        except SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise StoreRefused("CertificateNotTrusted", 0) from error
            raise StoreAway(str(error)) from error
        except (HTTPClientError, ConnectionError, ResponseParserError) as error:
            raise StoreAway(str(error)) from error

    async def probe(self, operation: str, **parameters: Any) -> Any:
        """`call` in a thread, however long the store has been away: whoever asks wants to know."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._calls, lambda: self.call(operation, **parameters))

    async def ask_once(self, operation: str, **parameters: Any) -> Any:
        """`call_unless_away` in a thread. One that is no longer waited for is left to its timeout; it holds nothing."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._calls, lambda: self.call_unless_away(operation, **parameters))

    async def ask(self, operation: str, **parameters: Any) -> Any:
        """Again while the store is away. Raises StoreUnavailable within 24 s, BlobMissing, StoreFull, StoreFault."""
        return await self.insist(lambda: self.ask_once(operation, **parameters))

    async def pages(
        self, operation: str, markers: Mapping[str, str], **parameters: Any
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Every page of a listing. `markers`: where a page says with what the next one is asked for."""
        asked: dict[str, Any] = {}
        while True:
            page = await self.ask(operation, **(parameters | asked))
            yield page
            if not page.get("IsTruncated"):
                return
            asked = {parameter: page[marker] for marker, parameter in markers.items() if page.get(marker)}

    async def unfinished(self, prefix: str) -> AsyncIterator[tuple[str, str]]:
        """Key and upload id of every multipart upload that was neither completed nor aborted."""
        markers = {"NextKeyMarker": "KeyMarker", "NextUploadIdMarker": "UploadIdMarker"}
        async for page in self.pages("list_multipart_uploads", markers, Prefix=prefix):
            for upload in page.get("Uploads", ()):
                yield upload["Key"], upload["UploadId"]

    async def abort_unfinished(self, key: str, *, but: str | None = None) -> None:
        """Abort every multipart upload of exactly this key, except the one of the id `but`."""
        async for found, upload_id in self.unfinished(key):
            if found == key and upload_id != but:
                with suppress(UploadGone):
                    await self.ask("abort_multipart_upload", Key=key, UploadId=upload_id)

    async def insist(self, attempt: Callable[[], Awaitable[T]], *, seconds: float | None = ASK_SECONDS) -> T:
        """Repeat `attempt` while the store is away: at once, then with growing pauses and jitter.

        Its StoreAway and StoreRefused become what the door promises; so does taking longer than `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._insist(attempt)
        except (StoreAway, GivenUp, TimeoutError) as error:
            raise StoreUnavailable("the store does not answer; try again in a moment") from error
        except StoreRefused as refusal:
            raise refusal.as_store_error() from refusal

    async def _insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            return await attempt()
        except StoreAway:
            pass  # often only a kept connection that the store has closed
        async for again in stamina.retry_context(
            on=StoreAway,
            attempts=None,
            timeout=RETRY_SECONDS,
            wait_initial=0.1,
            wait_max=1.5,
            wait_jitter=0.5,
        ):
            with again:
                return await attempt()
        raise AssertionError("stamina ends by returning or raising")

    def close(self) -> None:
        """Blocks until the threads have ended."""
        self._calls.shutdown(cancel_futures=True)
        self._sdk.close()


def _judged(error: ClientError) -> StoreAway | StoreRefused:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status != 507 and (status >= 500 or status == 429 or code in _ASK_AGAIN):
        return StoreAway(f"{code} ({status})")
    return StoreRefused(code, status)
