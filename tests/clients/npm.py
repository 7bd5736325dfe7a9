"""Programs in Node that upload with the clients which tests/clients/install brought."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.service import PATIENCE, File
from tests.modes import need

HERE = Path(__file__).parent


def installed() -> Path:
    """The folder with the clients' node_modules; skips where they are missing, fails under CI."""
    need("node")
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    folder = HERE.parents[1] / ".cache" / f"npm-{digest[:16]}"
    if not (folder / "ready").exists():
        reason = "the clients from npm are not installed (tests/clients/install does it)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder


class TusJs:
    """One run of tus-js-client with a file: `options` are its own, `heard` what it told so far."""

    def __init__(self, file: File, options: Mapping[str, object], **more: object) -> None:
        draft, deferred = "protocol" in options, "uploadLengthDeferred" in options
        source = "stream" if deferred else "buffer" if draft else "file"
        told = {
            "clients": str(installed()),
            "path": str(file.path),
            "source": source,
            "options": options,
        } | more
        self.heard: list[dict[str, Any]] = []
        # A pipe would be full before anybody reads it.
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["node", HERE / "tus.mjs", json.dumps(told)],
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> "TusJs":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> None:
        """Until it has ended by itself."""
        if not self._out.closed:
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            with self._out:
                self._out.seek(0)
                lines = self._out.read().splitlines()
            self.heard = [json.loads(line) for line in lines if line.startswith("{")]
            self.complaints = "\n".join(line for line in lines if not line.startswith("{"))

    def finish(self) -> str:
        """Where the upload is, once all of it was sent."""
        self.wait()
        assert self.heard, self.complaints
        last = self.heard[-1]
        assert "done" in last, (self.heard[-8:], self.complaints)
        return str(last["done"])

    def last(self, name: str) -> Any:
        """What was told under this name most recently."""
        return next(event[name] for event in reversed(self.heard) if name in event)

    def offsets(self) -> list[int]:
        """Where its bodies began."""
        return [event["offset"] for event in self.heard if event.get("sent") in ("PATCH", "POST")]
