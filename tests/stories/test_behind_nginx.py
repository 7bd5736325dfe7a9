"""deploy/behind-nginx: the pair with one command, and what nginx makes of what the service hands over."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.ceph import Ceph
from tests.servers import BEHIND_NGINX, BehindNginx, Server, behind_nginx

NGINX_CONF = Path(__file__).parents[2] / "nginx.conf"
SMALL, LARGE = os.urandom(3_300_001), os.urandom(66 << 20)  # through the cache, and too large for it


def children(pid: int) -> dict[int, str]:
    """The processes below this one, and their command lines."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    found = {int(child): args for child, parent, args in rows if int(parent) == pid}
    return found | {pid: args for child in found for pid, args in children(child).items()}


def family(server: Server) -> dict[str, int]:
    """The three processes that must live and die together."""
    below = children(server.pid)
    return {
        "the script": server.pid,
        "nginx": next(pid for pid, args in below.items() if "nginx: master" in args),
        "mediasvc": next(
            pid for pid, args in below.items() if " serve " in args and "nginx" not in args.split()[0]
        ),
    }


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def metric(server: Server, name: str) -> float:
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def by_python(server: Server) -> float:
    """Bytes of downloads that passed through the service."""
    return sum(
        metric(server, f'mediasvc_download_bytes_total{{plan="{plan}"') for plan in ("sendfile", "stream")
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BehindNginx]:
    with behind_nginx(tmp_path_factory.mktemp("pair") / "data") as server:
        yield server


@pytest.fixture(scope="module", params=["plain", "tls"])
def pair_on_s3(
    request: pytest.FixtureRequest, ceph: Ceph, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BehindNginx]:
    data_dir = tmp_path_factory.mktemp(f"pair-{request.param}") / "data"
    env = ceph.environment(f"pair-{secrets.token_hex(4)}", tls=request.param == "tls")
    Server(data_dir, **env).prepare_store()
    with behind_nginx(data_dir, **env) as server:
        yield server


def test_what_is_printed_and_answered_names_the_address_of_nginx(pair):
    with pair.client() as client:
        assert client.get("/healthz").headers["Server"] == "nginx"
        made = client.put("/b/media/hello.txt", content=b"hello")
        assert made.headers["Location"].startswith(f"{pair.url}/f/")
        assert client.get(made.headers["Location"]).content == b"hello"


def test_bytes_on_disk_leave_by_nginx_with_the_headers_of_the_service(pair):
    with pair.client() as client:
        made = client.put("/b/media/large.bin", content=LARGE)
        answer = client.get("/b/media/large.bin")
    assert answer.content == LARGE
    assert answer.headers["ETag"] == made.headers["ETag"]
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Repr-Digest"].startswith("sha-256=:")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert metric(pair, 'mediasvc_downloads_total{plan="nginx"') >= 1
    assert by_python(pair) == 0


