"""`PUT /b/{bucket}/{key}` and the drop box: raw bodies, as curl -T sends them."""

import base64
import hashlib
import json
import os
import secrets
import socket
import subprocess
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server


def curl(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sS", *arguments], input=stdin, capture_output=True, timeout=60)


def name() -> str:
    return secrets.token_hex(6)


def test_a_new_key_is_created(api: httpx.Client) -> None:
    key = name() + ".txt"
    made = api.put(f"/b/media/{key}", content=b"hello")
    asset = made.json()
    assert made.status_code == 201
    assert made.headers["ETag"] == asset["etag"] == f'"{hashlib.sha256(b"hello").hexdigest()[:32]}"'
    assert (
        made.headers["Location"]
        == asset["url"]
        == f"{api.base_url}/f/{asset['id']}/{key}".replace("//f", "/f")
    )
    assert (asset["version"], asset["size"], asset["bucket"], asset["key"]) == (1, 5, "media", key)
    assert api.get(asset["url"]).content == b"hello"
    assert api.get(f"/b/media/{key}").content == b"hello"


def test_a_taken_key_is_replaced_and_keeps_its_id(api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    first = api.put(url, content=b"one").json()
    second = api.put(url, content=b"two")
    assert second.status_code == 200
    assert second.json()["id"] == first["id"]
    assert second.json()["version"] == 2
    assert second.json()["created_at"] == first["created_at"]
    assert "Location" not in second.headers  # that is for what was created
    assert api.get(url).content == b"two"
    assert api.get(first["url"]).content == b"two"


def test_an_etag_follows_the_content_alone(api: httpx.Client) -> None:
    assert (
        api.put(f"/b/media/{name()}", content=b"x").headers["ETag"]
        == (api.put(f"/b/public/{name()}", content=b"x").headers["ETag"])
    )


@pytest.mark.parametrize(
    "size", [0, 1, 4096, 4097, 1 << 20, 2 << 20, (2 << 20) + 1, (4 << 20) + 4097, 9 << 20], ids=str
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_of_every_size_come_back_identical(api: httpx.Client, size: int, chunked: bool) -> None:
    body, url = os.urandom(size), f"/b/media/{name()}"

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 100_003):
            yield body[start : start + 100_003]

    made = api.put(url, content=pieces() if chunked else body)
    assert made.status_code == 201, made.text
    assert (made.json()["size"], made.json()["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert api.get(url).content == body


def test_create_only_refuses_a_taken_key(api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    assert api.put(url, content=b"1", headers={"If-None-Match": "*"}).status_code == 201
    refused = api.put(url, content=b"2", headers={"If-None-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert api.get(url).content == b"1"


def test_only_the_named_version_is_replaced(api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    assert api.put(url, content=b"0", headers={"If-Match": "*"}).status_code == 412
    etag = api.put(url, content=b"1").headers["ETag"]
    assert api.put(url, content=b"2", headers={"If-Match": etag}).status_code == 200
    assert api.put(url, content=b"3", headers={"If-Match": etag}).status_code == 412
    assert api.put(url, content=b"3", headers={"If-Match": f'W/{etag}, "other"'}).status_code == 412
    assert api.delete(url, headers={"If-Match": etag}).status_code == 412
    assert api.get(url).content == b"2"


def test_of_many_creators_one_wins(api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: api.put(url, content=b"%d" % n, headers={"If-None-Match": "*"}), range(8))
        )
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 7
    (winner,) = (n for n, answer in enumerate(answers) if answer.status_code == 201)
    assert api.get(url).content == b"%d" % winner


def test_writers_of_one_key_never_mix(api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    bodies = [bytes([n]) * 300_000 for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda body: api.put(url, content=body), bodies))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert {answer.json()["version"] for answer in answers} == set(range(1, 7))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert api.get(url).content in bodies


def digest_headers(body: bytes) -> dict[str, tuple[str, str]]:
    sha256 = hashlib.sha256(body)
    field = f"sha-256=:{base64.b64encode(sha256.digest()).decode()}:"
    return {
        "hex": ("X-Checksum-Sha256", sha256.hexdigest()),
        "HEX": ("X-Checksum-Sha256", sha256.hexdigest().upper()),
        "content": ("Content-Digest", field),
        "repr": ("Repr-Digest", f"unknown=:AAAA:, {field}"),
    }


@pytest.mark.parametrize("kind", digest_headers(b""))
def test_a_right_checksum_is_accepted(api: httpx.Client, kind: str) -> None:
    header, value = digest_headers(b"right")[kind]
    assert api.put(f"/b/media/{name()}", content=b"right", headers={header: value}).status_code == 201


@pytest.mark.parametrize("kind", digest_headers(b""))
def test_a_wrong_checksum_leaves_nothing(api: httpx.Client, kind: str) -> None:
    header, value = digest_headers(b"right")[kind]
    url = f"/b/media/{name()}"
    refused = api.put(url, content=b"wrong", headers={header: value})
    assert (refused.status_code, refused.json()["code"]) == (422, "checksum_mismatch")
    assert api.get(url).status_code == 404


def test_a_wrong_checksum_keeps_what_was_there(api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    api.put(url, content=b"old")
    assert api.put(url, content=b"new", headers={"X-Checksum-Sha256": "0" * 64}).status_code == 422
    assert api.get(url).content == b"old"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Checksum-Sha256": "abc"},
        {"Content-Digest": "sha-256=abc"},
        {"X-Expires-In": "soon"},
        {"X-Expires-In": "-1"},
        {"X-Tags": ",".join(map(str, range(65)))},
        {"X-Tags": "t" * 129},
        {"X-Meta-a b": "x"},
        {"X-Meta-big": "x" * 17_000},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_header_without_sense_is_told(
    api: httpx.Client, each_server: Server, headers: dict[str, str]
) -> None:
    url = f"/b/media/{name()}"
    ((header, value),) = headers.items()
    raw = wire.head("PUT", url, {**each_server.headers, header: value, "Content-Length": "1"}) + b"x"
    assert wire.exchange(each_server.url, raw).status == 400
    assert api.get(url).status_code == 404


def test_a_part_is_not_taken_for_the_whole(each_server: Server, api: httpx.Client, tmp_path: Path) -> None:
    url = f"/b/media/{name()}"
    api.put(url, content=b"0123456789")
    assert api.put(url, content=b"56789", headers={"Content-Range": "bytes 5-9/10"}).status_code == 400
    (tmp_path / "file").write_bytes(b"0123456789")
    curl("-C", "5", "-u", f":{each_server.admin_key}", "-T", str(tmp_path / "file"), each_server.url + url)
    assert api.get(url).content == b"0123456789"


def test_headers_say_more_about_an_asset(api: httpx.Client) -> None:
    headers = [
        (b"X-Meta-Camera", b"Leica"),
        (b"X-Meta-Place", "Zürich".encode()),
        (b"X-Tags", "summer, été ,summer,,b".encode()),
        (b"X-Expires-In", b"30d"),
        (b"Content-Type", b"application/x-thing"),
    ]
    asset = api.put(f"/b/media/{name()}", content=b"\x01\x02", headers=headers).json()
    assert asset["metadata"] == {"camera": "Leica", "place": "Zürich"}
    assert asset["tags"] == ["summer", "été", "b"]
    assert asset["expires_at"].endswith("Z")
    assert asset["media_type"] == "application/x-thing"


ODD_KEYS = {
    "percent": "100%.txt",
    "encoded percent": "a%20b",
    "question": "what?.txt",
    "fragment": "no#1.txt",
    "double slash": "a//b.txt",
    "leading slash": "/rooted.txt",
    "trailing slash": "folder/",
    "space": " spaced out .txt",
    "plus": "a+b c.txt",
    "emoji": "😀/👩‍👩‍👧.png",
    "nfc": "café.txt",
    "1024 bytes": "ü" * 512,
    "1024 ascii": "k" * 1024,
    "dots": "a/.../..b/c..",
    "hidden": ".htaccess",
    "backslash": "a\\b",
    "quotes": "\"'<script>.txt",
    "control": "a\x01\x7fb\r\n.txt",
    "bidi": "a\u202egpj.exe",
    "semicolon": "a;b=c,d&e.txt",
    "colon": "c:/x",
}


@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS)
def test_odd_keys_are_names_like_any_other(
    api: httpx.Client, make_bucket: Callable[..., str], key: str
) -> None:
    bucket = make_bucket()
    url = f"/b/{bucket}/{quote(key, safe='/')}"
    made = api.put(url, content=key.encode())
    assert made.status_code == 201, made.text
    assert made.json()["key"] == key
    for place in (url, made.json()["url"], made.headers["Location"]):
        got = api.get(place)
        assert got.content == key.encode()
        disposition = got.headers["Content-Disposition"]
        assert disposition.isascii()
        assert disposition.isprintable()
    assert [asset["key"] for asset in api.get("/v1/assets", params={"bucket": bucket}).json()["assets"]] == [
        key
    ]
    assert api.delete(url).status_code == 204
    assert api.get(url).status_code == 404


def test_both_spellings_of_an_accent_are_one_key(api: httpx.Client) -> None:
    composed = f"{name()}-café"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    made = api.put("/b/media/" + quote(decomposed), content=b"1")
    assert made.json()["key"] == composed
    assert api.put("/b/media/" + quote(composed), content=b"2").status_code == 200
    assert api.get("/b/media/" + quote(decomposed)).content == b"2"
    assert api.get("/v1/assets", params={"prefix": decomposed}).json()["assets"][0]["key"] == composed


def test_a_different_case_is_a_different_key(api: httpx.Client) -> None:
    key = name()
    assert api.put(f"/b/media/{key}x", content=b"1").status_code == 201
    assert api.put(f"/b/media/{key}X", content=b"2").status_code == 201


BAD_TARGETS = {
    "too long": "/b/media/" + "k" * 1025,
    "too long in utf-8": "/b/media/" + quote("ü" * 513),
    "nul": "/b/media/a%00b",
    "invalid utf-8": "/b/media/%ff%fe",
    "surrogate": "/b/media/%ed%a0%80",
    "dot": "/b/media/./x",
    "dot dot": "/b/media/a/../x",
    "dot dot only": "/b/media/..",
    "encoded dots": "/b/media/%2e%2e/x",
    "encoded slash": "/b/media/..%2fx",
    "end": "/b/media/a/..",
    "empty": "/b/media/",
}


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("target", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_keys_are_told(each_server: Server, target: str, method: str) -> None:
    headers = dict(each_server.headers) | ({"Content-Length": "1"} if method == "PUT" else {})
    answer = wire.exchange(
        each_server.url, wire.head(method, target, headers) + (b"x" if method == "PUT" else b"")
    )
    assert (answer.status, answer.json()["code"]) == (400, "bad_key")


@pytest.mark.parametrize("target", [*BAD_TARGETS.values(), "/b/none/ok", "/b/media/ok"])
def test_without_a_key_a_bad_name_answers_like_any_other(each_server: Server, target: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        answer = wire.exchange(each_server.url, wire.head(method, target, {"Content-Length": "0"}))
        assert answer.status == 401


@pytest.mark.parametrize("bucket", ["NOPE", "no", "a" * 64, "%2e%2e", "media%00", "%ff", "media%2f"])
def test_a_bucket_that_cannot_be_is_not_found(api: httpx.Client, bucket: str) -> None:
    assert api.put(f"/b/{bucket}/key", content=b"").status_code in (400, 404)
    assert api.get(f"/b/{bucket}/key").status_code in (400, 404)


@pytest.mark.parametrize(
    ("asked", "status"), [("a/../secret", 400), ("../../etc/passwd", 400), ("./x", 400), ("a/./b", 400)]
)
def test_curl_as_is_gets_nowhere(each_server: Server, asked: str, status: int) -> None:
    done = curl(
        "--path-as-is", "-u", f":{each_server.admin_key}", "-o", "/dev/null", "-w", "%{http_code}",
        f"{each_server.url}/b/media/{asked}",
    )  # fmt: skip
    assert done.stdout == str(status).encode()


def test_curl_uploads_a_file(each_server: Server, tmp_path: Path) -> None:
    (tmp_path / "holiday.bin").write_bytes(body := os.urandom(300_000))
    folder = name()
    done = curl(
        "-f", "-u", f":{each_server.admin_key}", "-T", str(tmp_path / "holiday.bin"),
        f"{each_server.url}/b/media/{folder}/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = curl("-f", "-u", f":{each_server.admin_key}", f"{each_server.url}/b/media/{folder}/holiday.bin")
    assert got.stdout == body


def test_curl_waits_for_leave_and_a_refusal_costs_no_byte(each_server: Server, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    done = curl(
        "-T", str(tmp_path / "big"), "-w", "\n%{http_code} %{size_upload}", "-H", "Expect: 100-continue",
        f"{each_server.url}/b/media/big",
    )  # fmt: skip
    body, _, figures = done.stdout.rpartition(b"\n")
    assert figures == b"401 0"
    assert b'"unauthorised"' in body


def test_who_waits_for_leave_gets_it_once_admitted(each_server: Server) -> None:
    headers = {**each_server.headers, "Content-Length": "5", "Expect": "100-continue"}
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("PUT", f"/b/media/{name()}", headers))
        assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert wire.read_answer(connection).status == 201


def test_a_connection_serves_many_uploads(each_server: Server) -> None:
    with wire.connect(each_server.url) as connection:
        for _ in range(3):
            headers = {**each_server.headers, "Content-Length": "5"}
            connection.sendall(wire.head("PUT", f"/b/media/{name()}", headers) + b"hello")
            assert wire.read_answer(connection).status == 201


def test_long_and_short_uploads_follow_each_other_without_a_pause(each_server: Server) -> None:
    bodies = [os.urandom(size) for size in (3_000_001, 5, 4 << 20, 100_000, 2_500_000)]
    raw = b"".join(
        wire.head("PUT", f"/b/media/{name()}", {**each_server.headers, "Content-Length": str(len(body))})
        + body
        for body in bodies
    )

    def send(connection: socket.socket) -> None:
        for start in range(0, len(raw), 777_777):
            connection.sendall(raw[start : start + 777_777])

    with wire.connect(each_server.url) as connection:
        sender = threading.Thread(target=send, args=(connection,))
        sender.start()
        answers = [wire.read_answer(connection) for _ in bodies]
        sender.join()
    assert [answer.status for answer in answers] == [201] * len(bodies)
    assert [answer.json()["sha256"] for answer in answers] == [
        hashlib.sha256(body).hexdigest() for body in bodies
    ]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_breaks_leaves_nothing(each_server: Server, api: httpx.Client, framing: str) -> None:
    url = f"/b/media/{name()}"
    more = {"Content-Length": "3000000"} if framing == "length" else {"Transfer-Encoding": "chunked"}
    piece = bytes(2_000_000) if framing == "length" else b"1e8480\r\n" + bytes(2_000_000) + b"\r\n"
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("PUT", url, each_server.headers | more) + piece)
    assert api.get(url).status_code == 404
    assert_clean_soon(each_server)
    (line,) = logged_soon(each_server, url)
    assert line["status"] == 400  # the client's doing, and no error of ours
    assert "Traceback" not in each_server.logged()


def test_a_body_shorter_than_announced_is_told(each_server: Server, api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("PUT", url, {**each_server.headers, "Content-Length": "10"}) + b"12345")
        connection.shutdown(1)
        answer = wire.read_answer(connection, "PUT")
        assert connection.recv(1) == b""
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "bad_body"
    assert answer.headers["Connection"] == "close"
    assert api.get(url).status_code == 404


@pytest.mark.parametrize("length", [2**63, 2**64 - 1], ids=["2^63", "2^64-1"])
def test_a_length_that_no_file_can_have_is_too_large(each_server: Server, length: int) -> None:
    headers = {**each_server.headers, "Content-Length": str(length)}
    answer = wire.exchange(each_server.url, wire.head("PUT", f"/b/media/{name()}", headers), "PUT")
    assert (answer.status, answer.json()["code"], answer.json()["limit_source"]) == (
        413,
        "too_large",
        "store",
    )


def test_malformed_chunks_are_refused(each_server: Server, api: httpx.Client) -> None:
    url = f"/b/media/{name()}"
    raw = (
        wire.head("PUT", url, {**each_server.headers, "Transfer-Encoding": "chunked"})
        + b"5\r\nhello\r\nxyz\r\n"
    )
    assert set(wire.statuses(each_server.url, raw)) <= {400}
    assert api.get(url).status_code == 404


def logged_soon(server: Server, text: str) -> list[dict[str, object]]:
    """The lines of the log about uploads to a URL, once there are some."""
    deadline = time.monotonic() + 10
    while not (found := [line for line in server.logged().splitlines() if text in line and '"PUT"' in line]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [json.loads(line) for line in found]


def assert_clean_soon(server: Server) -> None:
    """Without a sweep: what a broken request leaves is removed by the request itself."""
    deadline = time.monotonic() + 10
    while (checked := server.run("fsck", "--json")).returncode and time.monotonic() < deadline:
        time.sleep(0.1)
    assert checked.returncode == 0, checked.stdout


def test_the_drop_box_names_the_key_and_answers_the_url(each_server: Server, api: httpx.Client) -> None:
    done = curl(
        "-f", "-u", f":{each_server.admin_key}", "-T", "-", f"{each_server.url}/u/hello.txt", stdin=b"hi\n"
    )
    url = done.stdout.decode()
    assert url.startswith(f"{each_server.url}/f/ast_")
    assert url.endswith("/hello.txt\n")
    assert api.get(url.strip()).content == b"hi\n"


def test_curl_completes_the_drop_box_name(each_server: Server, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"1")
    done = curl(
        "-f", "-u", f":{each_server.admin_key}", "-T", str(tmp_path / "a b.txt"), f"{each_server.url}/u/"
    )
    assert done.stdout.strip().endswith(b"/a%20b.txt")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
        ("application/json", "application/json"),
        ("text/html, application/json;q=0.9", "application/json"),
    ],
)
def test_the_drop_box_answers_what_is_asked_for(api: httpx.Client, accept: str, kind: str) -> None:
    answer = api.put("/u/x.txt", content=b"1", headers={"Accept": accept})
    assert answer.status_code == 201
    assert answer.headers["Content-Type"].startswith(kind)
    location = answer.headers["Location"]
    assert location == (answer.json()["url"] if "json" in kind else answer.text.strip())


def test_the_drop_box_never_replaces(api: httpx.Client) -> None:
    assert api.put("/u/same.txt", content=b"1").text != api.put("/u/same.txt", content=b"2").text


@pytest.mark.parametrize(
    "raw", ["", "%00", "..", "%2e%2e%2f%2e%2e%2fetc", "%ff%fe", "a%0d%0aX-Evil:1", "x" * 5000]
)
def test_no_name_fails_the_drop_box(each_server: Server, api: httpx.Client, raw: str) -> None:
    headers = {**each_server.headers, "Content-Length": "1", "Accept": "application/json"}
    answer = wire.exchange(each_server.url, wire.head("PUT", f"/u/{raw}", headers) + b"x")
    assert answer.status == 201, answer.content
    assert "X-Evil" not in answer.headers
    got = api.get(urlsplit(str(answer.json()["url"])).path)
    assert got.status_code == 200
    assert "X-Evil" not in got.headers


@pytest.mark.parametrize(
    "raw",
    ["caf%E9%20menu.txt", "caf%C3%A9%20menu.txt", "cafe%CC%81%20menu.txt"],
    ids=["latin-1", "nfc", "nfd"],
)
def test_a_name_in_the_drop_box_is_read_as_it_was_written(
    each_server: Server, api: httpx.Client, raw: str
) -> None:
    headers = {**each_server.headers, "Content-Length": "1", "Accept": "application/json"}
    asset = wire.exchange(each_server.url, wire.head("PUT", f"/u/{raw}", headers) + b"x").json()
    assert asset["name"] == "café menu.txt"
    assert str(asset["key"]).endswith("/café menu.txt")


@pytest.mark.parametrize(
    ("length", "name"), [(980, "n" * 12 + ".jpeg"), (996, "n"), (997, None), (1001, None)]
)
def test_a_name_in_the_drop_box_is_cut_so_that_the_key_fits(
    each_server: Server, api: httpx.Client, length: int, name: str | None
) -> None:
    """Below a key's prefix the server's own part takes 27 bytes."""
    prefix = "q" * length
    secret = api.post(
        "/v1/keys", json={"scopes": ["assets:write"], "bucket": "media", "prefix": prefix}
    ).json()["secret"]
    with each_server.client(secret) as client:
        made = client.put("/u/" + "n" * 100 + ".jpeg", content=b"1", headers={"Accept": "application/json"})
    if name is None:
        assert (made.status_code, made.json()["code"]) == (400, "bad_key")
    else:
        assert made.json()["name"] == name
        assert made.json()["key"].startswith(prefix)
        assert len(made.json()["key"]) == 1024
