"""The IETF's resumable uploads as pure translation: each row names the requirement it is for (`In`) and, where the
versions differ, the interop version (`vN`)."""

import base64
import contextlib
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.errors import (
    AppendMismatch,
    BadRequest,
    ChecksumMismatch,
    InconsistentLength,
    MediasvcError,
    MethodNotAllowed,
    NotFound,
    OffsetMismatch,
    QuotaExceeded,
    StoreFault,
    Superseded,
    TooLarge,
    TypeNotAllowed,
    WrongContentType,
)
from mediasvc.core.upload import Upload
from mediasvc.ingest import draft
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

LOCATION = "https://media.example/v1/uploads/upl_1"
LIMITS = Limits(max_size=1000, max_append_size=100, max_age=3600)
LIMIT = {"Upload-Limit": "max-size=1000, max-append-size=100, max-age=3600"}
OLD_LIMIT = {"Upload-Limit": "max-size=1000, max-append-size=100, expires=3600"}
DIGEST = hashlib.sha256(b"hello").digest()
B64 = base64.b64encode(DIGEST).decode()

WHOLE, PART = {"upload-complete": "?1"}, {"upload-complete": "?0"}
TYPED = {"content-type": "application/partial-upload"}
AT_70 = TYPED | {"upload-offset": "70"}
POST, PUT, PATCH, HEAD, DELETE = (
    ("POST", True),
    ("PUT", True),
    ("PATCH", False),
    ("HEAD", False),
    ("DELETE", False),
)


def speaking(version: int) -> dict[str, str]:
    return {"upload-draft-interop-version": str(version)}


def sized(size: int) -> dict[str, str]:
    return {"content-length": str(size)}


def upload(**fields: Any) -> Upload:
    begun: dict[str, Any] = {"id": "upl_1", "owner": "key_1", "created_at": 0, "expires_at": 1}
    return Upload(**(begun | {"blob_id": "b", "length": 100, "offset": 70} | fields))


def created(size: int, completes: bool, length: int | None = None, **fields: Any) -> Begin:
    return Begin(length, has_body=size > 0, size=size, completes=completes, **fields)