def test_a_file_that_is_gone_is_a_404_that_no_cache_keeps(pair):
    with pair.client() as client:
        before = set((pair.data_dir / "blobs").rglob("*"))
        client.put("/b/public/lost.bin", content=b"lost")
        for path in set((pair.data_dir / "blobs").rglob("*")) - before:
            if path.is_file():
                path.unlink()
        assert client.head("/b/public/lost.bin").status_code == 404
        answer = client.get("/b/public/lost.bin", headers={"Origin": "https://page.example"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers.get_list("Cache-Control") == ["no-store"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert not {"ETag", "Last-Modified", "Repr-Digest"} & set(answer.headers)


@pytest.mark.parametrize(
    "path", ["/_blobs/ab/cd/abcd", "/_blobs/../data/admin.key", "/_blobs../admin.key", "/.refused"]
)
def test_what_is_internal_does_not_exist_outside(pair, path):
    with pair.client(anonymous=True) as client:
        answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_copy_differs_in_the_site_lines_and_nowhere_else(pair):
    shipped = NGINX_CONF.read_text().splitlines()
    copy = (pair.nginx_dir / "nginx.conf").read_text().splitlines()
    assert len(copy) == len(shipped)
    for ours, theirs in zip(shipped, copy, strict=True):
        assert (ours != theirs) == ours.endswith("# site"), ours


def test_other_commands_are_those_of_mediasvc(pair):
    command = [sys.executable, BEHIND_NGINX, "keys", "create", "--scope", "assets:read"]
    env = pair.env | {"MEDIASVC_DATA_DIR": str(pair.data_dir)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("msk_")


def test_a_taken_port_is_one_sentence(pair):
    port = pair.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, BEHIND_NGINX, "serve", "--port", port], env=pair.env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"behind-nginx: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "choose others with --host, --port"
    ]


def test_sigterm_ends_both_with_0_and_leaves_nothing(tmp_path):
    with behind_nginx(tmp_path / "data") as server:
        everyone, folder = {server.pid, *children(server.pid)}, server.nginx_dir
        assert server.stop() == 0
        assert not any(map(alive, everyone))
        assert not folder.exists()


@pytest.mark.parametrize("victims", ["the script", "nginx", "mediasvc", "the script and nginx"])
def test_when_some_are_killed_all_end(tmp_path, victims):
    with behind_nginx(tmp_path / "data") as server:
        everyone, folder = {server.pid, *children(server.pid)}, server.nginx_dir
        pids = family(server)
        for victim in victims.split(" and "):
            os.kill(pids[victim], signal.SIGKILL)
        assert server.wait() != 0
        assert eventually(lambda: not any(map(alive, everyone)))
        assert eventually(lambda: not folder.exists())


def test_until_the_service_is_ready_nginx_says_so(tmp_path):
    """A mediasvc that waits for leave to start stands first in PATH."""
    go, slow = tmp_path / "go", tmp_path / "mediasvc"
    slow.write_text(
        f'#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.05; done\nexec {sys.executable} -m mediasvc "$@"\n'
    )
    slow.chmod(0o755)
    server, port = BehindNginx(tmp_path / "data"), free_port()
    env = server.env | {"PATH": f"{tmp_path}:{server.env['PATH']}"}
    command = [sys.executable, BEHIND_NGINX, "serve", f"--port={port}", "--data-dir", tmp_path / "data"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        early = httpx.Client(transport=httpx.HTTPTransport(retries=6))  # until the port is bound
        answer = early.get(f"http://127.0.0.1:{port}/healthz")
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"]
        go.touch()
        assert eventually(lambda: early.get(f"http://127.0.0.1:{port}/healthz").status_code == 200)
        early.close()
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def checkout_with(folder: Path, conf: str) -> subprocess.CompletedProcess[str]:
    """What the script says in a checkout whose nginx.conf is this one."""
    (folder / "deploy").mkdir()
    shutil.copy(BEHIND_NGINX, folder / "deploy")
    (folder / "nginx.conf").write_text(conf)
    env = BehindNginx(folder / "data").env
    command = [sys.executable, folder / "deploy" / "behind-nginx", "serve", "--port", "0"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


SITE_LINES = [line for line in NGINX_CONF.read_text().splitlines() if line.endswith("# site")]


@pytest.mark.parametrize("missing", SITE_LINES, ids=lambda line: " ".join(line.split()[:2]))
def test_without_one_of_the_site_lines_it_stops(tmp_path, missing):
    done = checkout_with(tmp_path, NGINX_CONF.read_text().replace(f"{missing}\n", "", 1))
    assert done.returncode == 1
    assert f"lacks a line `{missing.split()[0]}" in done.stderr


def test_a_site_line_it_does_not_know_stops_it_too(tmp_path):
    done = checkout_with(tmp_path, NGINX_CONF.read_text() + "# ssl_certificate /etc/x.pem;  # site\n")
    assert done.returncode == 1
    assert "# ssl_certificate /etc/x.pem;" in done.stderr


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["cached", "streamed"])
def test_bytes_in_s3_leave_by_nginx_and_no_temporary_file(pair_on_s3, body):
    key = f"/b/media/{len(body)}.bin"
    with pair_on_s3.client() as client:
        made = client.put(key, content=body)
        assert client.get(key).content == body
        part = client.get(key, headers={"Range": "bytes=1048570-3145735"})
        left = client.get(key, headers={"Range": f"bytes={len(body)}-, -7"})
        end = client.get(key, headers={"Range": "bytes=-7", "If-Range": made.headers["ETag"]})
        other = client.get(key, headers={"Range": "bytes=-7", "If-Range": '"other"'})
        again = client.get(key, headers={"If-None-Match": made.headers["ETag"]})
    assert (part.status_code, part.content) == (206, body[1048570:3145736])
    assert part.headers["Content-Range"] == f"bytes 1048570-3145735/{len(body)}"
    assert part.headers["ETag"] == made.headers["ETag"]
    assert (left.status_code, left.content) == (206, body[-7:])
    assert (end.status_code, end.content) == (206, body[-7:])
    assert (other.status_code, len(other.content)) == (200, len(body))
    assert again.status_code == 304
    assert not list((pair_on_s3.nginx_dir / "proxy").iterdir())
    assert "temporary file" not in pair_on_s3.logged()
    assert by_python(pair_on_s3) == 0


def test_what_the_store_lost_is_a_404_that_is_not_kept(pair_on_s3, ceph):
    bucket = pair_on_s3.env["MEDIASVC_STORE_URL"].removeprefix("s3://").partition("?")[0]
    for number, body in enumerate((SMALL, LARGE)):
        key, before = f"/b/media/lost-{number}", set(ceph.keys_of(bucket))
        with pair_on_s3.client() as client, contextlib.closing(ceph.client()) as store:
            client.put(key, content=body)
            (blob,) = set(ceph.keys_of(bucket)) - before
            kept = store.get_object(Bucket=bucket, Key=blob)["Body"].read()
            store.delete_object(Bucket=bucket, Key=blob)
            lost = client.get(key)
            assert (lost.status_code, lost.json()["code"]) == (404, "not_found")
            assert lost.headers.get_list("Cache-Control") == ["no-store"]
            store.put_object(Bucket=bucket, Key=blob, Body=kept)
            assert client.get(key).content == body


def test_a_store_that_is_away_is_a_problem_and_what_nginx_has_is_still_served(pair_on_s3, ceph):
    with pair_on_s3.client() as client:
        for name, body in (("cached", SMALL), ("fresh", SMALL[::-1]), ("large", LARGE)):
            client.put(f"/b/media/{name}", content=body)
        assert client.get("/b/media/cached").content == SMALL
        ceph.stop_gateway()
        try:
            assert client.get("/b/media/cached").content == SMALL
            for name in ("fresh", "large"):
                away = client.get(f"/b/media/{name}")
                assert (away.status_code, away.json()["retryable"]) == (502, True)
                assert away.headers["Content-Type"] == "application/problem+json"
                assert away.headers.get_list("Cache-Control") == ["no-store"]
                assert away.headers["Retry-After"]
        finally:
            ceph.start_gateway()
        assert eventually(lambda: client.get("/b/media/fresh").status_code == 200)
        assert client.get("/b/media/fresh").content == SMALL[::-1]


def test_a_store_behind_tls_needs_a_name_that_a_certificate_can_hold(tmp_path):
    env = BehindNginx(tmp_path / "data").env
    env["MEDIASVC_STORE_URL"] = "s3://media-blobs?endpoint=https://192.0.2.7:9000"
    command = [sys.executable, BEHIND_NGINX, "serve", "--port", "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "192.0.2.7" in done.stderr
