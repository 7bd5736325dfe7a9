"""A signature holds for what it was made for, with the keys there are, and for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.signing import Signer, secrets_in

OLD, NEW = "the secret of last year", "the secret of this year"
FIELDS = ("f", "ast_1", "", 1_700_000_000, 0)


def test_a_signature_holds_for_what_was_signed() -> None:
    signer = Signer([NEW])
    key_id, signature = signer.sign("link", *FIELDS)
    assert signer.verify(key_id, signature, "link", *FIELDS)
    assert signer.sign("link", *FIELDS) == (key_id, signature)


OTHERS = {
    "another purpose": ("archive", *FIELDS),
    "another field": ("link", "i", *FIELDS[1:]),
    "a field less": ("link", *FIELDS[:-1]),
    "a field more": ("link", *FIELDS, ""),
    "fields run together": ("link", "fast_1", "", *FIELDS[2:]),
    "a number as text": ("link", *FIELDS[:-1], "0"),
    "an unpaired surrogate": ("link", "\ud800", *FIELDS[1:]),
}


@pytest.mark.parametrize("told", OTHERS.values(), ids=OTHERS)
def test_a_signature_holds_for_nothing_else(told: tuple[str | int, ...]) -> None:
    signer = Signer([NEW])
    key_id, signature = signer.sign("link", *FIELDS)
    assert not signer.verify(key_id, signature, str(told[0]), *told[1:])


def test_the_first_key_signs_and_every_key_verifies() -> None:
    before, rotating, after = Signer([OLD]), Signer([NEW, OLD]), Signer([NEW])
    key_id, signature = before.sign("link", *FIELDS)
    assert rotating.verify(key_id, signature, "link", *FIELDS)
    assert not after.verify(key_id, signature, "link", *FIELDS)
    assert rotating.sign("link", *FIELDS) == after.sign("link", *FIELDS) != (key_id, signature)


def test_the_id_of_another_key_does_not_help() -> None:
    signer = Signer([NEW, OLD])
    _, signature = signer.sign("link", *FIELDS)
    old_id, _ = Signer([OLD]).sign("link", *FIELDS)
    for key_id in (old_id, "", "0" * 8, "é"):
        assert not signer.verify(key_id, signature, "link", *FIELDS)


@given(st.text(max_size=60))
def test_no_text_passes_for_a_signature(text: str) -> None:
    signer = Signer([NEW])
    key_id, _ = signer.sign("link", *FIELDS)
    assert not signer.verify(key_id, text, "link", *FIELDS)


def test_the_last_character_has_one_spelling() -> None:
    """43 characters of base64 carry two bits too many: they must not be free."""
    signer = Signer([NEW])
    key_id, signature = signer.sign("link", *FIELDS)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    held = [c for c in alphabet if signer.verify(key_id, signature[:-1] + c, "link", *FIELDS)]
    assert held == [signature[-1]]


def test_nothing_of_a_secret_shows() -> None:
    key_id, signature = Signer([NEW]).sign("link", *FIELDS)
    assert len(signature) == 43
    assert len(key_id) == 8
    assert key_id not in NEW.encode().hex()


def test_secrets_are_told_apart_by_commas() -> None:
    assert secrets_in(f" {NEW},{OLD} ,") == [NEW, OLD]


@pytest.mark.parametrize("text", ["", ",", "fifteen letters", f"{NEW},short", f"{NEW}\n{OLD}", "\ud800" * 20])
def test_what_is_no_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="16 printable characters or more") as refused:
        secrets_in(text)
    assert "short" not in str(refused.value)
