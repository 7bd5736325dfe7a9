"""`POST /v1/assets`: forms as curl and browsers send them, and as nobody should."""

import hashlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server

EDGE = "multipart/form-data; boundary=edge"


def part(disposition: bytes, content: bytes, *more: bytes) -> bytes:
    return b"\r\n".join(
        (b"--edge", b"Content-Disposition: form-data; " + disposition, *more, b"", content, b"")
    )


def field(name: str, value: str) -> bytes:
    return part(f'name="{name}"'.encode(), value.encode())


def file(name: str, content: bytes, *more: bytes) -> bytes:
    return part(f'name="file"; filename="{name}"'.encode(), content, *more)


END = b"--edge--\r\n"


def post(api: httpx.Client, *parts: bytes, target: str = "/v1/assets", kind: str = EDGE) -> httpx.Response:
    return api.post(target, content=b"".join(parts), headers={"Content-Type": kind})


def prefix() -> str:
    return secrets.token_hex(6) + "/"


def keys_under(api: httpx.Client, prefix: str, bucket: str = "media") -> list[str]:
    listed = api.get("/v1/assets", params={"bucket": bucket, "prefix": prefix}).json()["assets"]
    return [asset["key"] for asset in listed]


def test_many_files_arrive_together(api: httpx.Client) -> None:
    start = prefix()
    contents = {f"{number}.bin": os.urandom(number * 10_007) for number in range(20)}
    made = api.post("/v1/assets", data={"prefix": start}, files=[("f", item) for item in contents.items()])
    assert made.status_code == 201, made.text
    assets = made.json()["assets"]
    assert [asset["name"] for asset in assets] == list(contents)
    for asset in assets:
        content = contents[asset["name"]]
        assert asset["key"] == start + asset["name"]
        assert asset["sha256"] == hashlib.sha256(content).hexdigest()
        assert api.get(asset["url"]).content == content


def test_one_file_has_a_location(api: httpx.Client) -> None:
    made = api.post("/v1/assets", files={"f": ("a.txt", b"1")})
    assert made.headers["Location"] == made.json()["assets"][0]["url"]


