"""File names: any string becomes safe, and travels so that every client understands it."""

import re
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.filenames import MAX_NAME_BYTES, content_disposition, name_below, safe_name
from mediasvc.core.keys import normalise_key

TABLE = {
    "ordinary": ("photo.jpg", "photo.jpg"),
    "traversal": ("../../etc/passwd", "passwd"),
    "absolute": ("/etc/passwd", "passwd"),
    "backslashes": ("..\\..\\boot.ini", "boot.ini"),
    "a folder": ("photos/", "photos"),
    "nothing": ("", "file"),
    "only dots": ("..", "file"),
    "only separators": ("///", "file"),
    "NUL": ("a\0b.png", "ab.png"),
    "CR LF": ("a\r\nSet-Cookie: x=1.png", "aSet-Cookie: x=1.png"),
    "right-to-left override": ("invoice\u202efdp.exe", "invoicefdp.exe"),
    "zero width and BOM": ("\ufeffa\u200b.txt", "a.txt"),
    "lone surrogate": ("a\ud800.txt", "a.txt"),
    "decomposed": ("e\u0301.txt", "\u00e9.txt"),
    "joined emoji": ("\U0001f468\u200d\U0001f469.png", "\U0001f468\u200d\U0001f469.png"),
    "hidden": (".htaccess", ".htaccess"),
    "a device": ("CON", "CON"),
    "percent": ("100%2f..%5c.txt", "100%2f..%5c.txt"),
    "dots hidden by controls": ("\u202e.\0.", "file"),
    "surrounding space": ("  a.txt \t", "a.txt"),
}


@pytest.mark.parametrize(("raw", "safe"), TABLE.values(), ids=TABLE)
def test_a_hostile_name_becomes_a_safe_one(raw: str, safe: str) -> None:
    assert safe_name(raw) == safe


def test_a_long_name_is_cut_between_characters_and_keeps_its_extension() -> None:
    name = safe_name("\u65e5" * 2000 + ".tar.jpeg")
    assert name.endswith("\u65e5.jpeg")
    assert 250 < len(name.encode()) <= MAX_NAME_BYTES


def test_a_long_extension_is_none() -> None:
    assert safe_name("a." + "b" * 5000) == ("a." + "b" * 5000)[:MAX_NAME_BYTES]


@pytest.mark.parametrize(
    ("room", "raw", "name"),
    [
        (9, "photograph.jpeg", "phot.jpeg"),
        (5, "\u65e5\u672c.tar", "f.tar"),
        (5, "photo.jpeg", "photo"),
        (1, "\u65e5", "f"),
        (1, ".x", "f"),
        (2, "..x", "fi"),
        (255, "photo.jpeg", "photo.jpeg"),
    ],
)
def test_a_name_is_cut_to_the_room_that_its_prefix_leaves(room: int, raw: str, name: str) -> None:
    prefix = "q" * (1024 - room)
    assert name_below(prefix, raw) == name
    assert normalise_key(prefix + name) == prefix + name


def test_where_no_byte_of_a_name_fits_it_is_left_whole() -> None:
    for prefix in ("q" * 1024, "q" * 1100):
        assert name_below(prefix, "a.jpeg") == "a.jpeg"


@given(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=600), st.integers(1, MAX_NAME_BYTES)
)
def test_any_string_fits_any_room(raw: str, room: int) -> None:
    name = safe_name(raw, room)
    assert 1 <= len(name.encode()) <= room
    assert name not in (".", "..")
    assert safe_name(name, room) == name


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=600))
def test_any_string_gives_a_safe_name(raw: str) -> None:
    name = safe_name(raw)
    assert 1 <= len(name.encode()) <= MAX_NAME_BYTES
    assert name not in (".", "..")
    assert not any(c in "/\\" for c in name)
    assert all(c in "\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in name)
    assert unicodedata.is_normalized("NFC", name)
    assert safe_name(name) == name


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=300), st.booleans())
def test_any_name_gives_a_clean_header(raw: str, inline: bool) -> None:
    name = safe_name(raw)
    header = content_disposition(name, inline=inline)
    parsed = re.fullmatch(
        r"(inline|attachment); filename=\"([ !#-$&-.0-9;-\[\]-~]*)\"; filename\*=UTF-8''([!#$&+.^_`|~\w%-]+)",
        header,
        re.ASCII,
    )
    assert parsed
    assert parsed[1] == ("inline" if inline else "attachment")
    assert unquote(parsed[3], errors="strict") == name


def test_old_clients_get_something_readable() -> None:
    header = content_disposition('na\u00efve "r\u00e9sum\u00e9" 100%.txt', inline=False)
    assert header.startswith('attachment; filename="naive _resume_ 100_.txt"; filename*=')


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=100))
def test_even_an_unsafe_name_cannot_break_the_header(raw: str) -> None:
    header = content_disposition(raw, inline=True)
    assert header.isascii()
    assert header.isprintable()
