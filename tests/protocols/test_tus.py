"""tus 1.0 over the wire, one row for each requirement that can be seen from outside: `Cn` core, `Rn` creation, `Dn`
deferred length, `Wn` creation with upload, `En` expiration, `Kn` checksum, `Tn` termination, `Nn` concatenation."""

import socket
import time
import zlib
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from tests.protocols import wire
from tests.protocols.uploading import (
    CONTENT,
    OCTETS,
    TUS,
    UPLOADS,
    Row,
    asset_of,
    b64,
    checksum,
    concatenation,
    create,
    digest,
    make,
    metadata,
    offset_of,
    patch,
    target,
    upload,
)
from tests.servers import Server, behind_nginx, running

REST = CONTENT[4:]
AT_4 = OCTETS | {"Upload-Offset": "4"}
AT_10 = OCTETS | {"Upload-Offset": "10"}
GONE = {"Upload-Offset": None}
PROBLEM = {"Content-Type": "application/problem+json"}
EXTENSIONS = (
    "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"
)
OFFERED = {
    "Tus-Version": "1.0.0",
    "Tus-Extension": EXTENSIONS,
    "Tus-Checksum-Algorithm": "sha1,sha256,md5,crc32",
}
NO_COUNTS = ["-1", "1e0", "0x0", "", "+4", "4.0", "four", "4 4", "9" * 19, "1" + "0" * 40]


def at(offset: str) -> list[tuple[str, str]]:
    return [*OCTETS.items(), ("Upload-Offset", offset)]


