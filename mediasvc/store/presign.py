"""Presigned URLs: AWS Signature Version 4 in the query, for one request about one object, with no other credentials.

Our own, because one is needed for each download: boto3 takes 150 µs to make the same URL, byte for byte.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

from mediasvc.store.credentials import Credentials
from mediasvc.store.interface import PresignedUrl

LONGEST = 7 * 24 * 3600  # seconds; Signature Version 4 allows no more

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class _Moment:
    """What all URLs have in common that are signed in one second with the same credentials."""

    second: int
    credentials: Credentials
    before_seconds: str
    token: str
    to_sign: str
    key: bytes


class Presigner:
    """Signs GET of the objects of one bucket, and PUT of parts of new ones, addressed by path.

    `credentials` is asked for every URL: make it cheap. `clock` is the store's: seconds since the epoch.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        region: str,
        credentials: Callable[[], Credentials],
        clock: Callable[[], float] = time.time,
    ) -> None:
        url = urlsplit(endpoint)
        # As HTTP clients write it in the header: the port of the scheme is left out.
        self._host = url.netloc.lower().removesuffix(_DEFAULT_PORTS.get(url.scheme, ":"))
        self._origin = f"{url.scheme}://{url.netloc}"
        self._folder = f"/{quote(bucket, safe='')}/"
        self._region = region
        self._credentials = credentials
        self._clock = clock
        self._closing = f"host:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        self._moment: _Moment | None = None

    def url(self, key: str, *, seconds: int, answer: Mapping[str, str] | None = None) -> PresignedUrl:
        """Good for `seconds` from now (at most LONGEST).

        `answer`: headers that the store is to answer with, as the parameters S3 calls `response-…`.
        """
        moment = self._moment
        credentials, second = self._credentials(), int(self._clock())
        if moment is None or moment.second != second or moment.credentials is not credentials:
            self._moment = moment = self._at(second, credentials)
        path = self._folder + quote(key, safe="/~")
        fields = [f"{name}={quote(value, safe='~')}" for name, value in answer.items()] if answer else []
        signed = f"{moment.before_seconds}{seconds}"
        # In canonical order: capitals before small letters.
        canonical = "&".join([f"{signed}{moment.token}&X-Amz-SignedHeaders=host", *sorted(fields)])
        request = f"GET\n{path}\n{canonical}\n{self._closing}"
        text = moment.to_sign + hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.digest(moment.key, text.encode(), "sha256").hex()
        target = f"{path}?{signed}&X-Amz-SignedHeaders=host{moment.token}&X-Amz-Signature={signature}"
        if fields:
            target = target.replace("?", f"?{'&'.join(fields)}&", 1)
        return PresignedUrl(self._origin, self._host, target)

    def part(
        self, key: str, upload_id: str, number: int, *, seconds: int, length: int | None = None
    ) -> PresignedUrl:
        """For PUT of one part of a multipart upload. Where `length` is given the part has exactly so many bytes: the
        store takes no other, for its `Content-Length` is signed. For a body that is at most so large there is nothing
        to sign (only in a form that is posted)."""
        moment = self._at(int(self._clock()), self._credentials())
        path = self._folder + quote(key, safe="/~")
        names, heads = (
            ("host", "") if length is None else ("content-length;host", f"content-length:{length}\n")
        )
        signed = f"{moment.before_seconds}{seconds}"
        headers = f"&X-Amz-SignedHeaders={quote(names)}"
        fields = f"partNumber={number}&uploadId={quote(upload_id, safe='~')}"
        canonical = f"{signed}{moment.token}{headers}&{fields}"
        request = f"PUT\n{path}\n{canonical}\n{heads}host:{self._host}\n\n{names}\nUNSIGNED-PAYLOAD"
        text = moment.to_sign + hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.digest(moment.key, text.encode(), "sha256").hex()
        target = f"{path}?{fields}&{signed}{headers}{moment.token}&X-Amz-Signature={signature}"
        return PresignedUrl(self._origin, self._host, target)

    def _at(self, second: int, credentials: Credentials) -> _Moment:
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = f"{date[:8]}/{self._region}/s3/aws4_request"
        credential = quote(f"{credentials.access_key}/{scope}", safe="~")
        token = f"&X-Amz-Security-Token={quote(credentials.token, safe='~')}" if credentials.token else ""
        return _Moment(
            second,
            credentials,
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires=",
            token,
            f"AWS4-HMAC-SHA256\n{date}\n{scope}\n",
            _signing_key(credentials.secret_key, date[:8], self._region),
        )


@lru_cache(maxsize=8)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
