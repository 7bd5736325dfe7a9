"""Uppy with its tus plugin, in a page of another site than the service's, in a real browser."""

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest

from tests.clients.line import Line
from tests.clients.npm import HERE, installed
from tests.clients.service import MIB, File, Service
from tests.modes import need
from tests.protocols.delivery.page import Page, browse


@pytest.fixture(scope="session")
def uppy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Uppy in one script, made as a website makes it."""
    need("chromium")
    modules = installed() / "node_modules"
    script = tmp_path_factory.mktemp("uppy") / "uppy.js"
    command = [modules / ".bin" / "esbuild", HERE / "uppy.js", "--bundle", f"--outfile={script}"]
    subprocess.run(
        [*command, "--log-level=warning"],
        check=True,
        env=os.environ | {"NODE_PATH": str(modules)},
        timeout=60,
    )
    return script.read_text().replace("</script", "<\\/script")


def made(folder: Path, size: int) -> File:
    """The file that the page makes as well."""
    words = numpy.arange(-(-size // 4), dtype=numpy.uint32) * numpy.uint32(2654435761)
    content = words.tobytes()[:size]
    return File(folder / "unused", content)


def sent(uppy: str, file: File, options: Mapping[str, object], folder: Path) -> str:
    """Where Uppy says that the file is."""
    asked = json.dumps({"size": file.size, "retryDelays": [100] * 100} | dict(options))
    failed = "error => tell({failed: String(error)})"
    page = f"<script>{uppy}</script><script>upload({asked}).then(tell, {failed})</script>"
    told: dict[str, Any] = browse(Page(page), folder)
    assert not told["failed"], told
    return str(told["url"])


@pytest.mark.parametrize("chunk", [{}, {"chunkSize": MIB}], ids=["whole", "chunked"])
def test_a_page_uploads_with_a_key(
    uppy: str, service: Service, chunk: dict[str, object], tmp_path: Path
) -> None:
    file = made(tmp_path, 5 * MIB + 12_345)
    options = {"endpoint": service.endpoint, "headers": service.headers} | chunk
    service.check(sent(uppy, file, options, tmp_path), file)


def test_a_page_uploads_with_a_token(uppy: str, service: Service, tmp_path: Path) -> None:
    """The page has no key; it learns where the upload is, and nothing else."""
    file = made(tmp_path, 5 * MIB + 12_345)
    wanted = {"bucket": "media", "prefix": f"from-the-page-{tmp_path.name}/", "expires_in": "1h"}
    made_token = httpx.post(f"{service.url}/v1/upload-tokens", headers=service.headers, json=wanted)
    endpoint = made_token.raise_for_status().json()["tus_url"]
    url = sent(uppy, file, {"endpoint": endpoint, "chunkSize": MIB}, tmp_path)
    assert url.startswith(f"{endpoint}/")
    service.check_named("media", wanted["prefix"], file)


@pytest.mark.parametrize("service", ["s3"], indirect=True)
@pytest.mark.parametrize("multipart", [False, True], ids=["single", "multipart"])
def test_a_page_uploads_straight_to_the_store(
    uppy: str, service: Service, multipart: bool, tmp_path: Path
) -> None:
    file = made(tmp_path, 12 * MIB + 12_345)
    wanted = {"bucket": "media", "prefix": f"straight-{tmp_path.name}/", "expires_in": "1h"}
    made_token = httpx.post(f"{service.url}/v1/upload-tokens", headers=service.headers, json=wanted)
    endpoint = made_token.raise_for_status().json()["companion_url"]
    sent(uppy, file, {"companionEndpoint": endpoint, "multipart": multipart}, tmp_path)
    service.check_named("media", wanted["prefix"], file)


@pytest.mark.parametrize("mortal", ["disk"], indirect=True)
def test_kill_9_in_the_middle_and_the_page_goes_on(
    uppy: str, mortal: Service, line: Line, tmp_path: Path
) -> None:
    file = made(tmp_path, 80 * MIB)
    line.hold_after(50 * MIB)

    def restart() -> None:
        line.wait_until_held()
        mortal.server.kill()
        mortal.server.start()
        line.target = mortal.url
        line.cut()

    killer = threading.Thread(target=restart)
    killer.start()
    options = {"endpoint": f"{line.url}/v1/uploads", "headers": mortal.headers, "chunkSize": 64 * MIB}
    url = sent(uppy, file, options, tmp_path)
    killer.join()
    assert url == mortal.only_upload()
    mortal.check(url, file)
