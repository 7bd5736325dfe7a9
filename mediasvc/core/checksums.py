"""The checksums a client sends along: `X-Checksum-Sha256`, `Content-Digest`, `Repr-Digest` (RFC 9530)."""

import base64
import binascii
import re
from collections.abc import Iterable

from mediasvc.core.errors import BadRequest

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):[ \t]*")


def expected_sha256(
    checksum: str | None, content_digest: str | None = None, repr_digest: str | None = None
) -> str | None:
    """The SHA-256 (lower-case hex) that the body must have, or None where the client named none.

    The arguments are the values of the three headers. Raises BadRequest where one is malformed, names no
    SHA-256 at all, or where they contradict each other.
    """
    expected: set[str] = set()
    if checksum is not None:
        if not _HEX.fullmatch(checksum.strip()):
            raise BadRequest("X-Checksum-Sha256 is not 64 hex digits")
        expected.add(checksum.strip().lower())
    for header, value in (("Content-Digest", content_digest), ("Repr-Digest", repr_digest)):
        if value is not None:
            expected.update(_sha256_in(header, value))
    if len(expected) > 1:
        raise BadRequest("the checksums in the headers contradict each other")
    return expected.pop() if expected else None


def _sha256_in(header: str, value: str) -> Iterable[str]:
    """The dictionary's sha-256; other algorithms are skipped as long as sha-256 is among them."""
    found: str | None = None
    for member in value.split(","):
        match = _MEMBER.fullmatch(member)
        if not match:
            raise BadRequest(f"{header} is no dictionary of digests; write sha-256=:BASE64:")
        if match[1] != "sha-256":
            continue
        try:
            digest = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            digest = b""
        if len(digest) != 32:
            raise BadRequest(f"the sha-256 in {header} is not the base64 of 32 bytes")
        found = digest.hex()  # the last of equal keys counts (RFC 9651)
    if found is None:
        raise BadRequest(f"{header} names only algorithms that are not verified here; send sha-256")
    return (found,)


def repr_digest(sha256: str) -> str:
    """The value of `Repr-Digest` for a SHA-256 in hex."""
    return f"sha-256=:{binascii.b2a_base64(bytes.fromhex(sha256), newline=False).decode()}:"