ROWS: dict[str, Row] = {
    **{f"C1 PATCH at {value!r}": Row("open", "PATCH", at(value), 400, PROBLEM, REST) for value in NO_COUNTS},
    **{
        f"C1 POST of length {value!r}": Row(
            "creation", "POST", [("Upload-Length", value)], 400, {"Location": None}
        )
        for value in NO_COUNTS
        if value != "9" * 19
    },
    "C1 an offset said twice": Row("open", "PATCH", [*at("4"), ("Upload-Offset", "4")], 400, body=REST),
    "C1 two offsets": Row("open", "PATCH", [*at("4"), ("Upload-Offset", "0")], 400, body=REST),
    "C1 no offset": Row("open", "PATCH", OCTETS, 400, body=REST),
    "C1 a length said twice": Row(
        "creation", "POST", [("Upload-Length", "10"), ("Upload-Length", "10")], 400
    ),
    "C2 C5 C20 OPTIONS": Row("creation", "OPTIONS", {}, 204, OFFERED),
    "C20 OPTIONS of an upload": Row("open", "OPTIONS", {}, 204, OFFERED),
    "C4 POST": Row(
        "creation",
        "POST",
        [("Upload-Length", "10"), ("Tus-Resumable", "1.0.1")],
        412,
        {"Tus-Version": "1.0.0"},
    ),
    "C7 PATCH": Row(
        "open", "POST", AT_4 | {"X-HTTP-Method-Override": "PATCH"}, 204, {"Upload-Offset": "10"}, REST, 10
    ),
    "C7 HEAD": Row("open", "POST", {"X-HTTP-Method-Override": "HEAD"}, 200, {"Upload-Offset": "4"}),
    "C7 DELETE": Row("open", "POST", {"X-HTTP-Method-Override": "DELETE"}, 204, offset=None),
    "C7 nonsense": Row("open", "POST", {"X-HTTP-Method-Override": "EXPLODE"}, 405, {"Allow": "*"}),
    "C8 C9 C11 C12 HEAD": Row(
        "open",
        "HEAD",
        {},
        200,
        {"Upload-Offset": "4", "Upload-Length": "10", "Cache-Control": "no-store", "Upload-Expires": "*"},
    ),
    "C8 HEAD at 0": Row("begun", "HEAD", {}, 200, {"Upload-Offset": "0"}, offset=0),
    "C8 HEAD of a complete one": Row(
        "complete", "HEAD", {}, 200, {"Upload-Offset": "10", "Upload-Length": "10"}, offset=10
    ),
    "C10 HEAD of none": Row("unknown", "HEAD", {}, 404, GONE, offset=None),
    "C10 T2 HEAD of a discarded one": Row("discarded", "HEAD", {}, 404, GONE, offset=None),
    "C13 C16 PATCH": Row("open", "PATCH", AT_4, 204, {"Upload-Offset": "10"}, REST, 10),
    "C16 PATCH of some": Row("open", "PATCH", AT_4, 204, {"Upload-Offset": "6"}, REST[:2], 6),
    "C16 PATCH of nothing": Row("open", "PATCH", AT_4, 204, {"Upload-Offset": "4"}),
    "C14 no type": Row("open", "PATCH", {"Upload-Offset": "4"}, 415, PROBLEM, REST),
    "C14 another type": Row(
        "open", "PATCH", AT_4 | {"Content-Type": "application/octet-stream"}, 415, PROBLEM, REST
    ),
    "C14 the draft's type": Row(
        "open", "PATCH", AT_4 | {"Content-Type": "application/partial-upload"}, 415, PROBLEM, REST
    ),
    "C14 parameters do not matter": Row(
        "open", "PATCH", AT_4 | {"Content-Type": "Application/Offset+Octet-Stream; x=1"}, 204, {}, REST, 10
    ),
    "C15 before": Row("open", "PATCH", at("0"), 409, {"Upload-Offset": "4"}, CONTENT),
    "C15 after": Row("open", "PATCH", at("5"), 409, {"Upload-Offset": "4"}, b"56789"),
    "C15 the largest": Row("open", "PATCH", at(str(2**63 - 1)), 409, {"Upload-Offset": "4"}, b""),
    "C15 of a complete one": Row("complete", "PATCH", AT_4, 409, {"Upload-Offset": "10"}, REST, 10),
    "C15 too many for a complete one": Row("complete", "PATCH", at("10"), 409, {}, b"x", 10),
    "C16 the last answer once more": Row(
        "complete", "PATCH", at("10"), 204, {"Upload-Offset": "10"}, offset=10
    ),
    "C17 PATCH of none": Row("unknown", "PATCH", AT_4, 404, GONE, REST, None),
    "C17 PATCH of a discarded one": Row("discarded", "PATCH", AT_4, 404, GONE, REST, None),
    "longer than announced": Row("open", "PATCH", AT_4, 413, {}, REST + b"!"),
    "GET is for everybody": Row("open", "GET", {}, 200, {"Content-Type": "application/json"}),
    "a method that is none": Row("open", "PROPFIND", {}, 405, {"Allow": "*"}),
    "a method that is none, where uploads begin": Row("creation", "PATCH", AT_4, 405, {"Allow": "*"}, REST),
    "R2 no length": Row("creation", "POST", {}, 400),
    "R2 both": Row("creation", "POST", {"Upload-Length": "1", "Upload-Defer-Length": "1"}, 400),
    "R3 0": Row("creation", "POST", {"Upload-Defer-Length": "0"}, 400),
    "R3 true": Row("creation", "POST", {"Upload-Defer-Length": "true"}, 400),
    "R3 twice": Row("creation", "POST", [("Upload-Defer-Length", "1")] * 2, 400),
    "R6 E2 a creation": Row(
        "creation",
        "POST",
        {"Upload-Length": "10"},
        201,
        {"Location": "*", "Upload-Expires": "*", "Content-Location": "*", "Upload-Offset": "0"},
    ),
    "R7 a value that is empty": Row(
        "creation", "POST", {"Upload-Length": "1", "Upload-Metadata": "a,b ,filename eA=="}, 201
    ),
    "R7 a key twice": Row(
        "creation", "POST", {"Upload-Length": "1", "Upload-Metadata": "a YQ==,a YQ=="}, 400
    ),
    "R7 no key": Row("creation", "POST", {"Upload-Length": "1", "Upload-Metadata": "a YQ==,,b YQ=="}, 400),
    "R7 no base64": Row("creation", "POST", {"Upload-Length": "1", "Upload-Metadata": "a @@@@"}, 400),
    "R7 a bomb of pairs": Row(
        "creation",
        "POST",
        {"Upload-Length": "1", "Upload-Metadata": ",".join(f"k{number} YQ==" for number in range(2000))},
        400,
    ),
    "R7 a bomb of one value": Row(
        "creation", "POST", {"Upload-Length": "1", "Upload-Metadata": "a " + b64(bytes(30_000))}, 400
    ),
    "R9 a key with a way out": Row(
        "creation",
        "POST",
        {"Upload-Length": "1", "Upload-Metadata": metadata(key="../../../etc/passwd")},
        400,
    ),
    "a bucket that is not there": Row(
        "creation", "POST", {"Upload-Length": "1", "Upload-Metadata": metadata(bucket="nowhere")}, 404
    ),
    "a bucket that is no name": Row(
        "creation", "POST", {"Upload-Length": "1", "Upload-Metadata": metadata(bucket="../x")}, 404
    ),
    "D2 HEAD": Row(
        "deferred",
        "HEAD",
        {},
        200,
        {"Upload-Defer-Length": "1", "Upload-Length": None, "Upload-Offset": "4"},
    ),
    "D3 a PATCH tells": Row("deferred", "PATCH", AT_4 | {"Upload-Length": "10"}, 204, {}, REST, 10),
    "D3 an empty PATCH tells": Row("deferred", "PATCH", AT_4 | {"Upload-Length": "10"}, 204, {}),
    "D3 an empty PATCH ends it": Row(
        "deferred", "PATCH", AT_4 | {"Upload-Length": "4"}, 204, {"Upload-Offset": "4"}
    ),
    "D3 less than is there": Row("deferred", "PATCH", AT_4 | {"Upload-Length": "3"}, 400, {}, REST),
    "D3 less than comes": Row("deferred", "PATCH", AT_4 | {"Upload-Length": "9"}, 413, {}, REST),
    "D3 no number": Row("deferred", "PATCH", AT_4 | {"Upload-Length": "x"}, 400, {}, REST),
    "D4 it never changes": Row("open", "PATCH", AT_4 | {"Upload-Length": "11"}, 400, {}, REST),
    "D4 the same once more": Row("open", "PATCH", AT_4 | {"Upload-Length": "10"}, 204, {}, REST, 10),
    "D4 the same once more, of a complete one": Row(
        "complete", "PATCH", AT_10 | {"Upload-Length": "10"}, 204, {}, offset=10
    ),
    **{
        f"D4 it never changes, {at}": Row(at, "PATCH", AT_10 | {"Upload-Length": "11"}, 400, offset=10)
        for at in ("complete", "whole partial")
    },
    "W2 another type": Row(
        "creation",
        "POST",
        {"Upload-Length": "10", "Content-Type": "text/plain"},
        415,
        {"Location": None},
        b"0",
    ),
    "W3 some": Row(
        "creation",
        "POST",
        OCTETS | {"Upload-Length": "10"},
        201,
        {"Upload-Offset": "4", "Location": "*"},
        CONTENT[:4],
    ),
    "W3 all": Row(
        "creation", "POST", OCTETS | {"Upload-Length": "10"}, 201, {"Upload-Offset": "10"}, CONTENT
    ),
    "W3 too much": Row("creation", "POST", OCTETS | {"Upload-Length": "9"}, 413, {"Location": None}, CONTENT),
    "W3 of a length that is not known": Row(
        "creation", "POST", OCTETS | {"Upload-Defer-Length": "1"}, 201, {"Upload-Offset": "10"}, CONTENT
    ),
    "E2 PATCH": Row("open", "PATCH", AT_4, 204, {"Upload-Expires": "*"}, REST[:1], 5),
    "K3 an unknown algorithm": Row(
        "open", "PATCH", AT_4 | {"Upload-Checksum": f"sha512 {b64(bytes(64))}"}, 400, {}, REST
    ),
    "K3 SHA1 in capitals": Row(
        "open", "PATCH", AT_4 | {"Upload-Checksum": f"SHA1 {b64(bytes(20))}"}, 400, {}, REST
    ),
    "K3 a mismatch": Row("open", "PATCH", AT_4 | {"Upload-Checksum": checksum("sha1", b"x")}, 460, {}, REST),
    "K3 a mismatch of some": Row(
        "open", "PATCH", AT_4 | {"Upload-Checksum": checksum("sha1", b"x")}, 460, {}, REST[:2]
    ),
    "K3 a mismatch of nothing": Row("open", "PATCH", AT_4 | {"Upload-Checksum": checksum("sha1", b"x")}, 460),
    "K3 a mismatch at the creation": Row(
        "creation",
        "POST",
        OCTETS | {"Upload-Length": "10", "Upload-Checksum": checksum("sha1", b"x")},
        460,
        {"Location": None},
        CONTENT,
    ),
    **{
        f"K3 a mismatch of nothing at the creation, {what}": Row(
            "creation",
            "POST",
            how | {"Upload-Checksum": checksum("sha1", b"x")},
            460,
            {"Location": None},
        )
        for what, how in {
            "of a length": {"Upload-Length": "10"},
            "of length 0": {"Upload-Length": "0"},
            "of no known length": {"Upload-Defer-Length": "1"},
            "of a partial": {"Upload-Length": "10", "Upload-Concat": "partial"},
        }.items()
    },
    "K3 nothing at the creation, rightly": Row(
        "creation", "POST", {"Upload-Length": "10", "Upload-Checksum": checksum("sha1", b"")}, 201
    ),
    **{
        f"K3 a mismatch in the last request once more, {at}": Row(
            at, "PATCH", AT_10 | {"Upload-Checksum": checksum("sha1", b"x")}, 460, offset=10
        )
        for at in ("complete", "whole partial")
    },
    "K3 the last request once more, rightly": Row(
        "complete", "PATCH", AT_10 | {"Upload-Checksum": checksum("sha1", b"")}, 204, offset=10
    ),
    "K3 Content-Digest": Row("open", "PATCH", AT_4 | {"Content-Digest": digest(REST)}, 204, {}, REST, 10),
    "K3 Content-Digest of something else": Row(
        "open", "PATCH", AT_4 | {"Content-Digest": digest(b"x")}, 422, {}, REST
    ),
    "K3 Content-Digest of something else, of nothing": Row(
        "open", "PATCH", AT_4 | {"Content-Digest": digest(b"x")}, 422
    ),
    "K3 Content-Digest of no kind that is compared": Row(
        "open", "PATCH", AT_4 | {"Content-Digest": "md5=:AAAA:"}, 400, {}, REST
    ),
    "K3 Content-Digest of something else at the creation": Row(
        "creation",
        "POST",
        OCTETS | {"Upload-Length": "10", "Content-Digest": digest(b"x")},
        422,
        {"Location": None},
        CONTENT,
    ),
    "K3 Content-Digest of something else in the last request once more": Row(
        "complete", "PATCH", AT_10 | {"Content-Digest": digest(b"x")}, 422, offset=10
    ),
    "K3 Content-Digest and Upload-Checksum": Row(
        "open",
        "PATCH",
        AT_4 | {"Content-Digest": digest(REST), "Upload-Checksum": checksum("md5", REST)},
        204,
        {},
        REST,
        10,
    ),
    "K3 Content-Digest is right, Upload-Checksum is not": Row(
        "open",
        "PATCH",
        AT_4 | {"Content-Digest": digest(REST), "Upload-Checksum": checksum("md5", b"x")},
        460,
        {},
        REST,
    ),
    "K3 Upload-Checksum is right, Content-Digest is not": Row(
        "open",
        "PATCH",
        AT_4 | {"Content-Digest": digest(b"x"), "Upload-Checksum": checksum("md5", REST)},
        422,
        {},
        REST,
    ),
    "K3 a digest that is too short": Row(
        "open", "PATCH", AT_4 | {"Upload-Checksum": f"sha1 {b64(b'short')}"}, 400, {}, REST
    ),
    "K3 no base64": Row("open", "PATCH", AT_4 | {"Upload-Checksum": "sha1 ????"}, 400, {}, REST),
    "K3 no digest": Row("open", "PATCH", AT_4 | {"Upload-Checksum": "sha1"}, 400, {}, REST),
    "K3 two of them": Row(
        "open",
        "PATCH",
        [*at("4"), *[("Upload-Checksum", checksum("sha1", REST))] * 2],
        400,
        {},
        REST,
    ),
    **{
        f"K2 {algorithm}": Row(
            "open",
            "PATCH",
            AT_4 | {"Upload-Checksum": checksum(algorithm, REST)},
            204,
            {"Upload-Offset": "10"},
            REST,
            10,
        )
        for algorithm in ("sha1", "sha256", "md5")
    },
    "K2 crc32": Row(
        "open",
        "PATCH",
        AT_4 | {"Upload-Checksum": f"crc32 {b64(zlib.crc32(REST).to_bytes(4, 'big'))}"},
        204,
        {},
        REST,
        10,
    ),
    "T2 DELETE": Row("open", "DELETE", {}, 204, offset=None),
    "T2 DELETE of a complete one": Row("complete", "DELETE", {}, 204, offset=None),
    "T2 DELETE of a partial": Row("whole partial", "DELETE", {}, 204, offset=None),
    "T2 DELETE of a final": Row("final", "DELETE", {}, 204, offset=None),
    "T2 DELETE once more": Row("discarded", "DELETE", {}, 404, offset=None),
    "N2 nonsense": Row("creation", "POST", {"Upload-Concat": "whole", "Upload-Length": "1"}, 400),
    "N2 a final of nothing": Row("creation", "POST", {"Upload-Concat": "final;"}, 400),
    "N2 a final of what is none": Row(
        "creation", "POST", concatenation(f"{UPLOADS}/upl_nothing"), 404, {"Location": None}
    ),
    **{
        f"N2 a final of {url}": Row("creation", "POST", concatenation(url), 400, {"Location": None})
        for url in (
            "http://[/",
            f"http://evil.example{UPLOADS}/upl_x",
            f"//evil.example{UPLOADS}/upl_x",
            "/elsewhere/upl_x",
            f"{UPLOADS}/",
        )
    },
    "N3 a final with a length": Row(
        "creation", "POST", concatenation("/v1/uploads/upl_x") | {"Upload-Length": "1"}, 400
    ),
    "N6 PATCH of a final": Row("final", "PATCH", at("10"), 403, {}, b"x", 10),
    "N7 HEAD of a partial": Row(
        "partial", "HEAD", {}, 200, {"Upload-Offset": "4", "Upload-Concat": "partial", "Upload-Length": "10"}
    ),
    "N7 HEAD of a final": Row(
        "final",
        "HEAD",
        {},
        200,
        {"Upload-Offset": "10", "Upload-Concat": "*", "Upload-Length": "10"},
        offset=10,
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_requirement_is_met(api: httpx.Client, row: Row) -> None:
    url = make(api, row.at)
    said = dict(row.headers) if row.method != "OPTIONS" else {}
    answer = row.ask(api, url, TUS if "Tus-Resumable" not in said else {})
    row.check(answer)
    assert answer.headers["Tus-Resumable"] == "1.0.0", "C3"
    if row.at == "creation":
        return
    afterwards = api.head(url, headers=TUS)
    assert afterwards.headers["Tus-Resumable"] == "1.0.0"
    if row.offset is None:
        assert afterwards.status_code == 404
        return
    assert afterwards.headers["Upload-Offset"] == str(row.offset)
    if row.status >= 400 and row.at in ("open", "deferred"):
        # Whatever it was refused for, what is sent next is taken, and nothing of what was refused is there.
        assert patch(api, url, 4, REST, Upload_Length="10").status_code == 204
        assert asset_of(api, url).content == CONTENT


@pytest.mark.parametrize("at", ["open", "complete", "partial", "final", "unknown"])
@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_another_version_is_refused_before_anything_happens(api: httpx.Client, method: str, at: str) -> None:
    url = make(api, at)
    headers = AT_4 | {"Tus-Resumable": "0.2.2"}
    answer = api.request(method, url, content=REST if method == "PATCH" else None, headers=headers)
    assert answer.status_code == 412
    assert (answer.headers["Tus-Version"], answer.headers["Tus-Resumable"]) == ("1.0.0", "1.0.0")
    if at != "unknown":
        assert offset_of(api, url) == (4 if at in ("open", "partial") else 10)


def test_a_version_that_is_refused_is_refused_without_its_body(
    each_server: Server, api: httpx.Client
) -> None:
    url = make(api, "open")
    headers = each_server.headers | AT_4 | {"Tus-Resumable": "2.0.0", "Expect": "100-continue"}
    raw = wire.head("PATCH", target(url), headers | {"Content-Length": "6"})
    with wire.connect(each_server.url) as connection:
        connection.sendall(raw)
        answer = wire.read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 412 ")


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.0"])
def test_options_are_told_to_everybody(api: httpx.Client, nobody: httpx.Client, version: str | None) -> None:
    for client in (api, nobody):
        answer = client.options(UPLOADS, headers={"Tus-Resumable": version} if version else {})
        assert answer.status_code == 204
        assert {name: answer.headers[name] for name in OFFERED} == OFFERED
        assert "Upload-Limit" in answer.headers
        assert set(answer.headers["Allow"].split(", ")) >= {"POST", "OPTIONS"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", UPLOADS),
        ("HEAD", f"{UPLOADS}/upl_x"),
        ("PATCH", f"{UPLOADS}/upl_x"),
        ("DELETE", f"{UPLOADS}/upl_x"),
    ],
)
def test_who_has_no_key_is_told_so_in_tus(nobody: httpx.Client, method: str, path: str) -> None:
    for headers in (TUS, TUS | {"Authorization": "Bearer msk_guessed"}):
        answer = nobody.request(method, path, headers=headers | {"Upload-Length": "1"})
        assert (answer.status_code, answer.headers["Tus-Resumable"]) == (401, "1.0.0")


def test_a_browser_may_do_all_of_it(nobody: httpx.Client, api: httpx.Client) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,tus-resumable,upload-offset,upload-checksum",
    }
    for path in (UPLOADS, f"{UPLOADS}/upl_x"):
        leave = nobody.options(path, headers=asked)
        assert leave.status_code == 204
        methods = set(leave.headers["Access-Control-Allow-Methods"].replace(" ", "").split(","))
        assert methods >= {"POST", "PATCH", "HEAD", "DELETE", "PUT"}
        allowed = leave.headers["Access-Control-Allow-Headers"].lower().replace(" ", "").split(",")
        assert set(asked["Access-Control-Request-Headers"].split(",")) <= set(allowed)
    for answer in (
        api.head(make(api, "open"), headers=TUS | {"Origin": "https://app.example"}),
        nobody.head(f"{UPLOADS}/upl_x", headers=TUS | {"Origin": "https://app.example"}),
    ):
        exposed = set(answer.headers["Access-Control-Expose-Headers"].replace(" ", "").split(","))
        assert exposed >= {
            *("Location", "Content-Location", "Upload-Offset", "Upload-Length", "Upload-Metadata", "ETag"),
            *("Upload-Defer-Length", "Upload-Concat", "Upload-Expires", "Upload-Complete", "Upload-Limit"),
            *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
        }


