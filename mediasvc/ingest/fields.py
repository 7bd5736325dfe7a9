"""The header fields that the dialects of resumable uploads share, each read by the book.

Headers are a mapping with names in lower case and values as Latin-1 text; a field that was sent twice is one value
with commas (`joined`), so that nobody can hide a second length behind a first one.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

from mediasvc.core.errors import BadRequest

LARGEST = 2**63 - 1  # bytes: what SQL, file systems and S3 can count
LARGEST_INTEGER = 10**15 - 1  # of a structured field (RFC 9651 §3.3.1)
MAX_METADATA = 16 * 1024  # bytes of Upload-Metadata
MAX_PAIRS = 64
MAX_CONCAT = 32 * 1024  # bytes of Upload-Concat: it is told again in every answer, and proxies take no more

Headers = Mapping[str, str]

_DIGITS = re.compile(r"[0-9]{1,19}")
_KEY = r"[a-z*][a-z0-9_.*-]*"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_WORD = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
_BARE = rf"(?:-?[0-9]+(?:\.[0-9]+)?|{_STRING}|{_WORD}|:[A-Za-z0-9+/=]*:|\?[01]|@-?[0-9]+)"
_PARAMETERS = rf"(?:; *{_KEY}(?:={_BARE})?)*"
_INTEGER = re.compile(rf" *(-?[0-9]{{1,15}}){_PARAMETERS} *")
_BOOLEAN = re.compile(rf" *\?([01]){_PARAMETERS} *")
_PARAMETER = re.compile(r';\s*([!#$&+^_`|~%*.\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]*)', re.ASCII)


def joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A request's headers as the dialects read them (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def method_of(method: str, headers: Headers) -> str:
    """What the client really asks for, where something between us lets only GET and POST pass (tus, C7)."""
    return headers.get("x-http-method-override", method).strip().upper()


def number(headers: Headers, name: str) -> int | None:
    """A count of bytes, in digits only. Raises BadRequest for anything else, and for what nobody can count."""
    value = headers.get(name)
    if value is None:
        return None
    if not _DIGITS.fullmatch(value) or int(value) > LARGEST:
        raise BadRequest(f"{name.title()} must be a number of bytes from 0 to {LARGEST}, in digits")
    return int(value)


def body_size(headers: Headers) -> int | None:
    """How many bytes the body has; None where only its end will tell. Without either field there is no body
    (RFC 9112 §6.3). Raises BadRequest."""
    if "transfer-encoding" in headers:
        return None
    return number(headers, "content-length") or 0


def media_type(headers: Headers) -> str:
    """`Content-Type` without parameters, in lower case; empty where there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def integer(value: str | None) -> int | None:
    """A structured field that is a non-negative Integer; None where it is anything else (RFC 9651 §4.2)."""
    match = _INTEGER.fullmatch(value or "")
    return int(match[1]) if match and int(match[1]) >= 0 else None


def boolean(value: str | None) -> bool | None:
    """A structured field that is a Boolean; None where it is anything else (RFC 9651 §4.2)."""
    match = _BOOLEAN.fullmatch(value or "")
    return match[1] == "1" if match else None


def dictionary(members: Mapping[str, int]) -> str:
    """A structured field that is a Dictionary of Integers; what is larger than an Integer may be is cut to that."""
    return ", ".join(f"{key}={min(value, LARGEST_INTEGER)}" for key, value in members.items())


def metadata(value: str) -> dict[str, str]:
    """The pairs of tus's `Upload-Metadata`, decoded: UTF-8, else (but for the key) Latin-1. An empty field, as tuspy
    sends, has none.

    Raises BadRequest for what is malformed, says a key twice, or is too much.
    """
    if not value.strip():
        return {}
    if len(value) > MAX_METADATA:
        raise BadRequest(f"Upload-Metadata may have {MAX_METADATA} bytes")
    pairs = value.split(",")
    if len(pairs) > MAX_PAIRS:
        raise BadRequest(f"Upload-Metadata may have {MAX_PAIRS} pairs")
    found: dict[str, str] = {}
    for pair in pairs:
        key, _, encoded = pair.strip(" ").partition(" ")
        if not key or not key.isascii() or not key.isprintable():
            raise BadRequest("Upload-Metadata is a comma-separated list of: ASCII key, space, base64 value")
        if key in found:
            raise BadRequest(f"Upload-Metadata says {key} twice")
        raw = from_base64(encoded, f"the value of {key} in Upload-Metadata")
        # What is no UTF-8 stays recognisable in a key, which must be; a name may be anything.
        found[key] = raw.decode(errors="surrogateescape") if key == "key" else _text(raw)
    return found


def from_base64(value: str, what: str) -> bytes:
    """Raises BadRequest where it is no base64, with padding (RFC 4648 §4)."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"{what} is no base64") from None


def filename_in(disposition: str) -> str:
    """The name in a `Content-Disposition` (RFC 6266): `filename*` where it can be read, else `filename`, else empty.

    It is what the client wrote, and not safe for anything.
    """
    parameters = {key.lower(): value for key, value in _PARAMETER.findall(disposition)}
    charset, _, rest = parameters.get("filename*", "").partition("'")
    encoded = unquote_to_bytes(rest.partition("'")[2])
    if encoded and charset.lower() in ("utf-8", "iso-8859-1"):
        try:
            return encoded.decode(charset)
        except UnicodeDecodeError:
            pass  # RFC 8187 §3.2.1: the other form is there for this
    plain = parameters.get("filename", "")
    if plain.startswith('"'):
        plain = re.sub(r"\\(.)", r"\1", plain[1:-1])
    return _text(plain.encode("latin-1", "replace"))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