NAMED = 'attachment; filename="a.jpg"'
UNDERSTOOD: dict[str, tuple[tuple[str, bool], dict[str, str], Command]] = {
    # I1: structured fields
    "I1 spaces and parameters": (
        PATCH,
        TYPED
        | {"upload-offset": ' 070;a;b="x;\\"";c=tok;d=:YQ==: ', "upload-complete": "?1;x=1.5"}
        | sized(30),
        Append(70, length=100, size=30, completes=True),
    ),
    "I1 the largest integer": (
        POST,
        PART | {"upload-length": "999999999999999"},
        created(0, False, 999999999999999),
    ),
    **{
        f"I1 a malformed length is no length: {value!r}": (
            POST,
            PART | {"upload-length": value},
            created(0, False),
        )
        for value in ("-1", "1.0", "1e0", "", "1, 1", "9" * 16, '"5"', "5;", "5;A=1", "?1", "\u0661", "5 6")
    },
    **{
        f"I1 a malformed Upload-Complete says nothing: {value!r}": (
            PATCH,
            AT_70 | {"upload-complete": value},
            Append(70, size=0, completes=False),
        )
        for value in ("1", "true", "?2", "", "?1, ?1", "?1 x", '"?1"', "?1;=")
    },
    # I3: the length
    "I3 said": (POST, PART | sized(25) | {"upload-length": "100"}, created(25, False, 100)),
    "I3 deduced": (POST, WHOLE | sized(100), created(100, True, 100)),
    "I3 both, in agreement": (
        POST,
        WHOLE | sized(100) | {"upload-length": "100"},
        created(100, True, 100),
    ),
    "I3 deduced from what is left": (
        PATCH,
        AT_70 | WHOLE | sized(30),
        Append(70, length=100, size=30, completes=True),
    ),
    "I3 said later": (
        PATCH,
        AT_70 | PART | sized(5) | {"upload-length": "100"},
        Append(70, length=100, size=5, completes=False),
    ),
    "I3 not known: the end of the body will tell": (
        POST,
        WHOLE | {"transfer-encoding": "chunked"},
        Begin(None, has_body=True, completes=True),
    ),
    "I3 not known: more is to come": (POST, PART | sized(25), created(25, False)),
    # I4: only Upload-Complete completes
    "I4 at its end, and not complete": (
        PATCH,
        AT_70 | PART | sized(30) | {"upload-length": "100"},
        Append(70, length=100, size=30, completes=False),
    ),
    "I4 nothing said in a PATCH": (PATCH, AT_70 | sized(5), Append(70, size=5, completes=False)),
    "I4 an empty PATCH completes": (
        PATCH,
        TYPED | WHOLE | {"upload-offset": "100"},
        Append(100, length=100, size=0, completes=True),
    ),
    "I4 v3 the other way round, true": (
        PATCH,
        speaking(3) | {"upload-offset": "70", "upload-incomplete": "?1"} | sized(5),
        Append(70, size=5, completes=False),
    ),
    "I4 v3 the other way round, false": (
        POST,
        speaking(3) | {"upload-incomplete": "?0"} | sized(5),
        created(5, True, 5),
    ),
    "I4 v3 left away means complete": (
        PATCH,
        speaking(3) | {"upload-offset": "70"} | sized(30),
        Append(70, length=100, size=30, completes=True),
    ),
    # I5: OPTIONS
    "I5 OPTIONS": (("OPTIONS", True), speaking(8), Describe()),
    "I5 OPTIONS of an upload": (("OPTIONS", False), {}, Describe()),
    # I6: creation
    "I6 POST": (POST, PART, created(0, False)),
    "I6 PUT": (PUT, WHOLE | sized(3), created(3, True, 3)),
    "I6 PATCH": (("PATCH", True), PART | TYPED | sized(3), created(3, False)),
    "I6 an empty file": (POST, WHOLE, created(0, True, 0)),
    "I6 a PUT that says nothing is an ordinary one": (PUT, speaking(8) | sized(3), created(3, True, 3)),
    "I6 offset 0 is where uploads begin": (POST, PART | {"upload-offset": "0"}, created(0, False)),
    "I6 the type of the file": (
        POST,
        PART | {"content-type": "Image/PNG; charset=x"},
        created(0, False, names={"filetype": "image/png"}),
    ),
    "I6 metadata in tus's field go before": (
        POST,
        PART | {"content-type": "text/plain", "upload-metadata": "filetype aW1hZ2UvcG5n,bucket YQ=="},
        created(
            0,
            False,
            names={"filetype": "image/png", "bucket": "a"},
            said="filetype aW1hZ2UvcG5n,bucket YQ==",
        ),
    ),
    # I9, I14
    "I9 HEAD": (HEAD, {}, Inspect()),
    "I9 GET": (("GET", False), {}, Inspect()),
    "I9 v8 HEAD may say what it likes": (HEAD, speaking(8) | PART | {"upload-offset": "3"}, Inspect()),
    "I14 DELETE": (DELETE, {}, Discard()),
    "I14 v6 DELETE with a length": (DELETE, speaking(6) | {"upload-length": "3"}, Discard()),
    # I10: PATCH
    **{
        f"I10 v{old} PATCH of any type": (
            PATCH,
            speaking(old) | PART | {"upload-incomplete": "?1", "upload-offset": "70"} | sized(5),
            Append(70, size=5, completes=False),
        )
        for old in (3, 4, 5)
    },
    **{
        f"I10 v{new} PATCH of its type": (
            PATCH,
            speaking(new) | PART | AT_70 | sized(5),
            Append(70, size=5, completes=False),
        )
        for new in (6, 7, 8)
    },
    "I10 as tus-js-client sends it through old proxies": (
        ("POST", False),
        PART | AT_70 | {"x-http-method-override": "PATCH"},
        Append(70, size=0, completes=False),
    ),
    # I15: digests
    "I15 Repr-Digest of a creation": (
        POST,
        PART | {"repr-digest": f"sha-256=:{B64}:"},
        created(0, False, sha256=DIGEST.hex()),
    ),
    "I15 Repr-Digest of what completes": (
        PATCH,
        AT_70 | WHOLE | {"repr-digest": f"sha-256=:{B64}:"},
        Append(70, length=70, size=0, completes=True, sha256=DIGEST.hex()),
    ),
    "I15 Repr-Digest of what does not complete": (
        PATCH,
        AT_70 | PART | {"repr-digest": f"sha-256=:{B64}:"},
        Append(70, size=0, completes=False),
    ),
    "I15 Content-Digest of a creation": (
        POST,
        PART | {"content-digest": f"sha-256=:{B64}:"} | sized(5),
        created(5, False, content_digest=Checksum("sha256", DIGEST)),
    ),
    "I15 Content-Digest of a PATCH": (
        PATCH,
        AT_70 | PART | {"content-digest": f"sha-512=:AAAA:, sha-256=:{B64}:"} | sized(5),
        Append(70, size=5, completes=False, content_digest=Checksum("sha256", DIGEST)),
    ),
    # I16: names
    **{
        f"I16 {why}": (
            POST,
            PART | {"content-disposition": value},
            created(0, False, names={"filename": name} if name else {}),
        )
        for why, (value, name) in {
            "the draft's example": (
                "inline; filename=\"file name.jpg\"; filename*=UTF-8''file%20n%C3%A4me.jpg",
                "file näme.jpg",
            ),
            "filename": (NAMED, "a.jpg"),
            "a token": ("attachment;FileName = a.jpg", "a.jpg"),
            "escapes": ('inline; filename="a \\"b\\" c; d.jpg"', 'a "b" c; d.jpg'),
            "bytes of UTF-8": ('inline; filename="' + "ü.jpg".encode().decode("latin-1") + '"', "ü.jpg"),
            "bytes of Latin-1": ('inline; filename="ü.jpg"', "ü.jpg"),
            "Latin-1": ("inline; filename*=iso-8859-1'de'%FC.jpg", "ü.jpg"),
            "a charset nobody must know": ("inline; filename=\"a\"; filename*=utf-16''%00a", "a"),
            "what is no UTF-8": ("inline; filename=\"a\"; filename*=UTF-8''%FF", "a"),
            "quotes inside quotes": ("inline; name=\"; filename*=UTF-8''b\"; filename=a", "a"),
            "none": ("inline", ""),
            "nonsense": ('";;=', ""),
        }.items()
    },
}

