"""The streaming form, fed by hand: whatever the pieces, the same parts come out."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from mediasvc.core.errors import BadBody, BadRequest
from mediasvc.store.slabs import take
from mediasvc.web.form import MAX_FIELD, MAX_FIELDS, Field, Form

KIND = b"multipart/form-data; boundary=edge"


def in_slab(piece: bytes) -> memoryview:
    """As long bodies come; what lies behind the piece looks like the form's end, and is none of it."""
    slab = take()
    slab[: len(piece) + 12] = piece + b"\r\n--edge--\r\n"
    return memoryview(slab)[: len(piece)]


def form_of(pieces: Sequence[bytes | memoryview], kind: bytes = KIND, *, breaks: bool = False) -> Form:
    left = [*pieces]

    async def receive() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or breaks}
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}
    return Form(Request(scope, receive))


def parts_of(pieces: Sequence[bytes | memoryview], **more: bool) -> list[tuple[str, bytes]]:
    """Every part: a field's name and value, a file's name and content."""

    async def read() -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        async for part in form_of(pieces, **more).parts():
            if isinstance(part, Field):
                found.append((part.name, part.value.encode()))
            else:
                found.append((part.filename or "", b"".join([bytes(chunk) async for chunk in part.chunks()])))
        return found

    return asyncio.run(read())


def part(disposition: str, content: bytes) -> bytes:
    return f"--edge\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"


BODY = (
    part('name="a"', b"1")
    + part('name="f"; filename="x.bin"', b"\r\n--edg\r\n\r\n--edge-")
    + part('name="b"', b"")
)
WHOLE = BODY + b"--edge--\r\n"
EXPECTED = [("a", b"1"), ("x.bin", b"\r\n--edg\r\n\r\n--edge-"), ("b", b"")]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=20))
def test_the_network_may_cut_a_form_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[a:b] for a, b in pairwise(edges)]
    assert parts_of(pieces) == EXPECTED
    assert parts_of([in_slab(piece) for piece in pieces]) == EXPECTED


@pytest.mark.parametrize("length", range(0, len(BODY) + len(b"--edge-"), 7))
def test_a_form_cut_short_anywhere_is_told(length: int) -> None:
    with pytest.raises(BadBody):
        parts_of([WHOLE[:length]])
    with pytest.raises(BadBody):
        parts_of([WHOLE[:length]], breaks=True)


def test_a_file_nobody_read_is_read_over() -> None:
    async def read() -> list[str]:
        return [part.filename or "" async for part in form_of([WHOLE]).parts() if not isinstance(part, Field)]

    assert asyncio.run(read()) == ["x.bin"]


def test_a_file_is_read_like_any_upload() -> None:
    async def read() -> None:
        async for part in form_of([WHOLE[:80], WHOLE[80:]]).parts():
            if not isinstance(part, Field):
                assert await part.has_content()
                assert await part.read(3) == b"\r\n-"
                assert await part.read(4) == b"-edg"
                assert await part.read() == b"\r\n\r\n--edge-"
                assert await part.read() == b""
                assert await part.read(1) == b""

    asyncio.run(read())


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ('"a%22b"', 'a"b'),
        ('"a\\"b"', 'a"b'),
        ('"100%25"', "100%25"),
        ('"%0D%0A"', "\r\n"),
        ("plain", "plain"),
    ],
)
def test_names_as_clients_escape_them(sent: str, name: str) -> None:
    assert parts_of([part(f'name="f"; filename={sent}', b"") + b"--edge--\r\n"]) == [(name, b"")]


def test_a_field_has_its_limit() -> None:
    assert parts_of([part('name="a"', b"x" * MAX_FIELD) + b"--edge--\r\n"])
    with pytest.raises(BadBody, match="bytes"):
        parts_of([part('name="a"', b"x" * (MAX_FIELD + 1)) + b"--edge--\r\n"])


def test_fields_are_counted() -> None:
    assert parts_of([part('name="a"', b"") * MAX_FIELDS + b"--edge--\r\n"])
    with pytest.raises(BadBody, match="fields"):
        parts_of([part('name="a"', b"") * (MAX_FIELDS + 1) + b"--edge--\r\n"])


@pytest.mark.parametrize(
    "kind", [b"", b"text/plain", b"multipart/form-data", b"multipart/mixed; boundary=edge"]
)
def test_what_is_no_form_is_told(kind: bytes) -> None:
    with pytest.raises(BadRequest):
        form_of([WHOLE], kind)


def test_how_much_was_read_is_known() -> None:
    async def read() -> int:
        form = form_of([WHOLE[:50], WHOLE[50:]])
        async for _ in form.parts():
            pass
        return form.bytes_read

    assert asyncio.run(read()) == len(WHOLE)
