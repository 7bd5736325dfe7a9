"""`mediasvc push` as people run it, against a real server."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from mediasvc.cli.local_files import find_files
from mediasvc.cli.remote import Item, Remote
from mediasvc.cli.transfer import transfer

UNKNOWN_KEY = "msk_" + "0" * 40


def push(*arguments: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MEDIASVC_")}
    return subprocess.run(
        [sys.executable, "-m", "mediasvc", "push", *map(os.fspath, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
        env=clean | env,
        cwd=cwd,
    )


def push_to(server, *arguments: object) -> subprocess.CompletedProcess[str]:
    return push(*arguments, MEDIASVC_SERVER=server.url, MEDIASVC_KEY=server.admin_key)


def get(server, key: str) -> httpx.Response:
    url = f"{server.url}/b/media/{quote(key)}"
    return httpx.get(url, headers={"Authorization": f"Bearer {server.admin_key}"})


def version(server, key: str) -> int:
    with server.client() as client:
        (asset,) = client.get("/v1/assets", params={"prefix": key}).json()["assets"]
    return asset["version"]


def tree(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


NAMES = [
    "plain.txt",
    ".hidden",
    "deep/er/still.bin",
    "100% sure?.txt",
    "a#b c+d&e=f;g.txt",
    "%2e%2e%2f.txt",
    "Ünïcode 写真.jpg",
    "empty",
]


def test_a_folder_lies_there_byte_for_byte_under_the_names_rclone_would_give(each_server, tmp_path):
    folder = tree(tmp_path / "in", **{name: name.encode() * 999 for name in NAMES[:-1]}, empty=b"")
    done = push_to(each_server, folder, "--to", "media/names")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{len(NAMES)} of {len(NAMES)} pushed"
    for name in NAMES:
        assert get(each_server, f"names/{name}").content == (folder / name).read_bytes(), name


def test_a_file_is_named_by_its_own_name_and_a_prefix_is_optional(server, tmp_path):
    file = tree(tmp_path, **{"some/where/one.txt": b"one"}) / "some/where/one.txt"
    assert push_to(server, file, "--to", "media").returncode == 0
    assert push_to(server, file, "--to", "media/trailing/").returncode == 0
    assert [get(server, key).text for key in ("one.txt", "trailing/one.txt")] == ["one", "one"]


def test_a_second_run_sends_nothing_and_a_changed_file_alone(server, tmp_path):
    folder = tree(tmp_path / "in", a=b"a", b=b"b", c=b"c")
    push_to(server, folder, "--to", "media/again")
    first = version(server, "again/a")
    assert push_to(server, folder, "--to", "media/again").stdout == "0 of 3 pushed, 3 already there\n"
    (folder / "b").write_bytes(b"other")
    done = push_to(server, folder, "--to", "media/again", "--json")
    told = {line["key"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert {key: line["status"] for key, line in told.items()} == {
        "again/a": "present",
        "again/b": "pushed",
        "again/c": "present",
    }
    assert told["again/b"]["sha256"] == hashlib.sha256(b"other").hexdigest()
    assert get(server, "again/b").content == b"other"
    assert (version(server, "again/a"), version(server, "again/b")) == (first, first + 1)


def test_what_can_not_be_read_or_named_fails_alone_and_the_rest_arrives(server, tmp_path):
    folder = tree(tmp_path / "in", good=b"good")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"latin 1")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    long_name = folder / ("d" * 250) / ("e" * 250) / ("f" * 250) / ("g" * 250)
    long_name.mkdir(parents=True)
    (long_name / ("h" * 250)).write_bytes(b"deep")
    done = push_to(server, folder, "--to", "media/partly")
    assert done.returncode == 6
    assert "1 of 4 pushed, 3 failed (listed above); run the same command again to resume" in done.stdout
    assert "caf\\xe9.txt: the key is not valid UTF-8" in done.stderr
    assert "gone: cannot be read: no such file or directory" in done.stderr
    assert "at most 1024 are allowed" in done.stderr
    assert get(server, "partly/good").content == b"good"


def test_links_to_files_are_followed_and_loops_and_pipes_are_passed_by(server, tmp_path):
    folder = tree(tmp_path / "in", real=b"real")
    (folder / "link").symlink_to("real")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe")
    done = push_to(server, folder, "--to", "media/links")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 of 2 pushed")
    assert "skipped" in done.stderr
    assert get(server, "links/link").content == b"real"


def test_two_files_that_would_share_a_key_are_not_both_believed(server, tmp_path):
    names = [unicodedata.normalize(form, "é.txt") for form in ("NFC", "NFD")]
    folder = tree(tmp_path / "in", **dict.fromkeys(names, b"x"))
    if len(list(folder.iterdir())) == 1:
        pytest.skip("this file system normalises names")
    done = push_to(server, folder, "--to", "media/twins")
    assert done.returncode == 6
    assert "another file of this push has the key" in done.stderr


def test_a_key_that_may_only_write_can_push(server, tmp_path):
    made = httpx.post(
        f"{server.url}/v1/keys",
        headers={"Authorization": f"Bearer {server.admin_key}"},
        json={"scopes": ["assets:write"], "bucket": "media", "prefix": "inbox/"},
    ).raise_for_status()
    file = tree(tmp_path, note=b"note") / "note"
    done = push(file, "--to", "media/inbox", MEDIASVC_SERVER=server.url, MEDIASVC_KEY=made.json()["secret"])
    assert (done.returncode, done.stderr) == (0, "")
    assert get(server, "inbox/note").content == b"note"


def test_the_key_comes_from_the_data_directory_when_none_is_given(server, tmp_path):
    file = tree(tmp_path, home=b"home") / "home"
    done = push(file, "--to", "media", "--server", server.url, MEDIASVC_DATA_DIR=str(server.data_dir))
    assert done.returncode == 0
    assert server.admin_key not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "exit_code", "sentence"),
    [
        (["missing.txt", "--to", "media"], {}, 4, "missing.txt does not exist"),
        (["missing/", "--to", "media"], {}, 3, "missing/ does not exist"),
        (["here", "--to", "../etc"], {}, 2, "is no bucket name"),
        (["here", "--to", "media/../x"], {}, 2, 'segment "." or ".."'),
        (["here", "--to", "media", "--server", "ftp://x"], {}, 2, "is not an address"),
        (["here"], {}, 2, "--to"),
        (["here", "--to", "media"], {"MEDIASVC_KEY": ""}, 2, "no key"),
        (["here", "--to", "media"], {"MEDIASVC_KEY": UNKNOWN_KEY}, 1, "does not know this key"),
        (["here", "--to", "no-such-bucket"], {}, 3, "no-such-bucket"),
        (["here", "--to", "media", "--server", "AWAY", "--retries", "1"], {}, 5, "is away"),
    ],
    ids=[
        "file",
        "folder",
        "bucket",
        "dots",
        "address",
        "usage",
        "no key",
        "unknown key",
        "no bucket",
        "away",
    ],
)
def test_what_can_not_be_done_says_why_and_exits_as_rclone(
    server, tmp_path, arguments, env, exit_code, sentence
):
    tree(tmp_path, here=b"here")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = push(
            *(nobody if argument == "AWAY" else argument for argument in arguments),
            cwd=tmp_path,
            **{"MEDIASVC_SERVER": server.url, "MEDIASVC_KEY": server.admin_key} | env,
        )
    assert done.returncode == exit_code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not [secret for secret in (UNKNOWN_KEY, server.admin_key) if secret in done.stdout + done.stderr]


def test_a_file_that_changes_while_it_is_pushed_is_reported_and_not_stored(server, tmp_path):
    file = tree(tmp_path, live=b"before") / "live"

    class Meddling(Remote):
        def present(self, bucket: str, items: list[Item]) -> list[bool]:
            file.write_bytes(b"after, and longer")
            return super().present(bucket, items)

    with Meddling(server.url, server.admin_key, connections=1, retries=0) as remote:
        (outcome,) = transfer(find_files([str(file)], "busy"), "media", remote, concurrency=1)
    assert (outcome.status, outcome.error) == ("failed", "changed while it was being read")
    assert get(server, "busy/live").status_code == 404


@contextmanager
def a_server_that_fails_once(how: str) -> Iterator[tuple[str, list[bytes]]]:
    """Answers the first PUT with 503, or cuts it off; keeps the bodies that arrived whole."""
    bodies: list[bytes] = []
    failed = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200, {"items": [{"present": False}]})

        def do_PUT(self) -> None:
            if not failed.is_set():
                failed.set()
                self.rfile.read(1000)
                if how == "503":
                    self.answer(503, {"detail": "away"})
                self.close_connection = True
                return
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(201, {"id": "ast_1", "sha256": hashlib.sha256(bodies[-1]).hexdigest()})

        def answer(self, status: int, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", bodies
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize("how", ["503", "cut off"])
def test_an_upload_that_fails_midway_is_sent_again_from_its_first_byte(tmp_path, how):
    file = tree(tmp_path, big=os.urandom(3_000_000)) / "big"
    with a_server_that_fails_once(how) as (url, bodies):
        done = push(file, "--to", "media", "--server", url, "--key", UNKNOWN_KEY)
    assert done.returncode == 0, done.stderr
    assert bodies == [file.read_bytes()]
    assert "trying again in" in done.stderr