REFUSED: dict[str, tuple[tuple[str, bool], dict[str, str], type[MediasvcError], int]] = {
    **{
        f"I1 a malformed offset is none: {value!r}": (
            PATCH,
            TYPED | PART | {"upload-offset": value},
            BadRequest,
            400,
        )
        for value in ("-1", "1.0", "", "70, 70", "9" * 16, "many")
    },
    "I1 no offset": (PATCH, TYPED | PART, BadRequest, 400),
    "I3 the whole is longer than said": (
        POST,
        WHOLE | sized(101) | {"upload-length": "100"},
        InconsistentLength,
        400,
    ),
    "I3 the whole is shorter than said": (
        POST,
        WHOLE | sized(99) | {"upload-length": "100"},
        InconsistentLength,
        400,
    ),
    "I3 the rest is longer than said": (
        PATCH,
        AT_70 | WHOLE | sized(31) | {"upload-length": "100"},
        InconsistentLength,
        400,
    ),
    "I12 a part would exceed the length": (
        PATCH,
        AT_70 | PART | sized(31) | {"upload-length": "100"},
        InconsistentLength,
        400,
    ),
    "I3 a Content-Length that is no number": (POST, WHOLE | {"content-length": "-5"}, BadRequest, 400),
    "I6 nothing said in a POST": (POST, speaking(8) | sized(3), BadRequest, 400),
    "I6 nothing readable said in a POST": (POST, {"upload-complete": "yes"} | sized(3), BadRequest, 400),
    "I6 an upload does not begin in the middle": (
        POST,
        WHOLE | {"upload-offset": "70"} | sized(3),
        BadRequest,
        400,
    ),
    "I6 HEAD creates nothing": (("HEAD", True), PART, MethodNotAllowed, 405),
    "I6 DELETE creates nothing": (("DELETE", True), PART, MethodNotAllowed, 405),
    "I6 metadata that are malformed": (POST, PART | {"upload-metadata": "a !"}, BadRequest, 400),
    **{
        f"I9 v{old} HEAD says how it stands": (HEAD, speaking(old) | said, BadRequest, 400)
        for old, said in (
            (3, {"upload-offset": "0"}),
            (3, {"upload-incomplete": "?1"}),
            (4, {"upload-offset": "0"}),
            (5, {"upload-complete": "?0"}),
            (6, {"upload-length": "1"}),
        )
    },
    **{
        f"I14 v{old} DELETE says how it stands": (DELETE, speaking(old) | said, BadRequest, 400)
        for old, said in (
            (3, {"upload-incomplete": "?1"}),
            (4, {"upload-complete": "?0"}),
            (6, {"upload-offset": "0"}),
        )
    },
    **{
        f"I10 v{new} PATCH of another type": (
            PATCH,
            speaking(new) | PART | {"upload-offset": "70", "content-type": "application/octet-stream"},
            WrongContentType,
            415,
        )
        for new in (6, 7, 8)
    },
    "I10 PATCH of no type, and no version": (PATCH, PART | {"upload-offset": "70"}, WrongContentType, 415),
    "I10 another method": (("PUT", False), PART | AT_70, MethodNotAllowed, 405),
    "I15 Content-Digest that cannot be compared": (
        POST,
        PART | {"content-digest": "sha-256=:AAAA:"},
        BadRequest,
        400,
    ),
    "I15 Repr-Digest that is none": (POST, PART | {"repr-digest": "sha-256=x"}, BadRequest, 400),
}

