"""The store's address: `s3://store-bucket?endpoint=http://host:port&region=…[&public_endpoint=…]`."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mediasvc.core.errors import StartupRefused

FORM = "s3://STORE-BUCKET?endpoint=http://HOST:PORT&region=REGION"
DEFAULT_REGION = "us-east-1"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PARAMETERS = ("endpoint", "region", "public_endpoint")


@dataclass(frozen=True, slots=True)
class S3Url:
    """Where blobs rest. Without an endpoint it is Amazon's own; credentials come from the AWS variables."""

    bucket: str
    endpoint: str | None = None
    region: str = DEFAULT_REGION
    public_endpoint: str | None = None  # what URLs given to clients name

    @property
    def address(self) -> str:
        """What a sentence calls the store."""
        return self.endpoint or f"Amazon S3 ({self.region})"

    @property
    def encrypted(self) -> bool:
        """Whether TLS looks after the bytes on their way."""
        return self.endpoint is None or self.endpoint.startswith("https://")


def parse_s3_url(text: str) -> S3Url:
    """Raises StartupRefused with one sentence that names the fix."""
    try:
        url = urlsplit(text)
        pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
    except ValueError:
        raise _refused(f"is not a URL of the form {FORM}") from None
    if "@" in url.netloc:
        raise _refused("must hold no credentials: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if url.scheme != "s3" or url.fragment:
        raise _refused(f"is not a URL of the form {FORM}")
    if not _BUCKET.fullmatch(url.netloc):
        raise _refused(f"names no bucket: write {FORM} (3 to 63 of a-z, 0-9, dots and hyphens)")
    if url.path not in ("", "/"):
        raise _refused(f"has a path ({url.path}), but a store takes a whole bucket: leave the path out")
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in _PARAMETERS:
            raise _refused(f"has a parameter {name!r}, which is none of {', '.join(_PARAMETERS)}")
        if name in values or not value:
            raise _refused(f"needs exactly one value for {name!r}")
        values[name] = value
    return S3Url(
        bucket=url.netloc,
        endpoint=_endpoint("endpoint", values.get("endpoint")),
        region=values.get("region", DEFAULT_REGION),
        public_endpoint=_endpoint("public_endpoint", values.get("public_endpoint")),
    )


def _endpoint(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    article = "an" if name == "endpoint" else "a"
    try:
        url = urlsplit(value)
        port = url.port  # raises ValueError where it is no port
    except ValueError:
        url, port = urlsplit(""), None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0 or "@" in url.netloc:
        raise _refused(f"needs {article} {name} of the form http://HOST:PORT or https://HOST")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise _refused(
            f"has {article} {name} with more than a host and a port: write {url.scheme}://{url.netloc}"
        )
    return f"{url.scheme}://{url.netloc}"


def _refused(what: str) -> StartupRefused:
    # The URL itself is not repeated: it may hold a secret where none should be.
    return StartupRefused(f"MEDIASVC_STORE_URL {what}")
