"""tus 1.0 as pure translation: each row names the requirement it is for, as `Cn` (core), `Rn` (creation), `Dn`
(deferred length), `Wn` (creation with upload), `En` (expiration), `Kn` (checksum), `Tn` (termination), `Nn`
(concatenation)."""

import base64
import contextlib
import hashlib
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.errors import (
    BadRequest,
    MediasvcError,
    MethodNotAllowed,
    NotFound,
    OffsetMismatch,
    QuotaExceeded,
    StoreFault,
    TooLarge,
    UnsupportedVersion,
    WrongContentType,
)
from mediasvc.core.upload import Upload
from mediasvc.ingest import tus
from mediasvc.ingest.commands import (
    Append,
    Begin,
    Checksum,
    Command,
    Describe,
    Discard,
    Inspect,
    Limits,
    Reply,
)
from mediasvc.ingest.fields import joined

SAID = {"Tus-Resumable": "1.0.0"}
BYTES = {"content-type": "application/offset+octet-stream"}
AT_0 = BYTES | {"upload-offset": "0"}
BEGINNING = "https://media.example/v1/uploads"
INSIDE = "http://10.0.0.1:8000/t/upt_x/tus"  # the same beginning as another client asks for it
LOCATION = f"{BEGINNING}/upl_1"
EXPIRES = {"Upload-Expires": "Wed, 25 Jun 2014 16:00:00 GMT"}
HELLO = b"hello world"
SHA256 = hashlib.sha256(HELLO).hexdigest()
CONTENT_DIGEST = f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"
POST, PATCH = ("POST", True), ("PATCH", False)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def upload(**fields: Any) -> Upload:
    begun: dict[str, Any] = {"id": "upl_1", "owner": "key_1", "created_at": 0, "expires_at": 1403712000.9}
    return Upload(**(begun | {"blob_id": "b", "length": 100, "offset": 70} | fields))


def checksum(algorithm: str, digest: bytes) -> dict[str, str]:
    return AT_0 | {"upload-checksum": f"{algorithm} {b64(digest)}"}


def read(method: str, creating: bool, headers: dict[str, str]) -> Command:
    said = {"tus-resumable": "1.0.0"} | headers
    return tus.read(method, said, creating=creating, at=(BEGINNING, INSIDE))