OFFSET = {"Upload-Offset": "70"}
YES, NO = {"Upload-Complete": "?1"}, {"Upload-Complete": "?0"}
OLD_YES, OLD_NO = {"Upload-Incomplete": "?0"}, {"Upload-Incomplete": "?1"}
AWAY = {"Location": LOCATION}
DONE = upload(offset=100, state="complete")
END = {"Upload-Offset": "100"}
HEAD_OF_100 = {"Upload-Length": "100", "Cache-Control": "no-store"}
ANSWERED: dict[str, tuple[Reply, int, dict[str, str]]] = {
    "I5 OPTIONS": (
        draft.described(LIMITS),
        204,
        LIMIT | {"Accept-Patch": "application/partial-upload"},
    ),
    "I5 OPTIONS of a server without limits": (
        draft.described(Limits()),
        204,
        {"Upload-Limit": "min-size=0", "Accept-Patch": "application/partial-upload"},
    ),
    "I5 a limit larger than an Integer can be": (
        draft.described(Limits(max_size=2**63 - 1)),
        204,
        {"Upload-Limit": "max-size=999999999999999", "Accept-Patch": "application/partial-upload"},
    ),
    **{
        f"I6 v{version} more is to come": (
            draft.created(upload(), LOCATION, LIMITS, version),
            201,
            AWAY | OFFSET | state | limit,
        )
        for version, state, limit in (
            (3, OLD_NO, OLD_LIMIT),
            (4, NO, OLD_LIMIT),
            (5, NO, OLD_LIMIT),
            (6, NO, OLD_LIMIT),
            (7, NO, LIMIT),
            (8, NO, LIMIT),
        )
    },
    **{
        f"I9 v{version} HEAD": (
            draft.inspected(upload(), LIMITS, version),
            204,
            OFFSET | HEAD_OF_100 | state | limit,
        )
        for version, state, limit in ((3, OLD_NO, OLD_LIMIT), (6, NO, OLD_LIMIT), (8, NO, LIMIT))
    },
    **{
        f"I9 v{version} HEAD of a complete one": (
            draft.inspected(DONE, LIMITS, version),
            204,
            END | HEAD_OF_100 | state | limit,
        )
        for version, state, limit in ((3, OLD_YES, OLD_LIMIT), (6, YES, OLD_LIMIT), (8, YES, LIMIT))
    },
    **{
        f"I9 HEAD of one that is {state}: {concat or 'read again'}": (
            draft.inspected(upload(offset=offset, concat=concat, state=state), LIMITS, 8),
            204,
            told | HEAD_OF_100 | LIMIT,
        )
        for state, offset, concat, told in (
            ("completing", 0, "final;a", NO),
            ("completing", 100, "", NO),
            ("complete", 100, "final;a", END | YES),
        )
    },
    "I4 I9 HEAD at its end, and not complete": (
        draft.inspected(upload(offset=100), LIMITS, 8),
        204,
        END | HEAD_OF_100 | NO | LIMIT,
    ),
    "I9 HEAD of one whose length is not known": (
        draft.inspected(upload(length=None), Limits(), 8),
        204,
        OFFSET | NO | {"Cache-Control": "no-store", "Upload-Limit": "min-size=0"},
    ),
    **{
        f"I10 v{version} more is to come": (draft.appended(upload(), version), status, OFFSET | state)
        for version, status, state in (
            (3, 201, OLD_NO),
            (4, 201, NO),
            (5, 201, NO),
            (6, 201, NO),
            (7, 204, NO),
            (8, 204, NO),
        )
    },
    "I14 DELETE": (draft.discarded(), 204, {}),
}

HEADERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    **{
        f"I7 v{version} 104": (
            draft.informed(LOCATION, LIMITS, version),
            AWAY | limit | {"Upload-Draft-Interop-Version": str(version)},
        )
        for version, limit in ((3, OLD_LIMIT), (5, OLD_LIMIT), (6, OLD_LIMIT), (7, LIMIT), (8, LIMIT))
    },
    "I11 v3 complete": (draft.completed(DONE, 3), END | OLD_YES),
    "I11 v6 complete": (draft.completed(DONE, 6), END | YES),
    "I11 v8 complete": (draft.completed(DONE, 8), END | YES),
    "I11 v6 complete at once: still at the upload's URL": (
        draft.completed(DONE, 6, LOCATION),
        END | YES | AWAY,
    ),
    "I11 v7 complete at once: at the asset's URL": (draft.completed(DONE, 7, LOCATION), END | YES),
}

TYPES = "https://iana.org/assignments/http-problem-types#"
ELSEWHERE_AT = OffsetMismatch("it is at 70", offset=70, provided=30)
MEMBERS = {"expected-offset": 70, "provided-offset": 30}
Told = tuple[dict[str, str], str | None, dict[str, int]]
TOLD: dict[str, tuple[MediasvcError, int, Upload | None, Told]] = {
    **{
        f"I10 v{version} another offset": (
            ELSEWHERE_AT,
            version,
            None,
            (OFFSET | state, TYPES + "mismatching-upload-offset", MEMBERS),
        )
        for version, state in ((3, OLD_NO), (6, NO), (8, NO))
    },
    "I11 an append to a complete upload": (
        OffsetMismatch("it is complete", offset=100, provided=100),
        8,
        DONE,
        (END | NO, TYPES + "completed-upload", {}),
    ),
    "I3 the lengths contradict each other": (
        InconsistentLength("no"),
        8,
        upload(),
        (NO, TYPES + "inconsistent-upload-length", {}),
    ),
    "I5 too large": (
        TooLarge("no", limit=1000, limit_source="server"),
        8,
        None,
        (NO | LIMIT, None, {}),
    ),
    "I5 v6 beyond the quota": (
        QuotaExceeded("no", limit=9, limit_source="bucket:b"),
        6,
        None,
        (NO | OLD_LIMIT, None, {}),
    ),
    "I6 v5 an active upload tells its offset in every answer": (
        StoreFault("it broke"),
        5,
        upload(),
        (OFFSET | NO, None, {}),
    ),
    "I13 v5 but not who was superseded: it has moved on": (Superseded("no"), 5, upload(), (NO, None, {})),
    "I9 an upload that is not known": (NotFound("no"), 8, None, (NO, None, {})),
    "I11 the whole is refused for its digest": (ChecksumMismatch("no"), 8, upload(), (YES, None, {})),
    "I11 v3 the whole is refused for its type": (TypeNotAllowed("no"), 3, None, (OLD_YES, None, {})),
    "I15 one body is refused for its digest": (AppendMismatch("no"), 8, upload(), (NO, None, {})),
}

# What no head or answer shows: it is in what happens to the upload, and tested there (as is most of I12, I13 and I16).
ELSEWHERE = {"I2", "I8"}


