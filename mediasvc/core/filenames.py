"""Safe file names, and how they travel in `Content-Disposition` (RFC 6266, RFC 8187)."""

import re
import unicodedata
from functools import lru_cache
from urllib.parse import quote

from mediasvc.core.keys import MAX_KEY_BYTES

MAX_NAME_BYTES = 255
FALLBACK = "file"

_SEPARATORS = re.compile(r"[/\\]")
# Joiners belong to the spelling of Persian, Indic scripts and emoji; every other format character only misleads.
_JOINERS = frozenset("\u200c\u200d")
_DROPPED_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_LONGEST_EXTENSION = 32  # bytes, dot included; anything longer is no extension
# Browsers decode %xx in a plain `filename`, and `\` and `"` end or escape its quotes.
_UNSAFE_IN_QUOTES = re.compile(r'[^\x20-\x7e]|["\\%/:]')
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_ACCENTS = re.compile(r"[\u0300-\u036f]")
_ATTR_CHARS = "!#$&+-.^_`|~"  # RFC 8187, what quote() would escape


def safe_name(raw: str, longest: int = MAX_NAME_BYTES) -> str:
    """The name a file may be shown and saved under; never fails.

    NFC, last path segment only, no control, bidi, format or surrogate characters, 1 to `longest` bytes of UTF-8
    with the extension kept where it fits, never `.` or `..`.
    """
    if raw.isascii() and raw.isprintable():
        name = raw
    else:
        kept = "".join(c for c in raw if c in _JOINERS or unicodedata.category(c) not in _DROPPED_CATEGORIES)
        name = unicodedata.normalize("NFC", kept)
    segments = [segment for part in _SEPARATORS.split(name) if (segment := part.strip())]
    name = segments[-1] if segments else FALLBACK
    if len(name) * 4 > longest:
        name = _shorten(name, longest)
    return FALLBACK[:longest] if name in (".", "..") else name


def name_below(prefix: str, raw: str) -> str:
    """The safe name of a file whose key is `prefix` and this name, cut so that the key is not too long.

    Where the prefix leaves no room for any name it is not cut, and the key is for `normalise_key` to refuse.
    """
    room = MAX_KEY_BYTES - len(prefix.encode())
    return safe_name(raw, min(room, MAX_NAME_BYTES)) if room > 0 else safe_name(raw)


def content_disposition(name: str, *, inline: bool) -> str:
    """The header's value for a name, any string at all: printable ASCII, both `filename` and `filename*`."""
    return ("inline" if inline else "attachment") + _parameters(name)


@lru_cache(maxsize=1024)
def _parameters(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return f"; filename=\"{name}\"; filename*=UTF-8''{name}"
    # é becomes e rather than _, for the few clients that read only the plain form.
    plain = name if name.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", name))
    plain = _UNSAFE_IN_QUOTES.sub("_", plain)
    return f"; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS, errors='replace')}"


def _shorten(name: str, longest: int) -> str:
    if len(name.encode()) <= longest:
        return name
    stem, dot, extension = name.rpartition(".")
    suffix = (dot + extension).encode()
    if not stem or len(suffix) > _LONGEST_EXTENSION or len(suffix) >= longest:
        stem, suffix = name, b""
    room = longest - len(suffix)
    cut = stem.encode()[:room].decode(errors="ignore").rstrip()
    return (cut or FALLBACK[:room]) + suffix.decode()