UNDERSTOOD: dict[str, tuple[tuple[str, bool], dict[str, str], Command]] = {
    "C1 the largest offset": (PATCH, BYTES | {"upload-offset": str(2**63 - 1)}, Append(2**63 - 1, size=0)),
    "C7 method override": (("POST", False), AT_0 | {"x-http-method-override": "PATCH"}, Append(0, size=0)),
    "C7 method override, DELETE": (("POST", False), {"x-http-method-override": "DELETE"}, Discard()),
    "C7 override decides against the method": (
        ("PATCH", False),
        {"x-http-method-override": "HEAD"},
        Inspect(),
    ),
    "C8 HEAD": (("HEAD", False), {}, Inspect()),
    "C13 PATCH": (PATCH, AT_0 | {"content-length": "30"}, Append(0, size=30)),
    "C13 a PATCH whose end will tell": (PATCH, AT_0 | {"transfer-encoding": "chunked"}, Append(0)),
    "C14 type in capitals, with a parameter": (
        PATCH,
        AT_0 | {"content-type": "Application/Offset+Octet-Stream; charset=utf-8"},
        Append(0, size=0),
    ),
    "C20 OPTIONS": (("OPTIONS", True), {}, Describe()),
    "C20 OPTIONS of an upload": (("OPTIONS", False), {}, Describe()),
    "C20 OPTIONS of any version": (("OPTIONS", True), {"tus-resumable": "0.2.2"}, Describe()),
    "R2 length": (POST, {"upload-length": "100"}, Begin(100, size=0)),
    "R2 length deferred": (POST, {"upload-defer-length": "1"}, Begin(None, size=0)),
    "R4 an empty file": (POST, {"upload-length": "0", "content-length": "0"}, Begin(0, size=0)),
    "R7 metadata": (
        POST,
        {"upload-length": "1", "upload-metadata": "filename w7wucG5n,private,empty ,raw /w=="},
        Begin(
            1,
            names={"filename": "ü.png", "private": "", "empty": "", "raw": "ÿ"},
            said="filename w7wucG5n,private,empty ,raw /w==",
            size=0,
        ),
    ),
    "R7 spaces around the commas": (
        POST,
        {"upload-length": "1", "upload-metadata": "a YQ== , b Yg=="},
        Begin(1, names={"a": "a", "b": "b"}, said="a YQ== , b Yg==", size=0),
    ),
    "R7 no metadata, said as tuspy does": (
        POST,
        {"upload-length": "1", "upload-metadata": ""},
        Begin(1, size=0),
    ),
    "D3 PATCH says the length": (PATCH, AT_0 | {"upload-length": "11"}, Append(0, length=11, size=0)),
    "W2 bytes come along": (
        POST,
        BYTES | {"upload-length": "100", "content-length": "5"},
        Begin(100, has_body=True, size=5),
    ),
    "W2 bytes come along, their end will tell": (
        POST,
        BYTES | {"upload-length": "100", "transfer-encoding": "chunked"},
        Begin(100, has_body=True),
    ),
    "W2 no bytes need no type": (
        POST,
        {"upload-length": "100", "content-length": "0", "content-type": "text/plain"},
        Begin(100, size=0),
    ),
    "W4 100-continue": (
        POST,
        BYTES | {"upload-length": "100", "content-length": "5", "expect": "100-continue"},
        Begin(100, has_body=True, size=5),
    ),
    **{
        f"K2 {name}": (PATCH, checksum(name, digest), Append(0, size=0, checksum=Checksum(name, digest)))
        for name, digest in {
            "sha1": hashlib.sha1(HELLO, usedforsecurity=False).digest(),
            "sha256": hashlib.sha256(HELLO).digest(),
            "md5": hashlib.md5(HELLO, usedforsecurity=False).digest(),
            "crc32": zlib.crc32(HELLO).to_bytes(4, "big"),
        }.items()
    },
    "K2 of what comes along with a creation": (
        POST,
        BYTES
        | {
            "upload-length": "11",
            "content-length": "11",
            "upload-checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        },
        Begin(
            11,
            has_body=True,
            size=11,
            checksum=Checksum("sha1", bytes.fromhex("2aae6c35c94fcfb415dbe95f408b9ce91ee846ed")),
        ),
    ),
    "K2 beside it, HTTP's own digest of what comes along": (
        POST,
        checksum("md5", bytes(16))
        | {"upload-length": "100", "content-length": "11", "content-digest": CONTENT_DIGEST},
        Begin(
            100,
            has_body=True,
            size=11,
            checksum=Checksum("md5", bytes(16)),
            content_digest=Checksum("sha256", bytes.fromhex(SHA256)),
        ),
    ),
    "K2 instead of it, HTTP's own digest of a PATCH": (
        PATCH,
        AT_0 | {"content-length": "11", "content-digest": f"sha-512=:AAAA:, {CONTENT_DIGEST}"},
        Append(0, size=11, content_digest=Checksum("sha256", bytes.fromhex(SHA256))),
    ),
    "K2 of the whole, in our own field": (
        POST,
        {"upload-length": "11", "x-checksum-sha256": SHA256},
        Begin(11, size=0, sha256=SHA256),
    ),
    "T2 DELETE": (("DELETE", False), {}, Discard()),
    "N2 a partial": (
        POST,
        {"upload-length": "5", "upload-concat": "partial"},
        Begin(5, concat="partial", size=0),
    ),
    "N2 a partial of deferred length": (
        POST,
        {"upload-defer-length": "1", "upload-concat": "partial"},
        Begin(None, concat="partial", size=0),
    ),
    **{
        f"N2 a final, {what}": (
            POST,
            {"upload-concat": f"final;{urls}"},
            Begin(None, concat=f"final;{urls}", parts=("a", "b", "a"), size=0),
        )
        for what, urls in {
            "ids alone": "a b a",
            "relative URLs": "/v1/uploads/a uploads/b ./a",
            "relative URLs, as another client has it": "/t/upt_x/tus/a tus/b /t/upt_x/tus/a",
            "absolute URLs": f"{BEGINNING}/a {INSIDE}/b https://media.example:443/v1/uploads/a",
            "absolute URLs that say more": f"{BEGINNING}/a?b=/c#/d //media.example/v1/uploads/b {BEGINNING}/a",
            "a host in capitals, another scheme": f"HTTPS://Media.Example/v1/uploads/a {INSIDE}/b "
            "http://media.example/v1/uploads/a",
        }.items()
    },
    "N4 the order, and one part used twice": (
        POST,
        {"upload-concat": "final;b a b"},
        Begin(None, concat="final;b a b", parts=("b", "a", "b"), size=0),
    ),
    "N5 a final has metadata of its own": (
        POST,
        {"upload-concat": "final;a", "upload-metadata": "filename YQ=="},
        Begin(
            None,
            concat="final;a",
            parts=("a",),
            names={"filename": "a"},
            said="filename YQ==",
            size=0,
        ),
    ),
}

BAD_NUMBERS = {
    "negative": "-1",
    "an exponent": "1e0",
    "hexadecimal": "0x0",
    "empty": "",
    "a word": "many",
    "a fraction": "1.0",
    "a sign": "+1",
    "a space": "1 0",
    "an underscore": "1_0",
    "other digits": "\u0661",
    "beyond 63 bits": str(2**63),
    "thousands of digits": "9" * 5000,
    "said twice": "1, 2",
    "said twice alike": "1, 1",
}
BAD_METADATA = {
    "no base64": "a !",
    "base64 without its padding": "a YQ",
    "base64 that breaks off": "a Y",
    "two spaces": "a  YQ==",
    "three words": "a YQ== YQ==",
    "nothing between commas": "a YQ==,,b Yg==",
    "a comma at the end": "a YQ==,",
    "a key twice": "a YQ==,a Yg==",
    "a key beyond ASCII": "ü YQ==",
    "a key with a tab": "a\tb YQ==",
    "65 pairs": ",".join(f"k{n} YQ==" for n in range(65)),
    "more than 16 KiB": "a " + "YWFh" * 4096,
}
BAD_CHECKSUMS = {
    "unknown algorithm": "sha512 " + b64(hashlib.sha512(HELLO).digest()),
    "capitals": "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
    "no digest": "sha1",
    "no base64": "sha1 !",
    "a digest of another length": "sha1 AAAA",
    "hex": f"sha256 {SHA256}",
    "a number": "crc32 222957957",
    "empty": "",
    "two": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=, md5 XrY7u+Ae7tCTyyK7j1rNww==",
}
BAD_CONCATS = {
    "no word for it": "whole",
    "capitals": "Partial",
    "empty": "",
    "no URL": "final;",
    "only spaces": "final;  ",
    "no semicolon": "final a",
    "a URL without an id": "final;a /",
    "where uploads begin": f"final;a {BEGINNING}",
    "where uploads begin, and a slash": f"final;{BEGINNING}/",
    "only a host": "final;https://media.example",
    "another host": "final;http://evil.example/v1/uploads/a",
    "another host, its scheme left away": "final;//evil.example/v1/uploads/a",
    "another port": "final;https://media.example:8443/v1/uploads/a",
    "a port that is none": "final;https://media.example:99999/v1/uploads/a",
    "another host that says ours is its user": "final;https://media.example@evil.example/v1/uploads/a",
    "another path": "final;https://media.example/elsewhere/a",
    "another path, relative": "final;/elsewhere/a",
    "our host with the path of the other": "final;https://media.example/t/upt_x/tus/a",
    "a path that goes on": f"final;{BEGINNING}/a/parts",
    "a path that goes up": f"final;{BEGINNING}/../keys/a",
    "another word for a scheme": "final;upload:a",
    "no URL at all": "final;http://[",
    "said twice": "partial, partial",
}
SAYS_NOTHING: dict[str, str] = {}
REFUSED: dict[str, tuple[tuple[str, bool], dict[str, str], type[MediasvcError], int]] = {
    **{
        f"C1 offset: {why}": (PATCH, BYTES | {"upload-offset": value}, BadRequest, 400)
        for why, value in BAD_NUMBERS.items()
    },
    **{
        f"C1 length: {why}": (POST, {"upload-length": value}, BadRequest, 400)
        for why, value in BAD_NUMBERS.items()
    },
    **{
        f"C1 length in a PATCH: {why}": (PATCH, AT_0 | {"upload-length": value}, BadRequest, 400)
        for why, value in BAD_NUMBERS.items()
    },
    "C1 no offset": (PATCH, BYTES, BadRequest, 400),
    "C4 another version": (
        POST,
        {"tus-resumable": "0.2.2", "upload-length": "1"},
        UnsupportedVersion,
        412,
    ),
    "C4 another version, before anything else": (
        PATCH,
        {"tus-resumable": "2.0.0", "upload-offset": "-1"},
        UnsupportedVersion,
        412,
    ),
    "C7 an override that makes no sense": (
        ("PATCH", False),
        AT_0 | {"x-http-method-override": "PUT"},
        MethodNotAllowed,
        405,
    ),
    "C13 PATCH where uploads begin": (("PATCH", True), AT_0, MethodNotAllowed, 405),
    "C14 no type": (PATCH, {"upload-offset": "0"}, WrongContentType, 415),
    "C14 another type": (
        PATCH,
        {"upload-offset": "0", "content-type": "application/octet-stream"},
        WrongContentType,
        415,
    ),
    "R2 neither length nor defer": (POST, SAYS_NOTHING, BadRequest, 400),
    "R2 both": (POST, {"upload-length": "1", "upload-defer-length": "1"}, BadRequest, 400),
    **{
        f"R3 defer length: {value!r}": (POST, {"upload-defer-length": value}, BadRequest, 400)
        for value in ("0", "2", "", "true", "1, 1")
    },
    **{
        f"R7 {why}": (POST, {"upload-length": "1", "upload-metadata": value}, BadRequest, 400)
        for why, value in BAD_METADATA.items()
    },
    "W2 bytes of no type": (POST, {"upload-length": "100", "content-length": "5"}, WrongContentType, 415),
    "W2 bytes of another type": (
        POST,
        {"upload-length": "100", "transfer-encoding": "chunked", "content-type": "text/plain"},
        WrongContentType,
        415,
    ),
    **{
        f"K3 {why}": (PATCH, AT_0 | {"upload-checksum": value}, BadRequest, 400)
        for why, value in BAD_CHECKSUMS.items()
    },
    **{
        f"N2 {why}": (
            POST,
            {"upload-concat": value} | ({} if value.startswith("final;") else {"upload-length": "1"}),
            BadRequest,
            400,
        )
        for why, value in BAD_CONCATS.items()
    },
    "K3 HTTP's own digest, of no kind that is compared": (
        PATCH,
        AT_0 | {"content-digest": "md5=:AAAA:"},
        BadRequest,
        400,
    ),
    "N3 a final that says a length": (
        POST,
        {"upload-concat": "final;a", "upload-length": "5"},
        BadRequest,
        400,
    ),
    "N3 a final that defers its length": (
        POST,
        {"upload-concat": "final;a", "upload-defer-length": "1"},
        BadRequest,
        400,
    ),
    "N3 a final with a body": (
        POST,
        BYTES | {"upload-concat": "final;a", "content-length": "5"},
        BadRequest,
        400,
    ),
}

NO_STORE = {"Cache-Control": "no-store"}
AT_70, OF_100 = {"Upload-Offset": "70"}, {"Upload-Length": "100"}
FINAL = {"concat": "final;/a /b", "parts": ("a", "b")}
CONCAT = {"Upload-Concat": "final;/a /b"}
EXTENSIONS = (
    "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"
)
DESCRIBED = SAID | {
    "Tus-Version": "1.0.0",
    "Tus-Extension": EXTENSIONS,
    "Tus-Checksum-Algorithm": "sha1,sha256,md5,crc32",
}
ANSWERED: dict[str, tuple[Reply, int, dict[str, str]]] = {
    "C2 C5 R1 D1 W1 E1 K1 K4 T1 N1 N9 OPTIONS": (tus.described(Limits()), 204, DESCRIBED),
    "C6 OPTIONS of a server with a limit": (
        tus.described(Limits(max_size=1 << 30)),
        204,
        DESCRIBED | {"Tus-Max-Size": "1073741824"},
    ),
    "C6 even of one that takes nothing": (
        tus.described(Limits(max_size=0)),
        204,
        DESCRIBED | {"Tus-Max-Size": "0"},
    ),
    "C8 C9 C11 C12 HEAD": (tus.inspected(upload()), 200, SAID | AT_70 | OF_100 | EXPIRES | NO_STORE),
    "C8 HEAD at 0": (
        tus.inspected(upload(offset=0)),
        200,
        SAID | {"Upload-Offset": "0"} | OF_100 | EXPIRES | NO_STORE,
    ),
    "C8 HEAD of a complete one": (
        tus.inspected(upload(offset=100, state="complete")),
        200,
        SAID | {"Upload-Offset": "100"} | OF_100 | NO_STORE,
    ),
    "C16 E2 PATCH": (tus.appended(upload()), 204, SAID | AT_70 | EXPIRES),
    "C16 PATCH that completes": (
        tus.appended(upload(offset=100, state="complete")),
        204,
        SAID | {"Upload-Offset": "100"},
    ),
    "R6 W3 E2 POST": (
        tus.created(upload(offset=5), LOCATION, Limits()),
        201,
        SAID | {"Location": LOCATION, "Upload-Offset": "5"} | EXPIRES,
    ),
    "C6 POST at a server with a limit": (
        tus.created(upload(), LOCATION, Limits(max_size=500)),
        201,
        SAID | {"Location": LOCATION, "Tus-Max-Size": "500"} | AT_70 | EXPIRES,
    ),
    "R8 HEAD tells the metadata as they were sent": (
        tus.inspected(upload(said="b /w==,a,  c ")),
        200,
        SAID | AT_70 | OF_100 | EXPIRES | NO_STORE | {"Upload-Metadata": "b /w==,a,  c "},
    ),
    "D2 HEAD while the length is not known": (
        tus.inspected(upload(length=None)),
        200,
        SAID | AT_70 | EXPIRES | NO_STORE | {"Upload-Defer-Length": "1"},
    ),
    "T2 DELETE": (tus.discarded(), 204, SAID),
    "N7 POST of a final that is joined": (
        tus.created(upload(offset=100, state="complete", **FINAL), LOCATION, Limits()),
        201,
        SAID | CONCAT | {"Location": LOCATION, "Upload-Offset": "100"},
    ),
    "N7 POST of a final that is being joined": (
        tus.created(upload(offset=0, state="completing", **FINAL), LOCATION, Limits()),
        201,
        SAID | CONCAT | EXPIRES | {"Location": LOCATION},
    ),
    "N7 HEAD of a partial": (
        tus.inspected(upload(concat="partial")),
        200,
        SAID | AT_70 | OF_100 | EXPIRES | NO_STORE | {"Upload-Concat": "partial"},
    ),
    "N7 HEAD of a final that is being joined": (
        tus.inspected(upload(offset=0, state="completing", **FINAL)),
        200,
        SAID | CONCAT | OF_100 | EXPIRES | NO_STORE,
    ),
    "N7 HEAD of a final of a length that is not known": (
        tus.inspected(upload(offset=0, length=None, state="completing", **FINAL)),
        200,
        SAID | CONCAT | EXPIRES | NO_STORE,
    ),
    "N7 HEAD of a final that is joined": (
        tus.inspected(upload(offset=100, state="complete", **FINAL)),
        200,
        SAID | CONCAT | OF_100 | NO_STORE | {"Upload-Offset": "100"},
    ),
}

TOLD: dict[str, tuple[MediasvcError, dict[str, str]]] = {
    "C3 any error": (StoreFault("it broke"), SAID),
    "C3 C10 C17 an upload that is not known": (NotFound("no such upload"), SAID),
    "C4 another version": (UnsupportedVersion("say 1.0.0"), SAID | {"Tus-Version": "1.0.0"}),
    "C15 another offset": (OffsetMismatch("it is at 70", offset=70, provided=30), SAID | AT_70),
    "R5 too large": (
        TooLarge("too large", limit=500, limit_source="server"),
        SAID | {"Tus-Max-Size": "500"},
    ),
    "R5 beyond the quota": (
        QuotaExceeded("too much", limit=9, limit_source="bucket:b"),
        SAID | {"Tus-Max-Size": "500"},
    ),
}

# What no head or answer shows: it is in what happens to the upload, and tested there.
ELSEWHERE = {"C18", "C19", "R9", "D4", "E3", "K5", "N6", "N8"}
CHECKLIST = {"C": 20, "R": 9, "D": 4, "W": 4, "E": 3, "K": 5, "T": 2, "N": 9}


@pytest.mark.parametrize(("asked", "headers", "command"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_a_request_becomes_a_command(
    asked: tuple[str, bool], headers: dict[str, str], command: Command
) -> None:
    assert read(*asked, headers) == command


@pytest.mark.parametrize(("asked", "headers", "error", "status"), REFUSED.values(), ids=REFUSED)
def test_a_request_is_refused(
    asked: tuple[str, bool], headers: dict[str, str], error: type[MediasvcError], status: int
) -> None:
    with pytest.raises(error) as refused:
        read(*asked, headers)
    assert type(refused.value) is error
    assert refused.value.status == status


@pytest.mark.parametrize(("reply", "status", "headers"), ANSWERED.values(), ids=ANSWERED)
def test_an_outcome_becomes_an_answer(reply: Reply, status: int, headers: dict[str, str]) -> None:
    assert (reply.status, reply.headers) == (status, headers)


@pytest.mark.parametrize(("error", "headers"), TOLD.values(), ids=TOLD)
def test_an_error_is_told_in_tus(error: MediasvcError, headers: dict[str, str]) -> None:
    assert tus.on_error(error, Limits(max_size=500)) == headers


def test_every_requirement_has_a_row() -> None:
    rows = {word for table in (UNDERSTOOD, REFUSED, ANSWERED, TOLD) for row in table for word in row.split()}
    required = {f"{group}{n}" for group, last in CHECKLIST.items() for n in range(1, last + 1)}
    assert required - rows == ELSEWHERE


def test_a_request_without_a_version_is_another_dialect() -> None:
    assert not tus.spoken({"upload-length": "1"})
    assert tus.spoken({"tus-resumable": "0.2.2"})
    with pytest.raises(UnsupportedVersion):
        tus.read("PATCH", AT_0, creating=False)


def test_a_length_said_twice_does_not_hide_behind_the_first() -> None:
    headers = joined([(b"Upload-Length", b"1"), (b"Tus-Resumable", b"1.0.0"), (b"upload-length", b"2")])
    assert headers == {"upload-length": "1, 2", "tus-resumable": "1.0.0"}


def test_a_digest_of_a_form_nobody_verifies_is_refused() -> None:
    with pytest.raises(BadRequest):
        read(*POST, {"upload-length": "1", "repr-digest": "sha-512=:AAAA:"})


KEYS = st.text(st.characters(codec="ascii", exclude_characters=" ,", exclude_categories=["Cc"]), min_size=1)


@given(st.dictionaries(KEYS, st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_metadata_come_back_as_they_were_meant(names: dict[str, str]) -> None:
    said = ",".join(f"{key} {b64(value.encode())}" for key, value in names.items())
    begin = read(*POST, {"upload-length": "1", "upload-metadata": said})
    assert isinstance(begin, Begin)
    assert (begin.names, begin.said) == (names, said)


@given(
    st.sampled_from(["POST", "PATCH", "HEAD", "DELETE", "OPTIONS", "GET"]),
    st.booleans(),
    st.dictionaries(
        st.sampled_from(
            [
                "upload-length",
                "upload-offset",
                "upload-defer-length",
                "upload-metadata",
                "upload-checksum",
                "upload-concat",
                "content-length",
                "content-type",
            ]
        ),
        st.text(st.characters(max_codepoint=255)) | st.from_regex(r"(final;)?[0-9a-z /:\[\]%=,]*"),
    ),
)
def test_whatever_is_sent_is_understood_or_refused(
    method: str, creating: bool, headers: dict[str, str]
) -> None:
    with contextlib.suppress(MediasvcError):
        read(method, creating, headers)
