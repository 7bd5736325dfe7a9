"""Names of assets and buckets."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.errors import BadBucket, BadKey
from mediasvc.core.keys import check_bucket_name, decode_path, encode_path, normalise_key, normalise_prefix

GOOD = [
    "a",
    "a/b",
    "a//b",
    "/a",
    "a/",
    " ",
    "100%/ok?.txt",
    "..a/b..",
    "a/...",
    "\u65e5\u672c/\u8a9e.txt",
    "x" * 1024,
]
BAD = {
    "empty": "",
    "too long": "x" * 1025,
    "too long in UTF-8": "\u65e5" * 342,
    "NUL": "a\0b",
    "lone surrogate": "a\ud800",
    "dot": ".",
    "dot dot": "..",
    "dot segment": "a/./b",
    "dot dot segment": "a/../b",
    "leading": "../a",
    "trailing": "a/..",
}


@pytest.mark.parametrize("key", GOOD)
def test_a_key_may_be_almost_anything(key: str) -> None:
    assert normalise_key(key) == key


@pytest.mark.parametrize("key", BAD.values(), ids=BAD)
def test_what_no_store_can_keep_is_refused(key: str) -> None:
    with pytest.raises(BadKey):
        normalise_key(key)


@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "a/.", "a/..", ".", "..", "a/.x", "a..", "x" * 1024, "." * 1024]
)
def test_a_prefix_is_the_beginning_of_some_key(prefix: str) -> None:
    assert normalise_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["./", "../a", "a/./", "a/../b", "x" * 1025, "a\0", "a\ud800"])
def test_a_prefix_that_no_key_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(BadKey):
        normalise_prefix(prefix)


def test_spellings_of_one_key_are_one_key() -> None:
    assert normalise_key("e\u0301") == "\u00e9"


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"a%2Fb", "a/b"), (b"%25", "%"), (b"a+b", "a+b"), (b"%E6%97%A5", "\u65e5"), (b"%zz", "%zz"), (b"", "")],
)
def test_paths_are_percent_decoded_once(raw: bytes, text: str) -> None:
    assert decode_path(raw) == text


@pytest.mark.parametrize("raw", [b"%FF", b"\xff", b"%C3", b"%ED%A0%80"])
def test_a_path_that_is_not_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(BadKey):
        decode_path(raw)


@given(st.text(max_size=200))
def test_a_key_survives_its_url(text: str) -> None:
    encoded = encode_path(text)
    assert encoded.isascii()
    assert not set(encoded) & set(' ?#"<>')
    assert decode_path(encoded.encode()) == text


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=400))
def test_a_key_is_normal_or_refused(text: str) -> None:
    try:
        key = normalise_key(text)
    except BadKey:
        return
    assert unicodedata.is_normalized("NFC", key)
    assert 1 <= len(key.encode()) <= 1024
    assert not {".", ".."} & set(key.split("/"))
    assert normalise_key(key) == key


@pytest.mark.parametrize("name", ["abc", "media", "a-1", "x" * 63, "---"])
def test_good_bucket_names(name: str) -> None:
    assert check_bucket_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "ab", "x" * 64, "Media", "a_b", "a.b", "a/b", "caf\u00e9", "abc\n", "\u0661\u0661\u0661"]
)
def test_bad_bucket_names(name: str) -> None:
    with pytest.raises(BadBucket):
        check_bucket_name(name)