def test_curl_sends_a_form(each_server: Server, api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"one")
    (tmp_path / "two.bin").write_bytes(os.urandom(200_000))
    start = prefix()
    done = subprocess.run(
        ["curl", "-sSf", "-u", f":{each_server.admin_key}", "-F", "bucket=public", "-F", f"prefix={start}",
         "-F", f"file=@{tmp_path}/a b.txt", "-F", f"file=@{tmp_path}/two.bin", f"{each_server.url}/v1/assets"],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert keys_under(api, start, "public") == [start + "a b.txt", start + "two.bin"]


def test_bucket_and_prefix_may_come_in_the_query(api: httpx.Client) -> None:
    start = prefix()
    made = post(api, file("a", b"1"), END, target=f"/v1/assets?bucket=public&prefix={start}")
    assert [(asset["bucket"], asset["key"]) for asset in made.json()["assets"]] == [("public", start + "a")]


def test_the_prefix_is_taken_as_written(api: httpx.Client) -> None:
    start = prefix().rstrip("/") + "-"
    assert post(api, field("prefix", start), file("a", b"1"), END).json()["assets"][0]["key"] == start + "a"


@pytest.mark.parametrize("name", ["bucket", "prefix", "tags", "expires_in"])
def test_what_comes_after_the_first_file_is_too_late(api: httpx.Client, name: str) -> None:
    start = prefix()
    answer = post(api, field("prefix", start), file("a", b"1"), field(name, "public"), file("b", b"2"), END)
    assert answer.status_code == 400
    assert keys_under(api, start) == []


def test_fields_nobody_knows_are_left_alone(api: httpx.Client) -> None:
    assert post(api, field("csrf", "x"), file("a", b"1"), field("submit", "Send"), END).status_code == 201


def test_tags_and_expiry_go_to_every_file(api: httpx.Client) -> None:
    made = post(api, field("tags", "a,b"), field("expires_in", "1d"), file("a", b"1"), file("b", b"2"), END)
    for asset in made.json()["assets"]:
        assert asset["tags"] == ["a", "b"]
        assert asset["expires_at"]


def test_fields_are_text_in_any_script(api: httpx.Client) -> None:
    start = prefix() + "Łódź/"
    answer = post(
        api, field("prefix", start), field("tags", "日本, Łódź,café"), file("zażółć.txt", b"1"), END
    )
    (asset,) = answer.json()["assets"]
    assert asset["tags"] == ["日本", "Łódź", "café"]
    assert (asset["key"], asset["name"]) == (start + "zażółć.txt", "zażółć.txt")
    asked = {"bucket": "media", "prefix": start, "tag": "日本"}
    assert [one["key"] for one in api.get("/v1/assets", params=asked).json()["assets"]] == [asset["key"]]


@pytest.mark.parametrize(
    ("sent", "read"),
    [("日本,Łódź".encode(), ["日本", "Łódź"]), ("café".encode("latin-1"), ["café"])],
    ids=["utf-8", "latin-1"],
)
def test_the_header_says_tags_in_bytes(api: httpx.Client, sent: bytes, read: list[str]) -> None:
    made = api.post("/v1/assets", files={"f": ("a", b"1")}, headers=[(b"X-Tags", sent)])
    assert made.json()["assets"][0]["tags"] == read


@pytest.mark.parametrize(
    ("name", "kept"),
    [("n" * 100 + ".jpeg", "n" * 18 + ".jpeg"), ("é" * 50 + ".jpeg", "é" * 9 + ".jpeg")],
    ids=["ascii", "two bytes each"],
)
def test_a_name_below_a_long_prefix_is_cut_so_that_the_key_fits(
    api: httpx.Client, name: str, kept: str
) -> None:
    start = prefix()
    start += "q" * (1000 - len(start)) + "/"
    made = post(api, field("prefix", start), file(name, b"1"), END)
    assert made.status_code == 201, made.text
    (asset,) = made.json()["assets"]
    assert (asset["key"], asset["name"]) == (start + kept, kept)
    assert api.get(asset["url"]).content == b"1"


@pytest.mark.parametrize(("room", "name"), [(20, "n" * 100 + ".jpeg"), (8, "a"), (6, "abcdef")])
def test_a_taken_key_below_a_long_prefix_stays_below_it(
    client_with: Callable[..., httpx.Client], room: int, name: str
) -> None:
    start = prefix()
    start += "q" * (1023 - room - len(start)) + "/"
    client = client_with("assets:write", "assets:read", bucket="media", prefix=start)
    sent = field("prefix", start), file(name, b"1"), END
    assert post(client, *sent).status_code == 201
    again = post(client, *sent)
    if room < 7:  # what tells it from the other has no place
        assert (again.status_code, again.json()["code"]) == (400, "bad_key")
    else:
        (asset,) = again.json()["assets"]
        assert asset["key"].startswith(start)
        assert len(keys_under(client, start)) == 2


def test_a_prefix_that_leaves_no_room_for_a_name_is_told(api: httpx.Client) -> None:
    assert post(api, field("prefix", "q" * 1024), file("a", b"1"), END).json()["code"] == "bad_key"
    assert post(api, field("prefix", "q" * 1022 + "/"), file("a", b"1"), END).status_code == 201


def test_a_prefix_may_end_in_a_dot(api: httpx.Client) -> None:
    start = prefix() + "."
    assert post(api, field("prefix", start), file("a", b"1"), END).json()["assets"][0]["key"] == start + "a"


def test_a_form_never_replaces(api: httpx.Client) -> None:
    start = prefix()
    for content in (b"1", b"2"):
        assert post(api, field("prefix", start), file("a.txt", content), END).status_code == 201
    first, second = sorted(keys_under(api, start), key=len)
    assert first == start + "a.txt"
    stem, dot, extension = second.removeprefix(start).rpartition(".")
    assert (stem[:2], len(stem), dot + extension) == ("a-", 8, ".txt")
    assert api.get(f"/b/media/{first}").content == b"1"


def test_equal_names_in_one_form_all_arrive(api: httpx.Client) -> None:
    start = prefix()
    made = post(api, field("prefix", start), *(file("same.jpg", b"%d" % n) for n in range(5)), END)
    assert made.status_code == 201
    assert len(set(keys_under(api, start))) == 5
    assert sorted(api.get(asset["url"]).content for asset in made.json()["assets"]) == [
        b"%d" % n for n in range(5)
    ]


def test_some_refused_is_207(api: httpx.Client, make_bucket: Callable[..., str]) -> None:
    bucket = make_bucket(allowed_types=["image/*", "text/plain"], max_asset_size=1000)
    made = post(
        api,
        field("bucket", bucket),
        file("big.txt", b"x" * 1001),
        file("ok.txt", b"fine"),
        file("film.mp4", b"", b"Content-Type: video/mp4"),
        file("liar.png", b"%PDF-1.4\n" + bytes(100), b"Content-Type: image/png"),
        file("ok2.txt", b"fine too"),
        END,
    )
    assert made.status_code == 207
    assert [asset["key"] for asset in made.json()["assets"]] == ["ok.txt", "ok2.txt"]
    failed = [(one["filename"], one["status"], one["code"]) for one in made.json()["failed"]]
    assert failed == [
        ("big.txt", 413, "too_large"),
        ("film.mp4", 415, "type_not_allowed"),
        ("liar.png", 415, "type_not_allowed"),
    ]
    assert keys_under(api, "", bucket) == ["ok.txt", "ok2.txt"]


def test_a_refused_file_of_some_megabytes_does_not_take_the_others_with_it(
    api: httpx.Client, make_bucket: Callable[..., str]
) -> None:
    bucket = make_bucket(allowed_types=["text/plain"])
    made = post(
        api,
        field("bucket", bucket),
        file("film.mp4", bytes(5 << 20), b"Content-Type: video/mp4"),
        file("ok.txt", b"fine", b"Content-Type: text/plain"),
        END,
    )
    assert made.status_code == 207
    assert keys_under(api, "", bucket) == ["ok.txt"]


def test_all_refused_is_the_first_problem(api: httpx.Client, make_bucket: Callable[..., str]) -> None:
    bucket = make_bucket(allowed_types=["image/*"], max_asset_size=10)
    refused = post(
        api, field("bucket", bucket), file("a.txt", b"text"), file("b.gif", b"GIF89a" + bytes(99)), END
    )
    assert (refused.status_code, refused.json()["code"]) == (415, "type_not_allowed")


def test_count_quota_holds_within_one_form(api: httpx.Client, make_bucket: Callable[..., str]) -> None:
    bucket = make_bucket(quota_assets=2)
    made = post(api, field("bucket", bucket), *(file(f"{n}", b"1") for n in range(4)), END)
    assert made.status_code == 207, made.text
    assert len(made.json()["assets"]) == len(made.json()["failed"]) == 2
    assert {one["code"] for one in made.json()["failed"]} == {"quota_exceeded"}


def test_size_quota_holds_within_one_form(api: httpx.Client, make_bucket: Callable[..., str]) -> None:
    bucket = make_bucket(quota_bytes=100)
    made = post(api, field("bucket", bucket), *(file(f"{n}", b"x" * 60) for n in range(3)), END)
    assert made.status_code in (207, 413), made.text
    held = sum(asset["size"] for asset in api.get("/v1/assets", params={"bucket": bucket}).json()["assets"])
    assert held <= 100


BROKEN = {
    "no closing boundary": file("a", b"1" * 5000),
    "half a boundary": file("a", b"1" * 5000) + b"--edg",
    "open part": file("a", b"1")[:-2] + b"more",
    "only a field": field("bucket", "media"),
    "inside a header": b"--edge\r\nContent-Dispo",
    "nothing": b"",
    "preamble only": b"hello",
    "no name": b"--edge\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + END,
    "no disposition": b"--edge\r\nContent-Type: text/plain\r\n\r\n1\r\n" + END,
    "no colon": b"--edge\r\nContent-Disposition form-data\r\n\r\n1\r\n" + END,
    "no file": field("bucket", "media") + END,
    "large field": field("csrf", "x" * 70_000) + file("a", b"1") + END,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_broken_form_is_told_and_stores_nothing(api: httpx.Client, body: bytes) -> None:
    answer = post(api, body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body", [body for name, body in BROKEN.items() if name not in ("no file", "nothing")]
)
def test_a_form_that_breaks_after_a_file_stores_nothing(api: httpx.Client, body: bytes) -> None:
    start = prefix()
    assert post(api, field("prefix", start), file("first", b"1"), body).status_code == 400
    assert keys_under(api, start) == []


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=edge", "text/plain",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=" + "x" * 5000,
     "multipart/form-data; boundary=other"],
)  # fmt: skip
def test_what_is_no_form_is_told(api: httpx.Client, kind: str) -> None:
    assert post(api, file("a", b"1"), END, kind=kind).status_code == 400


