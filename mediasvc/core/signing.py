"""Signatures over what a URL promises: one purpose each, several keys so that they can be rotated."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST_SECRET = 16  # characters: guessing one must be hopeless, for a signature can be tried out at home


def secrets_in(text: str) -> list[str]:
    """The secrets of a comma-separated list, in order. Raises ValueError with a sentence that shows none of them."""
    secrets = [secret for secret in map(str.strip, text.split(",")) if secret]
    if not secrets or any(len(secret) < SHORTEST_SECRET or not secret.isprintable() for secret in secrets):
        raise ValueError(
            f"must be secrets of {SHORTEST_SECRET} printable characters or more, comma-separated"
        )
    return secrets


_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once, for speed


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret and its public name."""

    id: str
    secret: bytes


class Signer:
    """HMAC-SHA256 with the first key; every key verifies, so that an old one can be phased out."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [_key(secret) for secret in secrets]
        self._by_id = {key.id: key.secret for key in self._keys}

    def sign(self, purpose: str, *fields: str | int) -> tuple[str, str]:
        """Key id and signature (43 characters of base64url) over the purpose and all fields, in order."""
        key = self._keys[0]
        return key.id, _signature(key.secret, purpose, fields)

    def verify(self, key_id: str, signature: str, purpose: str, *fields: str | int) -> bool:
        """Whether `sign` made this signature with a key we still have. Takes the same time for every signature."""
        secret = self._by_id.get(key_id)
        if secret is None:
            return False
        return hmac.compare_digest(_signature(secret, purpose, fields).encode(), signature.encode())


def _key(secret: str) -> SigningKey:
    # The secret given is used for this alone, and its public name tells nothing of it.
    raw = secret.encode()
    return SigningKey(
        hmac.digest(raw, b"mediasvc key id", "sha256").hex()[:8],
        hmac.digest(raw, b"mediasvc links", "sha256"),
    )


def _signature(secret: bytes, purpose: str, fields: Sequence[str | int]) -> str:
    # JSON keeps the fields apart: no two lists of fields give the same text.
    text = _encoded([purpose, *fields]).encode(errors="surrogatepass")
    return base64.urlsafe_b64encode(hmac.digest(secret, text, hashlib.sha256)).rstrip(b"=").decode()
