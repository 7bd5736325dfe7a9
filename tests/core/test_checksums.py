"""Checksums that clients send along."""

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.checksums import expected_sha256, repr_digest
from mediasvc.core.errors import BadRequest

DIGEST = hashlib.sha256(b"hello").digest()
HEX, B64 = DIGEST.hex(), base64.b64encode(DIGEST).decode()

GOOD = {
    "none": ((None, None, None), None),
    "hex": ((HEX, None, None), HEX),
    "hex in capitals": ((HEX.upper(), None, None), HEX),
    "Content-Digest": ((None, f"sha-256=:{B64}:", None), HEX),
    "Repr-Digest": ((None, None, f"sha-256=:{B64}:"), HEX),
    "beside another": ((None, f"sha-512=:AAAA:, sha-256=:{B64}:", None), HEX),
    "all agree": ((HEX, f"sha-256=:{B64}:", f"sha-256=:{B64}:"), HEX),
}
BAD = {
    "too short": (HEX[1:], None, None),
    "base64 where hex belongs": (B64, None, None),
    "they contradict": ("0" * 64, f"sha-256=:{B64}:", None),
    "not base64": (None, "sha-256=:!!!:", None),
    "base64 that breaks off": (None, f"sha-256=:{B64[:-1]}:", None),
    "the digest of something else": (None, "sha-256=:AAAA:", None),
    "only what we do not verify": (None, "sha-512=:AAAA:", None),
    "empty": (None, "", None),
    "no colons": (None, None, f"sha-256={B64}"),
}


@pytest.mark.parametrize(("headers", "expected"), GOOD.values(), ids=GOOD)
def test_the_expected_sha256(headers: tuple[str | None, ...], expected: str | None) -> None:
    assert expected_sha256(*headers) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
def test_a_checksum_that_cannot_be_verified_is_refused(headers: tuple[str | None, ...]) -> None:
    with pytest.raises(BadRequest):
        expected_sha256(*headers)  # type: ignore[arg-type]


@given(st.binary(max_size=64))
def test_what_we_send_we_understand(content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    assert expected_sha256(None, None, repr_digest(sha256)) == sha256


@given(st.text(max_size=100))
def test_any_header_is_understood_or_refused(value: str) -> None:
    for headers in ((value, None), (None, value)):
        with contextlib.suppress(BadRequest):
            assert expected_sha256(*headers) is not None