def test_a_connection_that_breaks_leaves_nothing_without_a_sweep(
    each_server: Server, api: httpx.Client
) -> None:
    start = prefix()
    body = field("prefix", start) + file("first", b"1" * 100_000) + file("second", bytes(500_000))[:-4]
    more = {"Content-Type": EDGE, "Content-Length": "5000000"}
    with wire.connect(each_server.url) as connection:
        connection.sendall(wire.head("POST", "/v1/assets", each_server.headers | more) + body)
        time.sleep(0.2)  # so that both files are on their way
    deadline = time.monotonic() + 10
    while (checked := each_server.run("fsck", "--json")).returncode and time.monotonic() < deadline:
        time.sleep(0.1)
    assert checked.returncode == 0, checked.stdout
    assert keys_under(api, start) == []


HOSTILE_NAMES = {
    "traversal": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "windows": "..\\..\\boot.ini",
    "drive": "C:\\autoexec.bat",
    "nul": "a\0.png",
    "crlf": "a\tX-Evil: 1.png",
    "encoded crlf": "a%0D%0AX-Evil: 1.png",
    "bidi": "invoice\u202egpj.exe",
    "5 kB": "x" * 5000 + ".png",
    "5 kB of umlauts": "ü" * 2500 + ".jpeg",
    "dotfile": ".htaccess",
    "device": "CON",
    "dot": ".",
    "dots": "..",
    "spaces": "   ",
    "percent": "%2e%2e%2fpasswd",
    "markup": "<img src=x onerror=alert(1)>.png",
    "semicolon": "a;filename=evil.sh",
    "quote": "a%22b.png",
    "emoji": "😀.png",
    "zero width": "a\u200bb.png",
    "newline in unicode": "a\u2028b\u0085c.png",
    "only controls": "\x01\x02\x7f",
    "nfd": "cafe\u0301.txt",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_hostile_file_names_never_fail_an_upload(each_server: Server, api: httpx.Client, name: str) -> None:
    start = prefix()
    made = post(api, field("prefix", start), file(name, name.encode()), END)
    assert made.status_code == 201, made.text
    (asset,) = made.json()["assets"]
    assert asset["key"].startswith(start)
    assert "/" not in asset["key"].removeprefix(start)
    assert_safe(asset["name"])
    for got in (api.get(asset["url"]), api.get("/b/media/" + quote(asset["key"]))):
        assert got.status_code == 200
        assert got.content == name.encode()
        assert "X-Evil" not in got.headers
        plain, extended = disposition_names(got.headers["Content-Disposition"])
        assert_safe(extended)
        assert_safe(plain)
        assert extended == asset["name"]


def test_names_on_disk_are_ours_alone(each_server: Server, api: httpx.Client) -> None:
    post(api, file("../../../escape-artist.sh", b"1"), END)
    for path in each_server.data_dir.rglob("*"):
        assert "escape" not in path.name
        assert not path.is_symlink()
    assert not list(each_server.data_dir.parent.glob("*escape*"))


def disposition_names(header: str) -> tuple[str, str]:
    """Both names of a Content-Disposition, read as RFC 6266 says."""
    assert header.isascii()
    assert header.isprintable()
    message = Message()
    message["Content-Disposition"] = header
    plain = message.get_param("filename", header="content-disposition")
    extended = header.partition("filename*=UTF-8''")[2].partition(";")[0]
    if isinstance(plain, tuple):  # the standard library prefers the extended one
        plain = header.partition('filename="')[2].partition('"')[0]
    return str(plain), unquote(extended, errors="strict")


def assert_safe(name: str) -> None:
    assert name
    assert name not in (".", "..")
    assert not set(name) & set("/\\\0\r\n\u202e\u202d\u2066\u2067\u200e\u200f\u2028\u2029")
    assert all(ord(character) >= 32 and not 127 <= ord(character) < 160 for character in name)
    assert len(name.encode()) <= 255


def test_the_plain_name_wins_over_the_extended_one(api: httpx.Client) -> None:
    both = part(b'name="file"; filename="plain.txt"; filename*=UTF-8\'\'smuggled.html', b"1")
    assert post(api, both, END).json()["assets"][0]["name"].startswith("plain")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b'name="file"; filename="a%22b.txt"', 'a"b.txt'),
        (b'name="file"; filename="a\\"b.txt"', 'a"b.txt'),
        (b'name="file"; filename="a\\\\b.txt"', "b.txt"),
        (b'name="file"; filename="50%.txt"', "50%.txt"),
        (b"name=file; filename=token.txt", "token.txt"),
        (b'filename="first.txt"; name="file"', "first.txt"),
        (b'name="file"; filename="C:\\fakepath\\photo.jpg"', "photo.jpg"),
        (b'name="file"; filename="caf\xe9.txt"', "café.txt"),
        (b'name="file"; filename="\xe6\x97\xa5\xe6\x9c\xac.txt"', "日本.txt"),
        (b'name="file"; filename="a;b.txt"', "a;b.txt"),
    ],
    ids=["browser quote", "curl quote", "curl backslash", "percent", "tokens", "order", "old browser", "latin-1",
         "utf-8", "semicolon"],
)  # fmt: skip
def test_names_as_clients_write_them(api: httpx.Client, sent: bytes, name: str) -> None:
    start = prefix()
    made = post(api, field("prefix", start), part(sent, b"1"), END)
    assert made.status_code == 201, made.text
    assert made.json()["assets"][0]["name"] == name


