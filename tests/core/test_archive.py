"""The names that files get in an archive: every system can make them, and none stands for two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.archive import Names, safe_path


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("a.txt", "a.txt"),
        ("holidays/2024/zoë.jpg", "holidays/2024/zoë.jpg"),
        ("zoe\u0308.jpg", "zoë.jpg"),
        ("/etc/passwd", "etc/passwd"),
        ("../../etc/passwd", "etc/passwd"),
        ("a/./b//c/", "a/b/c"),
        ("..\\..\\windows\\x.dll", "windows/x.dll"),
        ("C:\\x", "C_/x"),
        ("a\x00b\nc\x1b[31m", "abc[31m"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("\ud800.txt", ".txt"),
        ('<>:"|?*', "_______"),
        ("CON", "_CON"),
        ("aux.c", "_aux.c"),
        ("dir/com¹.txt/lpt9", "dir/_com¹.txt/_lpt9"),
        ("nul .txt", "_nul .txt"),
        ("console.log", "console.log"),
        ("dots...", "dots"),
        ("folder. /file", "folder/file"),
        ("...", "file"),
        ("", "file"),
        ("/", "file"),
    ],
)
def test_a_path_is_made_safe(raw: str, safe: str) -> None:
    assert safe_path(raw) == safe


def named(*paths: str) -> list[str]:
    names = Names()
    for path in paths:
        names.expect(path)
    return [names.take(path) for path in paths]


@pytest.mark.parametrize(
    ("paths", "taken"),
    [
        (["a.jpg", "a.jpg", "a.jpg"], ["a.jpg", "a (2).jpg", "a (3).jpg"]),
        (["A.jpg", "a.JPG"], ["A.jpg", "a (2).JPG"]),
        (["Straße", "STRASSE"], ["Straße", "STRASSE (2)"]),
        (["a\u200db", "ab"], ["a\u200db", "ab (2)"]),
        (["a.jpg", "a (2).jpg", "a.jpg"], ["a.jpg", "a (2).jpg", "a (3).jpg"]),
        (["x/a", "X/A"], ["x/a", "X/A (2)"]),
        (["a", "a/b"], ["a (2)", "a/b"]),
        (["A/b", "a"], ["A/b", "a (2)"]),
        ([".profile", ".profile"], [".profile", ".profile (2)"]),
        (["a/b/c", "a/b"], ["a/b/c", "a/b (2)"]),
    ],
    ids=[
        "the same",
        "capitals",
        "capitals of one letter",
        "joiners",
        "the number is taken",
        "in folders",
        "a file before the folder",
        "a folder before the file",
        "no extension",
        "deeper",
    ],
)
def test_no_name_stands_for_two(paths: list[str], taken: list[str]) -> None:
    assert named(*paths) == taken


def test_a_long_name_stays_within_what_file_systems_take() -> None:
    long = "ä" * 123 + ".jpeg"
    _, second = named(long, long)
    assert len(second.encode()) <= 255
    assert second.endswith(" (2).jpeg")
    _, second = named("." + "x" * 254, "." + "x" * 254)
    assert (len(second), second[-4:]) == (255, " (2)")


def test_equal_names_in_great_number_are_told_apart() -> None:
    assert len(set(named(*["same.jpg"] * 20_000))) == 20_000


@given(st.lists(st.text(alphabet="aA./\\ äÄ:\u200d\ud800\x07con", max_size=8), max_size=12))
def test_whatever_the_names_they_are_safe_and_different(raw: list[str]) -> None:
    taken = named(*[safe_path(name) for name in raw])
    lowered = [name.casefold() for name in taken]
    assert len(set(lowered)) == len(taken)
    for name in taken:
        assert not name.startswith("/")
        for segment in name.split("/"):
            assert segment not in ("", ".", "..")
            assert segment == segment.rstrip(". ")
            assert segment.encode()
            assert segment.isprintable() or "\u200d" in segment
        assert not any(other.startswith(name.casefold() + "/") for other in lowered)
