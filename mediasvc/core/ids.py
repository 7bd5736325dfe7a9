"""Identifiers: unguessable (128 random bits), with a prefix that says of what.

Asset and task ids begin with 48 bits of time, so that new rows land at the end of an index.
"""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
UPT_PREFIX = "upt_"  # how the secret of an upload token begins
_FORM = {
    prefix: re.compile(rf"{prefix}_[0-9a-hjkmnp-tv-z]{{26,36}}", re.ASCII)
    for prefix in ("ast", "upl", "key", "lnk", "zip", "tsk", "run")
}


def _base32(number: int, length: int) -> str:
    out = ""
    for _ in range(length):
        number, digit = divmod(number, 32)
        out = _ALPHABET[digit] + out
    return out


def _ordered(prefix: str) -> str:
    return f"{prefix}_{_base32(time.time_ns() // 1_000_000, 10)}{_base32(secrets.randbits(128), 26)}"


def new_asset_id() -> str:
    return _ordered("ast")


def new_upload_id() -> str:
    return _ordered("upl")


def new_link_id() -> str:
    return _ordered("lnk")


def new_archive_id() -> str:
    return _ordered("zip")


def new_task_id() -> str:
    return _ordered("tsk")


def new_run_id() -> str:
    """Names one start of one server."""
    return _ordered("run")


def new_key_id() -> str:
    return f"key_{_base32(secrets.randbits(128), 26)}"


def new_key_secret() -> str:
    """The secret a caller sends: `msk_` and 192 random bits."""
    return "msk_" + secrets.token_urlsafe(24)


def new_upload_token_id() -> str:
    return f"tok_{secrets.token_hex(16)}"


def new_upload_token_secret() -> str:
    """What stands in an upload token's URL: `upt_` and 192 random bits."""
    return UPT_PREFIX + secrets.token_urlsafe(24)


def new_blob_id() -> str:
    """32 hex digits: safe as a file name and as an S3 key, and tells nothing."""
    return secrets.token_hex(16)


def new_ulid() -> str:
    """A ULID (time-ordered, 26 characters) for keys that the server makes."""
    return (_base32(time.time_ns() // 1_000_000, 10) + _base32(secrets.randbits(80), 16)).upper()


def well_formed(prefix: str, text: str) -> bool:
    """Whether `text` could be an id of that kind; one that could not is simply not found."""
    return _FORM[prefix].fullmatch(text) is not None
