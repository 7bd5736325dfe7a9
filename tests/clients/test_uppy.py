"""Uppy with its tus plugin, in a page of another site than the service's, in a real browser."""

import json
import os
import re
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

README = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```js uppy\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="session")
def uppy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bundled(HERE / "uppy.js", tmp_path_factory.mktemp("uppy"))


def bundled(source: Path, folder: Path) -> str:
    """It and what it imports in one script, made as a website makes it."""
    need("chromium")
    modules = installed() / "node_modules"
    script = folder / "bundled.js"
    command = [modules / ".bin" / "esbuild", source, "--bundle", f"--outfile={script}"]
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
    return told_by(f"<script>{uppy}</script><script>upload({asked}).then(tell, {FAILED})</script>", folder)


FAILED = "error => tell({failed: String(error)})"


def told_by(page: str, folder: Path) -> str:
    told: dict[str, Any] = browse(Page(page), folder)
    assert not told["failed"], told
    return str(told["url"])


def new_token(service: Service, prefix: str) -> dict[str, Any]:
    wanted = {"bucket": "media", "prefix": prefix, "expires_in": "1h"}
    made_token = httpx.post(f"{service.url}/v1/upload-tokens", headers=service.headers, json=wanted)
    told: dict[str, Any] = made_token.raise_for_status().json()
    return told


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
    token = new_token(service, prefix := f"from-the-page-{tmp_path.name}/")
    endpoint = token["tus_url"]
    url = sent(uppy, file, {"endpoint": endpoint, "chunkSize": MIB}, tmp_path)
    assert url.startswith(f"{endpoint}/")
    service.check_named("media", prefix, file)


@pytest.mark.parametrize("service", ["s3", "nginx-s3"], indirect=True)
@pytest.mark.parametrize("multipart", [False, True], ids=["single", "multipart"])
def test_a_page_uploads_straight_to_the_store(
    uppy: str, service: Service, multipart: bool, tmp_path: Path
) -> None:
    file = made(tmp_path, 12 * MIB + 12_345)
    token = new_token(service, prefix := f"straight-{tmp_path.name}/")
    sent(uppy, file, {"companionEndpoint": token["companion_url"], "multipart": multipart}, tmp_path)
    service.check_named("media", prefix, file)


@pytest.mark.parametrize("service", ["s3", "nginx-s3"], indirect=True)
@pytest.mark.parametrize("example", EXAMPLES, ids=["through us", "straight to the store"])
def test_the_examples_of_the_readme_upload(service: Service, example: str, tmp_path: Path) -> None:
    """Each makes an `uppy` and is given a `token`; what comes before and after is the website's."""
    file = made(tmp_path, 5 * MIB + 12_345)
    token = new_token(service, prefix := f"readme-{tmp_path.name}/")
    source = tmp_path / "example.mjs"
    source.write_text(
        f"{example}\nglobalThis.upload = data => {{ uppy.addFile({{name: 'a.bin', data}}); return uppy.upload() }}\n"
    )
    page = f"""<script>const token = {json.dumps(token)}</script><script>{bundled(source, tmp_path)}</script><script>
        const words = Uint32Array.from({{length: {-(-file.size // 4)}}}, (_, i) => Math.imul(i, 2654435761))
        upload(new Blob([new Uint8Array(words.buffer, 0, {file.size})])).then(({{successful, failed}}) =>
            tell({{url: successful[0]?.uploadURL, failed: failed.map(file => String(file.error))}}), {FAILED})
    </script>"""
    told_by(page, tmp_path)
    service.check_named("media", prefix, file)


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
