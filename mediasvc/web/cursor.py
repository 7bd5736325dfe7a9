"""Cursors: where the next page of a listing begins, opaque to callers."""

import base64
import binascii

from mediasvc.core.errors import BadRequest


def encode_cursor(position: str | None) -> str | None:
    if position is None:
        return None
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """Raises BadRequest for what no listing of ours gave out."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise BadRequest("cursor: send the next_cursor of the page before") from None