def test_the_location_is_absolute(each_server: Server, api: httpx.Client) -> None:
    url = create(api, 10)
    assert url.startswith(f"{each_server.url}{UPLOADS}/upl_")
    assert len(url.rpartition("/")[2]) >= 26, "hard to guess"


@pytest.mark.parametrize("length", [0, 1])
def test_an_upload_of_length_0_is_complete_at_once(api: httpx.Client, length: int) -> None:
    made = api.post(UPLOADS, headers=TUS | {"Upload-Length": str(length)})
    url = made.headers["Location"]
    assert api.get(url).json()["state"] == ("open" if length else "complete")
    if not length:
        assert asset_of(api, url).content == b""
        assert httpx.URL(made.headers["Content-Location"]).path.startswith("/f/ast_")


def test_metadata_come_back_exactly_as_they_were_sent(api: httpx.Client) -> None:
    said = (
        f"filename {b64('größer.txt')},raw {b64(bytes(range(256)))},empty,spaced , filetype  dGV4dC9wbGFpbg=="
    )
    made = api.post(UPLOADS, headers=TUS | {"Upload-Length": "10", "Upload-Metadata": said})
    if made.status_code == 400:  # two spaces are no base64
        said = said.replace("  ", " ")
        made = api.post(UPLOADS, headers=TUS | {"Upload-Length": "10", "Upload-Metadata": said})
    assert made.status_code == 201, made.text
    url = made.headers["Location"]
    assert api.head(url, headers=TUS).headers["Upload-Metadata"] == said
    patch(api, url, 0, CONTENT)
    assert api.head(url, headers=TUS).headers["Upload-Metadata"] == said
    asset = api.get(url).json()["asset"]
    assert asset["name"] == "größer.txt"