def test_a_file_input_left_alone_is_no_file(api: httpx.Client) -> None:
    """Browsers send an empty part without a name for it."""
    empty = part(b'name="file"; filename=""', b"", b"Content-Type: application/octet-stream")
    assert post(api, empty, END).status_code == 400
    made = post(api, empty, file("a.txt", b"1"), END)
    assert made.status_code == 201
    assert len(made.json()["assets"]) == 1


def test_an_empty_file_with_a_name_is_a_file(api: httpx.Client) -> None:
    assert post(api, file("empty.txt", b""), END).json()["assets"][0]["size"] == 0


def test_a_file_may_hold_what_looks_like_the_boundary(api: httpx.Client) -> None:
    content = b"--edg\r\n--edge\n\r\n-edge--\r\n--edgf" * 1000
    made = post(api, file("a", content), END)
    assert api.get(made.json()["assets"][0]["url"]).content == content


@pytest.mark.parametrize("size", [1, 3, 7, 4096, 65537])
def test_a_form_in_pieces_of_any_size_is_the_same(api: httpx.Client, size: int) -> None:
    content = os.urandom(20_000 if size > 100 else 500)
    body = field("bucket", "media") + file("a.bin", content) + file("b.bin", content[::-1]) + END

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    made = api.post("/v1/assets", content=pieces(), headers={"Content-Type": EDGE})
    assert made.status_code == 201
    assert [api.get(asset["url"]).content for asset in made.json()["assets"]] == [content, content[::-1]]


