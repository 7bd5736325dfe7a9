"""A page of our own in headless Chromium, that tells us what came of it."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from tests.modes import need

QUIET = [
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
TELL = "<script>const tell = what => fetch('/told', {method: 'POST', body: JSON.stringify(what)});</script>"


@dataclass(frozen=True)
class Page:
    """Its HTML, in which `tell(…)` sends JSON to the test, and the headers it comes with."""

    html: str
    headers: Mapping[str, str] = field(default_factory=dict)


def browse(page: Page, profile: Path, *, patience: float = 60) -> Any:
    """What the page told first, shown at another site than the service's (localhost against 127.0.0.1)."""
    need("chromium")
    told: Queue[Any] = Queue()
    text = f"<!doctype html><meta charset=utf-8>{TELL}{page.html}".encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/"
            self.send_response(200 if found else 404)
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(text) if found else 0))
            self.end_headers()
            self.wfile.write(text if found else b"")

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        program = shutil.which("chromium")
        assert program
        # Chromium's sandbox does not start as root, and has nothing to guard against here.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        address = f"http://localhost:{host.server_address[1]}/"
        command = [program, *QUIET, *sandbox, f"--user-data-dir={profile / 'chromium'}", address]
        with (profile / "chromium.log").open("ab") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            return told.get(timeout=patience)
        except Empty:
            pytest.fail(f"the page told nothing: {(profile / 'chromium.log').read_text()[-2000:]}")
        finally:
            browser.terminate()
            browser.wait()
            host.shutdown()