def test_the_key_and_the_name_are_the_clients(api: httpx.Client) -> None:
    said = metadata(
        bucket="media", key="a folder/ein Bild.bin", filename="../../evil\\name.bin", colour="blue"
    )
    url = create(api, 10, CONTENT, Upload_Metadata=said)
    asset = api.get(url).json()["asset"]
    assert (asset["key"], asset["bucket"]) == ("a folder/ein Bild.bin", "media")
    assert "/" not in asset["name"]
    assert "\\" not in asset["name"]
    assert asset["metadata"]["colour"] == "blue"
    assert api.get("/b/media/a%20folder/ein%20Bild.bin").content == CONTENT


def test_an_append_moves_the_expiry_on(api: httpx.Client) -> None:
    made = api.post(UPLOADS, headers=TUS | {"Upload-Length": "10"})
    first = parsedate_to_datetime(made.headers["Upload-Expires"])
    url = made.headers["Location"]
    appended = patch(api, url, 0, CONTENT[:4])
    second = parsedate_to_datetime(appended.headers["Upload-Expires"])
    assert second >= first
    assert parsedate_to_datetime(api.head(url, headers=TUS).headers["Upload-Expires"]) == second


def test_a_client_waits_for_leave_to_send(each_server: Server) -> None:
    headers = each_server.headers | TUS | OCTETS | {"Upload-Length": "10", "Content-Length": "10"}
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("POST", UPLOADS, headers | {"Expect": "100-continue"}))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(CONTENT)
        answer = wire.read_answer(connection, "POST")
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "10")