HOSTILE_BODIES = {
    "preamble of line breaks": b"\r\n" * (4 << 20),
    "preamble of dashes": b"--" * (1 << 20) + END,
    "epilogue of 8 MB": file("a", b"1") + END + b"\r\n" * (4 << 20),
    "epilogue": file("a", b"1") + END + b"x" * 1000,
    "20000 fields": b"".join(field(f"f{n}", "x") for n in range(20_000)) + END,
    "300 files": b"".join(file(f"f{n}", b"") for n in range(300)) + END,
    "long header": b'--edge\r\nContent-Disposition: form-data; name="a"\r\nX: ' + b"x" * (8 << 20) + END,
    "header bomb": b"--edge\r\n" + b"X-A: b\r\n" * 200_000 + b"\r\n1\r\n" + END,
    "header name bomb": b"--edge\r\n" + b"x" * (4 << 20) + b": 1\r\n\r\n1\r\n" + END,
    "parameter bomb": part(b'name="f"; ' + b'x="y"; ' * 100_000, b"1") + END,
    "quote bomb": part(b'name="' + b'\\"' * 500_000, b"1") + END,
    "line breaks inside": file("a", b"\r\n" * (2 << 20)) + END,
    "almost boundaries": file("a", b"\r\n--edg" * (1 << 18)) + END,
    "nested": file("a", b"1", b"Content-Type: multipart/mixed; boundary=inner") + END,
    "transfer encoding": file("a", b"MQ==", b"Content-Transfer-Encoding: base64") + END,
    "null bytes": b"\0" * 100_000,
    "bare line feeds": END.join([file("a", b"1").replace(b"\r\n", b"\n"), b""]),
}  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES)
def test_a_hostile_form_harms_nobody(
    each_server: Server, make_bucket: Callable[..., str], body: bytes
) -> None:
    target = f"/v1/assets?bucket={make_bucket()}"
    before = resident(each_server)
    try:
        with each_server.client() as api:
            answer = post(api, body, target=target)
        assert answer.status_code in (201, 207, 400), answer.text
    except (httpx.WriteError, httpx.ReadError):
        pass  # hung up on: the answer came early and this client did not look
    assert resident(each_server) - before < 50 << 20
    with each_server.client() as api:
        assert post(api, file("next", b"works"), END).status_code == 201


def resident(server: Server) -> int:
    """Bytes of memory the server process uses."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_the_metadata_headers_of_a_form_count_too(api: httpx.Client) -> None:
    made = api.post("/v1/assets", files={"f": ("a.txt", b"1")}, headers={"X-Meta-By": "me", "X-Tags": "t"})
    asset = made.json()["assets"][0]
    assert (asset["metadata"], asset["tags"]) == ({"by": "me"}, ["t"])
    assert urlsplit(asset["url"]).scheme == "http"
