"""Origins are written as browsers send them, and a bucket can only take away."""

from collections.abc import Sequence

import pytest

from mediasvc.core.origins import narrow, parse_origin

A, B, C = "https://a.example", "https://b.example", "https://c.example"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example.org", "https://app.example.org"),
        (" HTTPS://App.Example.org/ ", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://app.example.org:80/", "http://app.example.org"),
        ("http://app.example.org:443", "http://app.example.org:443"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_a_browser_sends_it(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "app.example.org",
        "https://",
        "https://app.example.org/path",
        "https://app.example.org?query",
        "https://user@app.example.org",
        "https://*.example.org",
        "https://app.example.org:0",
        "https://app.example.org:65536",
        "https://app.example.org:x",
        "https://ex\xe4mple.org",
        "https://a.example, https://b.example",
        "https://a.example\nhttps://b.example",
        "https://a.example\r\nX-Evil: 1",
        "x" * 10_000,
    ],
)
def test_what_no_browser_sends_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no origin; write https://app\.example\.org") as refused:
        parse_origin(text)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("allowed", "by", "left"),
    [
        (["*"], [], ["*"]),
        (["*"], ["*"], ["*"]),
        (["*"], [A], [A]),
        ([A, B], [], [A, B]),
        ([A, B], ["*"], [A, B]),
        ([A, B], [B, C], [B]),
        ([A], [C], []),
        ([], [A], []),
        ([], [], []),
    ],
    ids=str,
)
def test_a_bucket_narrows_and_never_widens(
    allowed: Sequence[str], by: Sequence[str], left: Sequence[str]
) -> None:
    assert list(narrow(allowed, by)) == left