def send_some(server: Server, url: str, body: bytes, **headers: str) -> None:
    """Announce one byte more than is sent, then hang up."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    said = server.headers | TUS | AT_4 | {"Content-Length": str(len(body) + 1)} | named
    with wire.connect(server.url) as connection:
        connection.sendall(wire.head("PATCH", target(url), said) + body)
        time.sleep(0.3)  # what is on its way to us when the line breaks may get lost
        connection.shutdown(socket.SHUT_WR)
        wire.read_to_end(connection)


@pytest.mark.parametrize("size", [3, 70_000, 3 << 20])
def test_what_came_before_the_line_broke_is_kept(each_server: Server, api: httpx.Client, size: int) -> None:
    content = CONTENT[:4] + bytes(size) + b"the rest"
    url = create(api, len(content), content[:4])
    send_some(each_server, url, bytes(size))
    assert offset_of(api, url) == 4 + size
    assert patch(api, url, 4 + size, b"the rest").status_code == 204
    assert asset_of(api, url).content == content


def test_what_came_before_the_line_broke_does_not_count_with_a_checksum(
    each_server: Server, api: httpx.Client
) -> None:
    url = make(api, "open")
    send_some(each_server, url, b"xyz", Upload_Checksum=checksum("sha1", REST))
    assert offset_of(api, url) == 4
    assert patch(api, url, 4, REST).status_code == 204
    assert asset_of(api, url).content == CONTENT


@pytest.mark.parametrize("size", [7, 70_000, 3 << 20])
def test_a_body_without_a_length_that_is_too_long_changes_nothing(api: httpx.Client, size: int) -> None:
    url = make(api, "open")
    headers = TUS | AT_4
    answer = api.patch(url, content=iter([bytes(3), bytes(size - 3)]), headers=headers)
    assert answer.status_code == 413
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert offset_of(api, url) == 4
    assert patch(api, url, 4, REST).status_code == 204
    assert asset_of(api, url).content == CONTENT


@pytest.mark.parametrize(
    "length", ["-1", "1e3", "6, 6", "6\r\nContent-Length: 5", "99999999999999999999", "0x6", ""]
)
def test_a_body_whose_length_is_no_number_is_no_request(
    each_server: Server, api: httpx.Client, length: str
) -> None:
    url = make(api, "open")
    headers = each_server.headers | TUS | AT_4 | {"Content-Length": length}
    assert wire.exchange(each_server.url, wire.head("PATCH", target(url), headers) + REST).status in (
        400,
        413,
    )
    assert offset_of(api, url) == 4


def test_partials_become_one_in_the_order_that_is_asked_for(each_server: Server, api: httpx.Client) -> None:
    one, two = (create(api, 5, part, Upload_Concat="partial") for part in (CONTENT[:5], CONTENT[5:]))
    relative = target(one)
    for parts, expected in (
        ((one, two), CONTENT),
        ((two, one), CONTENT[5:] + CONTENT[:5]),
        ((relative, one, two), CONTENT[:5] + CONTENT),
        ((one.removeprefix("http:"), two.rpartition("/")[2]), CONTENT),
    ):
        said = metadata(filename="joined.bin")
        final = api.post(UPLOADS, headers=TUS | concatenation(*parts) | {"Upload-Metadata": said})
        assert final.status_code == 201, final.text
        assert "Upload-Expires" not in final.headers
        url = final.headers["Location"]
        told = api.head(url, headers=TUS).headers
        assert told["Upload-Concat"] == concatenation(*parts)["Upload-Concat"]
        assert told["Upload-Metadata"] == said
        assert told["Upload-Offset"] == told["Upload-Length"] == str(len(expected))
        assert asset_of(api, url).content == expected


def test_a_part_of_a_final_is_named_by_a_url_of_ours(tmp_path: Path) -> None:
    public = "https://media.example/files"
    with running(tmp_path / "data", MEDIASVC_PUBLIC_URL=public) as server, server.client() as client:
        part = create(client, 10, CONTENT, Upload_Concat="partial")
        upload_id = part.removeprefix(f"{public}{UPLOADS}/")
        for ours in (
            part,
            f"http://media.example:80/files{UPLOADS}/{upload_id}",
            f"/files{UPLOADS}/{upload_id}",
            f"{server.url}{UPLOADS}/{upload_id}",
            f"{UPLOADS}/{upload_id}",
            f"uploads/{upload_id}",
            upload_id,
        ):
            made = client.post(UPLOADS, headers=TUS | concatenation(ours))
            assert made.status_code == 201, ours
        for other in (
            f"https://evil.example/files{UPLOADS}/{upload_id}",
            f"{public}:8443{UPLOADS}/{upload_id}",
            f"https://media.example:8443/files{UPLOADS}/{upload_id}",
            f"{public}/elsewhere/{upload_id}",
            f"/elsewhere{UPLOADS}/{upload_id}",
            f"{server.url}/files{UPLOADS}/{upload_id}",
        ):
            refused = client.post(UPLOADS, headers=TUS | concatenation(other))
            assert (refused.status_code, refused.json()["code"]) == (400, "bad_request"), other


def test_a_final_whose_checksum_is_not_that_of_nothing_is_not_made(api: httpx.Client) -> None:
    said = TUS | concatenation(make(api, "whole partial")) | {"Upload-Metadata": metadata(key="no-final")}
    for wrong, status in (
        ({"Upload-Checksum": checksum("sha1", CONTENT)}, 460),
        ({"Content-Digest": digest(CONTENT)}, 422),
    ):
        assert api.post(UPLOADS, headers=said | wrong).status_code == status
    listed = api.get(UPLOADS, params={"limit": 1000}).json()["uploads"]
    assert "no-final" not in [one["key"] for one in listed]
    assert api.post(UPLOADS, headers=said | {"Upload-Checksum": checksum("sha1", b"")}).status_code == 201


def test_a_partial_becomes_nothing_by_itself(api: httpx.Client) -> None:
    made = api.post(
        UPLOADS,
        content=CONTENT,
        headers=TUS
        | OCTETS
        | {"Upload-Length": "10", "Upload-Concat": "partial", "Upload-Metadata": "key aw=="},
    )
    assert "Content-Location" not in made.headers
    told = api.get(made.headers["Location"]).json()
    assert (told["asset"], told["asset_id"], told["bucket"]) == (None, None, None)


@pytest.mark.parametrize("partial", ["partial", "open", "complete", "final"])
def test_a_final_takes_finished_partials_only(api: httpx.Client, partial: str) -> None:
    whole, other = make(api, "whole partial"), make(api, partial)
    answer = api.post(UPLOADS, headers=TUS | concatenation(whole, other))
    assert answer.status_code == 400
    assert "Location" not in answer.headers


def test_a_partial_of_length_0_is_one_too(api: httpx.Client) -> None:
    empty = create(api, 0, Upload_Concat="partial")
    whole = make(api, "whole partial")
    final = api.post(UPLOADS, headers=TUS | concatenation(empty, whole, empty))
    assert final.status_code == 201, final.text
    assert asset_of(api, final.headers["Location"]).content == CONTENT
    only = api.post(UPLOADS, headers=TUS | concatenation(empty))
    assert only.status_code == 201, only.text
    assert asset_of(api, only.headers["Location"]).content == b""


def test_a_partial_of_no_known_length_is_one_too(api: httpx.Client) -> None:
    url = create(api, None, CONTENT[:4], Upload_Concat="partial")
    assert patch(api, url, 4, REST, Upload_Length="10").status_code == 204
    final = api.post(UPLOADS, headers=TUS | concatenation(url))
    assert asset_of(api, final.headers["Location"]).content == CONTENT


def test_the_whole_can_be_checked_at_its_end(api: httpx.Client) -> None:
    url = make(api, "open")
    wrong = patch(api, url, 4, REST, X_Checksum_Sha256="ab" * 32)
    assert wrong.status_code == 422
    assert api.head(url, headers=TUS).status_code == 410
    url = make(api, "open")
    assert patch(api, url, 4, REST, X_Checksum_Sha256="ab" * 31).status_code == 400
    assert offset_of(api, url) == 4


def test_a_large_upload_is_the_same_in_every_cut(api: httpx.Client) -> None:
    content = bytes(range(251)) * 60_000  # 15 MB
    for cuts in ((len(content),), (1, 5 << 20, 5_242_881, len(content)), (1 << 20, 9 << 20, len(content))):
        url, at = create(api, len(content)), 0
        for end in cuts:
            answer = patch(api, url, at, content[at:end], Upload_Checksum=checksum("sha256", content[at:end]))
            assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(end))
            at = end
        assert asset_of(api, url).content == content


def test_many_small_ones_leave_nothing(each_server: Server, api: httpx.Client) -> None:
    for _ in range(3):
        upload(api, CONTENT)
    swept = each_server.run("sweep")
    assert swept.returncode == 0, swept.stderr
    each_server.check_leftovers()


def test_it_goes_through_nginx(tmp_path: Path) -> None:
    size = 12_000_000
    with behind_nginx(tmp_path / "data") as server, server.client() as client:
        assert client.options(UPLOADS).headers["Tus-Version"] == "1.0.0"
        url = create(client, size)
        assert url.startswith(server.url)
        said = server.headers | TUS | OCTETS | {"Upload-Offset": "0", "Content-Length": str(size)}
        with wire.connect(server.url) as connection:
            connection.sendall(wire.head("PATCH", target(url), said) + bytes(9_000_000))
            time.sleep(1)
            began = time.monotonic()
            offset = offset_of(client, url)
            assert time.monotonic() - began < 3
            assert offset is not None
            assert offset > 4_000_000, "nginx passes on what comes at once"
            assert wire.read_answer(connection, "PATCH").status == 409
        for headers, status in (
            ({"Upload-Offset": "0"}, 409),
            ({"Upload-Offset": "x"}, 400),
            ({"Tus-Resumable": "0.1"}, 412),
            ({"Content-Type": "text/plain"}, 415),
            ({"Authorization": "Bearer msk_guessed"}, 401),
            ({"Upload-Checksum": "sha1 x"}, 400),
            ({"Upload-Checksum": checksum("sha1", b"x")}, 460),
        ):
            asked = TUS | OCTETS | {"Upload-Offset": str(offset)} | headers
            refused = client.patch(url, content=bytes(size - offset), headers=asked)
            assert (refused.status_code, refused.headers["Tus-Resumable"]) == (status, "1.0.0"), refused.text
            assert offset_of(client, url) == offset
        long = client.patch(
            url, content=bytes(size - offset + 1), headers=TUS | OCTETS | {"Upload-Offset": str(offset)}
        )
        assert long.status_code == 413
        done = patch(client, url, offset, bytes(size - offset), X_HTTP_Method_Override="PATCH")
        assert (done.status_code, done.headers["Upload-Offset"]) == (204, str(size))
        found = client.get(httpx.URL(done.headers["Content-Location"]).path)
        assert found.content == bytes(size)
        overridden = create(client, 10)
        posted = TUS | OCTETS | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
        assert client.post(overridden, content=CONTENT, headers=posted).status_code == 204
        assert client.delete(overridden, headers=TUS).status_code == 204
        assert client.head(overridden, headers=TUS).status_code == 404
        server.check_leftovers()