@pytest.mark.parametrize(("asked", "headers", "command"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_a_request_becomes_a_command(
    asked: tuple[str, bool], headers: dict[str, str], command: Command
) -> None:
    assert draft.read(asked[0], headers, creating=asked[1]) == command


@pytest.mark.parametrize(("asked", "headers", "error", "status"), REFUSED.values(), ids=REFUSED)
def test_a_request_is_refused(
    asked: tuple[str, bool], headers: dict[str, str], error: type[MediasvcError], status: int
) -> None:
    with pytest.raises(error) as refused:
        draft.read(asked[0], headers, creating=asked[1])
    assert type(refused.value) is error
    assert refused.value.status == status


@pytest.mark.parametrize(("reply", "status", "headers"), ANSWERED.values(), ids=ANSWERED)
def test_an_outcome_becomes_an_answer(reply: Reply, status: int, headers: dict[str, str]) -> None:
    assert (reply.status, reply.headers) == (status, headers)


@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_what_goes_before_and_along(headers: dict[str, str], expected: dict[str, str]) -> None:
    assert headers == expected


@pytest.mark.parametrize(("error", "version", "upload", "told"), TOLD.values(), ids=TOLD)
def test_an_error_is_told(error: MediasvcError, version: int, upload: Upload | None, told: Told) -> None:
    assert draft.on_error(error, version, limits=LIMITS, upload=upload) == told


def test_every_requirement_has_a_row() -> None:
    tables = (UNDERSTOOD, REFUSED, ANSWERED, HEADERS, TOLD)
    rows = {word for table in tables for row in table for word in row.split()}
    assert {f"I{n}" for n in range(1, 17)} - rows == ELSEWHERE


@pytest.mark.parametrize(
    ("headers", "is_draft"),
    {
        "Upload-Complete": (WHOLE, True),
        "Upload-Incomplete": ({"upload-incomplete": "?1"}, True),
        "only the version": (speaking(8), True),
        "an offset": ({"upload-offset": "0"}, True),
        "an offset in tus": ({"upload-offset": "0", "tus-resumable": "1.0.0"}, False),
        "nothing": ({"content-length": "5"}, False),
    }.values(),
)
def test_the_dialect_is_told_by_its_fields(headers: dict[str, str], is_draft: bool) -> None:
    assert draft.spoken(headers) is is_draft


VERSIONS = {str(n): n for n in range(3, 9)} | {
    " 5 ": 5,
    "6;a=b": 6,
    "2": 8,
    "9": 8,
    "": 8,
    "six": 8,
    "6, 6": 8,
    "-5": 8,
}


@pytest.mark.parametrize(("named", "spoken"), VERSIONS.items())
def test_an_unknown_version_is_the_newest(named: str, spoken: int) -> None:
    assert draft.version({"upload-draft-interop-version": named}) == spoken
    assert draft.version({}) == 8


MAY_INFORM = {
    **{f"version {n}": (speaking(n), 3 <= n <= 8) for n in range(10)},
    "no version": (WHOLE, False),
    "a version that cannot be read": ({"upload-draft-interop-version": "8, 8"}, False),
    **{
        f"through a proxy that says {name}": (speaking(8) | {name: ""}, False)
        for name in ("via", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
    },
    "beside other fields": (speaking(8) | {"x-forward": "1", "user-agent": "via"}, True),
}


@pytest.mark.parametrize(("headers", "may"), MAY_INFORM.values(), ids=MAY_INFORM)
def test_only_who_surely_takes_a_104_gets_one(headers: dict[str, str], may: bool) -> None:
    assert draft.may_inform(headers) is may


def test_the_place_in_the_url_goes_before_what_the_client_says() -> None:
    headers = WHOLE | {"upload-metadata": "bucket YQ==,key YQ==,filename YQ=="}
    begin = draft.read("PUT", headers, creating=True, bucket="photos", key="2026/b.jpg")
    assert isinstance(begin, Begin)
    assert begin.names == {"bucket": "photos", "key": "2026/b.jpg", "filename": "a"}


FIELDS = ["upload-length", "upload-offset", "upload-complete", "upload-incomplete", "content-disposition"]
FIELDS += ["upload-draft-interop-version", "content-type", "content-length", "content-digest", "repr-digest"]


@given(
    st.sampled_from(["POST", "PUT", "PATCH", "HEAD", "DELETE", "OPTIONS", "GET"]),
    st.booleans(),
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.text(st.characters(max_codepoint=255)) | st.from_regex(r"\??[0-9](;a=.*)?"),
    ),
)
def test_whatever_is_sent_is_understood_or_refused(
    method: str, creating: bool, headers: dict[str, str]
) -> None:
    with contextlib.suppress(MediasvcError):
        draft.read(method, headers, creating=creating)
