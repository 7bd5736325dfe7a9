"""The names of assets and buckets: what they may be, and how they stand in a URL."""

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from mediasvc.core.errors import BadBucket, BadKey

MAX_KEY_BYTES = 1024
_BUCKET = re.compile(r"[a-z0-9-]{3,63}")
_DOT_SEGMENT = re.compile(r"(?:\A|/)\.\.?(?:/|\Z)")
_DOT_FOLDER = re.compile(r"(?:\A|/)\.\.?/")
_DOTS = 'the key has a segment "." or ".."; name the segments without them'
# Unreserved characters and those sub-delims that need no escape in a path (RFC 3986).
_SAFE_IN_PATH = "/!$&'()*+,;=:@"


def normalise_key(text: str) -> str:
    """The one spelling of an asset's key: NFC, 1-1024 bytes of UTF-8.

    Slashes, spaces, `%`, `?` and any Unicode are allowed, at the end and doubled too. Raises BadKey.
    """
    text = _spelt(text)
    if not text:
        raise BadKey("the key is empty; name the asset after the bucket")
    if (text[0] == "." or "/." in text) and _DOT_SEGMENT.search(text):
        raise BadKey(_DOTS)
    return text


def normalise_prefix(text: str) -> str:
    """The beginning of keys in the spelling of keys; empty is fine, and so is a dot at its end: `a/.x` begins with
    `a/.`. Raises BadKey."""
    text = _spelt(text)
    if _DOT_FOLDER.search(text):
        raise BadKey(_DOTS)
    return text


def _spelt(text: str) -> str:
    """In NFC, and no longer than a key may be. Raises BadKey."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            raise BadKey("the key is not valid UTF-8") from None
    else:
        length = len(text)
    if length > MAX_KEY_BYTES:
        raise BadKey(f"the key has {length} bytes of UTF-8; at most {MAX_KEY_BYTES} are allowed")
    if "\0" in text:
        raise BadKey("the key contains NUL")
    return text


def decode_path(raw_path: bytes) -> str:
    """Percent-decode a URL's path as it came over the wire. Raises BadKey where it is not UTF-8."""
    try:
        return (unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path).decode()
    except UnicodeDecodeError:
        raise BadKey("the URL's path is not valid UTF-8 once percent-decoded") from None


def encode_path(text: str) -> str:
    """The text of a key or file name as it stands in a URL's path; slashes stay."""
    return quote(text, safe=_SAFE_IN_PATH)


def check_bucket_name(name: str) -> str:
    """The name itself where it is well formed. Raises BadBucket."""
    if not _BUCKET.fullmatch(name):
        raise BadBucket(f"{name[:80]!r} is no bucket name: 3 to 63 of a-z, 0-9 and -")
    return name
