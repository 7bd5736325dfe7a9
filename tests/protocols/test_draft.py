"""The IETF's resumable uploads over the wire, interop versions 3 to 8; `In` names the requirement a row is for."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.protocols import wire
from tests.protocols.uploading import (
    CONTENT,
    PARTIAL,
    UPLOADS,
    Row,
    asset_of,
    digest,
    make,
    target,
)
from tests.servers import Server, running

REST = CONTENT[4:]
VERSIONS = range(3, 9)
MORE, WHOLE = {"Upload-Complete": "?0"}, {"Upload-Complete": "?1"}
AT_4 = PARTIAL | {"Upload-Offset": "4"}
TYPES = "https://iana.org/assignments/http-problem-types#"
OCTETS = {"Content-Type": "application/octet-stream"}

ROWS: dict[str, Row] = {
    **{
        f"I1 the offset {value!r} is none": Row(
            "draft", "PATCH", AT_4 | MORE | {"Upload-Offset": value}, 400, {}, REST
        )
        for value in ("-4", "4.0", "four", "", "1" * 16, '"4"', "4, 4", "?1", "4 4")
    },
    "I1 an offset said twice is none": Row(
        "draft", "PATCH", [*PARTIAL.items(), *MORE.items(), *[("Upload-Offset", "4")] * 2], 400, {}, REST
    ),
    "I1 parameters do not matter": Row(
        "draft", "PATCH", AT_4 | {"Upload-Offset": "4;a=1", "Upload-Complete": "?1;b"}, 201, {}, REST, 10
    ),
    "I1 an Upload-Complete that is none: more is to come": Row(
        "draft", "PATCH", AT_4 | {"Upload-Complete": "true"}, 204, {"Upload-Complete": "?0"}, REST, 10
    ),
    "I1 a length that is none is not there": Row(
        "creation", "POST", MORE | {"Upload-Length": "-5"}, 201, {"Upload-Offset": "4"}, CONTENT[:4]
    ),
    "I3 more than Upload-Length": Row(
        "creation", "POST", WHOLE | {"Upload-Length": "5"}, 400, {"Location": None}, CONTENT
    ),
    "I3 less than Upload-Length": Row(
        "creation", "POST", WHOLE | {"Upload-Length": "50"}, 400, {"Location": None}, CONTENT
    ),
    "I3 another length later": Row("draft", "PATCH", AT_4 | MORE | {"Upload-Length": "11"}, 400, {}, REST),
    "I3 an end too early": Row("draft", "PATCH", AT_4 | WHOLE, 400, {}, REST[:3]),
    "I3 an end at once": Row("draft", "PATCH", AT_4 | WHOLE, 400),
    "I4 all bytes are not complete": Row(
        "draft", "PATCH", AT_4 | MORE, 204, {"Upload-Complete": "?0"}, REST, 10
    ),
    "I4 an empty PATCH completes": Row(
        "draft full", "PATCH", PARTIAL | WHOLE | {"Upload-Offset": "10"}, 201, WHOLE, offset=10
    ),
    "I4 nobody said complete": Row("draft", "PATCH", AT_4, 204, {"Upload-Complete": "?0"}, REST, 10),
    "I5 OPTIONS": Row("creation", "OPTIONS", {}, 204, {"Upload-Limit": "*", "Accept-Patch": "*"}),
    "I5 OPTIONS of one": Row("draft", "OPTIONS", {}, 204, {"Upload-Limit": "*"}),
    "I6 POST": Row(
        "creation",
        "POST",
        MORE,
        201,
        {"Location": "*", "Upload-Limit": "*", "Upload-Offset": "4", "Content-Location": "*"} | MORE,
        CONTENT[:4],
    ),
    "I6 POST of nothing": Row("creation", "POST", MORE, 201, {"Location": "*", "Upload-Offset": "0"} | MORE),
    "I6 POST of all": Row(
        "creation", "POST", OCTETS | WHOLE, 201, {"ETag": "*", "Upload-Offset": "10"} | WHOLE, CONTENT
    ),
    "I6 POST of all of nothing": Row("creation", "POST", OCTETS | WHOLE, 201, WHOLE),
    "I6 an offset at the creation": Row(
        "creation", "POST", MORE | {"Upload-Offset": "4"}, 400, {"Location": None}, REST
    ),
    "I6 no Upload-Complete at all": Row(
        "creation", "POST", {"Upload-Draft-Interop-Version": "8"}, 400, {"Location": None}, CONTENT
    ),
    "I9 HEAD": Row(
        "draft",
        "HEAD",
        {},
        204,
        {
            "Upload-Offset": "4",
            "Upload-Length": "10",
            "Upload-Limit": "*",
            "Cache-Control": "no-store",
        }
        | MORE,
    ),
    "I9 HEAD of no known length": Row(
        "draft deferred", "HEAD", {}, 204, {"Upload-Length": None, "Upload-Offset": "4"} | MORE
    ),
    "I9 GET": Row("draft", "GET", {}, 200, {"Upload-Offset": "4", "Upload-Limit": "*"} | MORE),
    "I9 HEAD of one that is full": Row(
        "draft full", "HEAD", {}, 204, {"Upload-Offset": "10"} | MORE, offset=10
    ),
    "I9 HEAD of none": Row("unknown", "HEAD", {}, 404, {"Upload-Offset": None}, offset=None),
    "I10 PATCH": Row("draft", "PATCH", AT_4 | MORE, 204, {"Upload-Offset": "6"} | MORE, REST[:2], 6),
    "I10 another type": Row("draft", "PATCH", AT_4 | MORE | OCTETS, 415, {}, REST),
    "I10 tus's type": Row(
        "draft", "PATCH", AT_4 | MORE | {"Content-Type": "application/offset+octet-stream"}, 415, {}, REST
    ),
    "I10 no offset": Row("draft", "PATCH", PARTIAL | MORE, 400, {}, REST),
    "I10 before": Row(
        "draft",
        "PATCH",
        PARTIAL | WHOLE | {"Upload-Offset": "0"},
        409,
        {"Upload-Offset": "4"} | MORE,
        CONTENT,
    ),
    "I10 after": Row(
        "draft",
        "PATCH",
        PARTIAL | WHOLE | {"Upload-Offset": "5"},
        409,
        {"Upload-Offset": "4"} | MORE,
        b"56789",
    ),
    "I10 of none": Row("unknown", "PATCH", AT_4 | MORE, 404, {}, REST, None),
    "I11 the last PATCH": Row(
        "draft",
        "PATCH",
        AT_4 | WHOLE,
        201,
        {"ETag": "*", "Upload-Offset": "10", "Content-Location": "*"} | WHOLE,
        REST,
        10,
    ),
    "I11 the last answer once more": Row(
        "complete", "PATCH", PARTIAL | WHOLE | {"Upload-Offset": "10"}, 201, {"ETag": "*"} | WHOLE, offset=10
    ),
    "I11 more for a complete one": Row(
        "complete", "PATCH", PARTIAL | WHOLE | {"Upload-Offset": "10"}, 409, {}, b"x", 10
    ),
    "I14 DELETE": Row("draft", "DELETE", {}, 204, offset=None),
    "I14 DELETE of a complete one": Row("complete", "DELETE", {}, 204, offset=None),
    "I14 DELETE once more": Row("discarded", "DELETE", {}, 404, offset=None),
    "I15 Content-Digest": Row(
        "draft", "PATCH", AT_4 | WHOLE | {"Content-Digest": digest(REST)}, 201, WHOLE, REST, 10
    ),
    "I15 Content-Digest of a part": Row(
        "draft", "PATCH", AT_4 | MORE | {"Content-Digest": digest(REST[:2])}, 204, {}, REST[:2], 6
    ),
    "I15 Content-Digest of something else": Row(
        "draft", "PATCH", AT_4 | WHOLE | {"Content-Digest": digest(b"x")}, 422, {}, REST
    ),
    "I15 Repr-Digest": Row(
        "draft", "PATCH", AT_4 | WHOLE | {"Repr-Digest": digest(CONTENT)}, 201, WHOLE, REST, 10
    ),
    "I15 both": Row(
        "draft",
        "PATCH",
        AT_4 | WHOLE | {"Repr-Digest": digest(CONTENT), "Content-Digest": digest(REST)},
        201,
        WHOLE,
        REST,
        10,
    ),
    "I15 of no kind that is verified": Row(
        "draft", "PATCH", AT_4 | WHOLE | {"Content-Digest": "md5=:AAAA:"}, 400, {}, REST
    ),
    "I15 a digest that is none": Row(
        "draft", "PATCH", AT_4 | WHOLE | {"Content-Digest": "sha-256=:AA:"}, 400, {}, REST
    ),
    "I15 Repr-Digest at the creation": Row(
        "creation", "POST", WHOLE | {"Repr-Digest": digest(b"x")}, 422, {"Location": None}, CONTENT
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_requirement_is_met(api: httpx.Client, row: Row) -> None:
    url = make(api, row.at)
    answer = row.ask(
        api, url, {"Upload-Draft-Interop-Version": "8"} if row.method in ("HEAD", "DELETE") else {}
    )
    row.check(answer)
    assert "Tus-Resumable" not in answer.headers or row.method == "OPTIONS"
    if row.at == "creation":
        return
    afterwards = api.head(url, headers={"Upload-Draft-Interop-Version": "8"})
    if row.offset is None:
        assert afterwards.status_code == 404
        return
    assert afterwards.headers["Upload-Offset"] == str(row.offset)
    if row.status >= 400 and row.at.startswith("draft"):
        again = api.patch(url, content=REST, headers=AT_4 | WHOLE)
        assert again.status_code == 201, again.text
        assert asset_of(api, url).content == CONTENT


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_says_it_in_its_own_words(api: httpx.Client, version: int) -> None:
    speaking = {"Upload-Draft-Interop-Version": str(version)}
    more, whole = (
        ({"Upload-Incomplete": "?1"}, {"Upload-Incomplete": "?0"}) if version == 3 else (MORE, WHOLE)
    )
    typed = PARTIAL if version >= 6 else {}
    made = api.post(UPLOADS, content=CONTENT[:4], headers=speaking | more)
    assert made.status_code == 201, made.text
    url = made.headers["Location"]
    assert {name: made.headers[name] for name in more} == more
    assert ("expires=" if version < 7 else "max-age=") in made.headers["Upload-Limit"]
    told = api.head(url, headers=speaking)
    assert (told.status_code, told.headers["Upload-Offset"]) == (204, "4")
    assert {name: told.headers[name] for name in more} == more
    mismatch = api.patch(url, content=REST, headers=speaking | typed | whole | {"Upload-Offset": "3"})
    problem = mismatch.json()
    assert (mismatch.status_code, mismatch.headers["Upload-Offset"]) == (409, "4")
    assert problem["type"] == TYPES + "mismatching-upload-offset"
    assert (problem["expected-offset"], problem["provided-offset"]) == (4, 3)
    appended = api.patch(url, content=REST[:2], headers=speaking | typed | more | {"Upload-Offset": "4"})
    assert (appended.status_code, appended.headers["Upload-Offset"]) == (204 if version >= 7 else 201, "6")
    last = api.patch(url, content=REST[2:], headers=speaking | typed | whole | {"Upload-Offset": "6"})
    assert last.status_code == 201, last.text
    assert {name: last.headers[name] for name in whole} == whole
    assert last.headers["Upload-Offset"] == "10"
    assert api.get(last.json()["url"]).content == CONTENT
    replayed = api.patch(url, headers=speaking | typed | whole | {"Upload-Offset": "10"})
    assert (replayed.status_code, replayed.json()["id"]) == (201, last.json()["id"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_uploads_in_one_request(api: httpx.Client, version: int) -> None:
    whole = {"Upload-Incomplete": "?0"} if version == 3 else WHOLE
    said = {"Upload-Draft-Interop-Version": str(version)} | whole
    made = api.post(UPLOADS, content=CONTENT, headers=said)
    assert made.status_code == 201
    assert made.json()["size"] == 10
    assert api.get(made.json()["url"]).content == CONTENT
    named = f"/b/media/version-{version}-{secrets.token_hex(3)}"
    put = api.put(named, content=CONTENT, headers=said)
    assert put.status_code == 201
    assert api.get(named).content == CONTENT
    again = api.put(named, content=REST, headers=said)
    assert (again.status_code, again.json()["version"]) == (200, 2)


def test_lengths_that_contradict_each_other_are_a_problem_of_their_own(api: httpx.Client) -> None:
    for answer in (
        api.post(UPLOADS, content=CONTENT, headers=WHOLE | {"Upload-Length": "5"}),
        api.patch(make(api, "draft"), content=REST[:1], headers=AT_4 | WHOLE),
    ):
        assert answer.status_code == 400
        assert answer.json()["type"] == TYPES + "inconsistent-upload-length"
        assert answer.headers["Upload-Complete"] == "?0"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [7, 100_000])
def test_more_than_the_length_ends_the_upload(api: httpx.Client, size: int, chunked: bool) -> None:
    """I12, however the body is framed."""
    url, body = make(api, "draft"), bytes(size)
    answer = api.patch(url, content=iter([body[:2], body[2:]]) if chunked else body, headers=AT_4 | MORE)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["Upload-Limit"]
    assert answer.headers["Upload-Complete"] == "?0"
    assert api.head(url, headers=MORE).status_code == 410
    assert api.patch(url, content=REST, headers=AT_4 | WHOLE).status_code == 410


def test_a_whole_of_no_known_length_must_have_the_one_that_was_told(api: httpx.Client) -> None:
    made = api.post(UPLOADS, content=iter([CONTENT]), headers=WHOLE | {"Upload-Length": "12"})
    assert made.status_code == 400
    assert made.json()["type"] == TYPES + "inconsistent-upload-length"
    listed = api.get(UPLOADS, params={"limit": 1000}).json()["uploads"]
    assert [one for one in listed if one["length"] == 12] == [], "nobody knows where it is"


def test_a_json_file_is_a_file(api: httpx.Client) -> None:
    content = json.dumps(["x" * 100] * 15_000).encode()
    sent = {"Content-Type": "application/json"} | WHOLE
    for made in (
        api.post(UPLOADS, content=content, headers=sent),
        api.post(UPLOADS, content=iter([content]), headers=sent),
    ):
        assert made.status_code == 201, made.text
        assert made.json()["media_type"] == "application/json"


def test_a_part_that_is_refused_is_not_the_end(api: httpx.Client) -> None:
    wrong = AT_4 | WHOLE | {"Content-Digest": digest(b"x")}
    refused = api.patch(make(api, "draft"), content=REST, headers=wrong)
    assert (refused.status_code, refused.headers["Upload-Complete"]) == (422, "?0")


def test_a_part_has_a_digest_of_its_own_at_a_key(api: httpx.Client) -> None:
    both = {"Content-Digest": digest(CONTENT[:4]), "Repr-Digest": digest(CONTENT)}
    named = f"/b/media/digests-{secrets.token_hex(3)}"
    made = api.put(named, content=CONTENT[:4], headers=MORE | both)
    assert made.status_code == 201, made.text
    assert api.patch(made.headers["Location"], content=REST, headers=AT_4 | WHOLE).status_code == 201
    assert api.get(named).content == CONTENT


def test_a_part_has_a_digest_of_its_own(api: httpx.Client) -> None:
    both = {"Content-Digest": digest(CONTENT[:4]), "Repr-Digest": digest(CONTENT)}
    for rest, status in ((REST, 201), (b"xxxxxx", 422)):
        made = api.post(UPLOADS, content=CONTENT[:4], headers=MORE | both)
        assert made.status_code == 201, made.text
        done = api.patch(made.headers["Location"], content=rest, headers=AT_4 | WHOLE)
        assert done.status_code == status, done.text


def test_a_put_that_is_not_the_whole_goes_on_elsewhere(api: httpx.Client) -> None:
    named = f"/b/media/put-{secrets.token_hex(3)}/größer.txt"
    made = api.put(
        named, content=CONTENT[:4], headers=MORE | {"X-Meta-Colour": "blue", "Content-Type": "text/plain"}
    )
    assert made.status_code == 201, made.text
    assert api.get(named).status_code == 404
    done = api.patch(made.headers["Location"], content=REST, headers=AT_4 | WHOLE)
    assert done.status_code == 201
    asset = done.json()
    assert (asset["metadata"]["colour"], asset["media_type"]) == ("blue", "text/plain")
    assert f"/b/media/{asset['key']}" == named
    found = api.get(named)
    assert (found.content, found.headers["ETag"]) == (CONTENT, done.headers["ETag"])


def test_conditions_count_at_the_beginning_and_at_the_end(api: httpx.Client) -> None:
    named, new = f"/b/media/if-{secrets.token_hex(3)}", {"If-None-Match": "*"}
    made = api.put(named, content=CONTENT[:4], headers=MORE | new)
    assert made.status_code == 201
    assert api.put(named, content=b"faster").status_code == 201
    late = api.patch(made.headers["Location"], content=REST, headers=AT_4 | WHOLE)
    assert late.status_code == 412
    assert api.get(named).content == b"faster"
    assert api.put(named, content=CONTENT[:4], headers=MORE | new).status_code == 412


# --- the 104


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("behind") / "data", MEDIASVC_DELIVERY="nginx") as server:
        yield server


def informed(server: Server, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """All that is told before the first byte of the body is sent, and all after it."""
    said = server.headers | {"Content-Length": str(len(body)), "Connection": "close"} | headers
    with wire.connect(server.url) as connection:
        connection.sendall(wire.head(method, path, said))
        before = b""
        if body:
            connection.settimeout(0.7)
            try:
                while b"\r\n\r\n" not in before:
                    before += connection.recv(4096)
            except TimeoutError:
                pass
            connection.settimeout(30)
            connection.sendall(body)
        after = wire.read_to_end(connection)
        assert not body or b"HTTP/1.1 104" not in after, "before the body, or not at all"
        return before + after


PLACES: dict[str, Callable[[], tuple[str, str]]] = {
    "POST": lambda: ("POST", UPLOADS),
    "PUT": lambda: ("PUT", f"/b/media/informed-{secrets.token_hex(4)}"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("body", [b"", CONTENT], ids=["nothing", "a body"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_upload_is_told_before_its_body(
    each_server: Server, api: httpx.Client, version: int, body: bytes, place: Callable[[], tuple[str, str]]
) -> None:
    whole = {"Upload-Incomplete": "?0"} if version == 3 else WHOLE
    method, path = place()
    came = informed(each_server, method, path, whole | {"Upload-Draft-Interop-Version": str(version)}, body)
    first, _, rest = came.partition(b"\r\n\r\n")
    lines = first.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 104 Upload Resumption Supported"
    told = dict(line.split(": ", 1) for line in lines[1:])
    assert told["Upload-Draft-Interop-Version"] == str(version)
    assert told["Upload-Limit"]
    assert rest.startswith(b"HTTP/1.1 201 ")
    state = api.get(target(told["Location"])).json()
    assert (state["state"], state["asset"]["size"]) == ("complete", len(body))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Draft-Interop-Version": "2"},
        {"Upload-Draft-Interop-Version": "9"},
        {"Upload-Draft-Interop-Version": "eight"},
        {"Upload-Draft-Interop-Version": "8, 8"},
        {"Upload-Draft-Interop-Version": "8", "Via": "1.1 somebody"},
        {"Upload-Draft-Interop-Version": "8", "Forwarded": "for=192.0.2.1"},
        {"Upload-Draft-Interop-Version": "8", "X-Forwarded-For": "192.0.2.1"},
        {"Upload-Draft-Interop-Version": "8", "X-Forwarded-Proto": "https"},
        {"Upload-Draft-Interop-Version": "8", "X-Forwarded-Anything": ""},
        {"Upload-Draft-Interop-Version": "8", "Tus-Resumable": "1.0.0", "Upload-Length": "0"},
    ],
    ids=str,
)
def test_who_may_not_take_a_104_gets_none(each_server: Server, headers: dict[str, str]) -> None:
    for body in (b"", CONTENT) if "Tus-Resumable" not in headers else (b"",):
        came = informed(each_server, "POST", UPLOADS, WHOLE | headers, body)
        assert came.startswith(b"HTTP/1.1 201 "), came[:200]


@pytest.mark.parametrize("body", [b"", CONTENT], ids=["nothing", "a body"])
def test_with_nginx_in_front_there_is_no_104(behind: Server, body: bytes) -> None:
    said = WHOLE | {"Upload-Draft-Interop-Version": "8"}
    assert informed(behind, "POST", UPLOADS, said, body).startswith(b"HTTP/1.1 201 ")


def test_a_refusal_has_no_104(each_server: Server) -> None:
    said = WHOLE | {"Upload-Draft-Interop-Version": "8", "Upload-Metadata": "bucket bm93aGVyZQ=="}
    assert informed(each_server, "POST", UPLOADS, said, b"").startswith(b"HTTP/1.1 404 ")


def test_an_upload_whose_answer_got_lost_goes_on_where_the_104_said(
    each_server: Server, api: httpx.Client
) -> None:
    said = each_server.headers | WHOLE | {"Upload-Draft-Interop-Version": "8", "Content-Length": "3000000"}
    content = bytes(range(250)) * 12_000
    with each_server.request_ends("POST", UPLOADS), wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("POST", UPLOADS, said))
        told = httpx.Headers(
            [line.split(": ", 1) for line in connection.recv(4096).decode().split("\r\n")[1:] if line]  # type: ignore[misc]
        )
        connection.sendall(content[:2_000_000])
    url = target(told["Location"])
    offset = int(api.head(url, headers=WHOLE).headers["Upload-Offset"])
    assert offset > 0
    done = api.patch(url, content=content[offset:], headers=PARTIAL | WHOLE | {"Upload-Offset": str(offset)})
    assert done.status_code == 201, done.text
    assert api.get(done.json()["url"]).content == content


def test_it_goes_through_nginx(tmp_path: Path) -> None:
    """What nginx takes for an answer, nobody gets: all of it works through it, and on the same connection."""
    said = {"Upload-Draft-Interop-Version": "8"}
    with servers.behind_nginx(tmp_path / "data") as server, server.client() as client:
        for _ in range(3):
            made = client.post(UPLOADS, content=CONTENT[:4], headers=said | MORE)
            assert made.status_code == 201, made.text
            assert made.headers["Location"].startswith(f"{server.url}{UPLOADS}/")
            url = made.headers["Location"]
            assert client.head(url, headers=said).headers["Upload-Offset"] == "4"
            conflict = client.patch(
                url, content=CONTENT, headers=said | PARTIAL | MORE | {"Upload-Offset": "0"}
            )
            assert (conflict.status_code, conflict.headers["Upload-Offset"]) == (409, "4")
            done = client.patch(url, content=REST, headers=said | AT_4 | WHOLE)
            assert done.status_code == 201, done.text
            assert client.get(f"/f/{done.json()['id']}/x").content == CONTENT
            whole = client.put("/b/media/through", content=CONTENT, headers=said | WHOLE)
            assert whole.status_code in (200, 201)
        broken = server.headers | said | WHOLE | {"Content-Length": "20000000"}
        made = client.post(UPLOADS, headers=said | MORE)
        url = made.headers["Location"]
        with wire.connect(server.url) as connection:
            connection.sendall(
                wire.head("PATCH", target(url), broken | PARTIAL | {"Upload-Offset": "0"}) + bytes(9_000_000)
            )
            time.sleep(1)  # what has not come through nginx yet is not ours to keep
        assert int(client.head(url, headers=said).headers["Upload-Offset"]) > 0
        server.check_leftovers()
