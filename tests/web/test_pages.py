"""The page's files: whole, only ours, and served so that nothing stale and nothing foreign runs."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from mediasvc.web import errors
from mediasvc.web.docs import add_docs
from mediasvc.web.pages import add_pages
from mediasvc.web.pages.pages import FOLDER

pytestmark = pytest.mark.anyio
SCRIPTS = sorted(FOLDER.glob("*.js"))
FILES = [path.name for path in sorted(FOLDER.iterdir()) if path.suffix in (".js", ".css", ".svg")]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(docs_url=None, redoc_url=None, exception_handlers=errors.handlers())
    add_pages(app)
    add_docs(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        if tag in ("script", "link", "img"):
            self.loaded.append(has.get("src") or has.get("href") or "")
        if tag == "style" or (tag == "script" and not has.get("src")):
            self.inline.append(tag)
        self.inline += [name for name in has if name == "style" or name.startswith("on")]
        if identity := has.get("id"):
            self.ids.append(identity)


HTML = (FOLDER / "index.html").read_text(encoding="utf-8")


async def test_browsers_get_the_page_and_programs_the_documentation(client: httpx.AsyncClient) -> None:
    page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"})
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    program = await client.get("/", headers={"Accept": "*/*"})
    assert program.status_code == 307
    assert program.headers["location"] == "docs"
    assert page.headers["vary"] == program.headers["vary"] == "Accept"


@pytest.mark.parametrize("name", FILES)
async def test_a_file_is_sent_once_and_asked_for_each_time(client: httpx.AsyncClient, name: str) -> None:
    first = await client.get(f"/page/{name}")
    assert first.content == (FOLDER / name).read_bytes()
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for held in (etag, "W/" + etag, f'"other", {etag}', "*"):
        again = await client.get(f"/page/{name}", headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await client.get(f"/page/{name}", headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
async def test_nothing_runs_or_loads_that_is_not_ours(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path, headers={"Accept": "text/html"})).headers
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "pages.py", "__init__.py", "..%2Fpages.py"])
async def test_other_files_are_not_there(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_html_holds_no_script_and_no_style_and_each_id_once() -> None:
    page = Reader(HTML)
    assert page.inline == []
    assert len(page.ids) == len(set(page.ids))
    assert [
        name.removeprefix("page/") for name in page.loaded if name.removeprefix("page/") not in FILES
    ] == []
    assert not any("//" in name for name in page.loaded)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_module_imports_ours_alone_and_never_writes_html(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    for imported in re.findall(r'from "([^"]+)"|import\("([^"]+)"\)', text):
        name = "".join(imported)
        assert name.startswith("./"), name
        assert (FOLDER / name).exists(), name
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)


def test_every_element_that_a_module_looks_for_is_on_the_page() -> None:
    ids = set(Reader(HTML).ids)
    for script in SCRIPTS:
        for wanted in re.findall(
            r'(?:getElementById|\bat)\("([\w-]+)"\)', script.read_text(encoding="utf-8")
        ):
            assert wanted in ids, f"{script.name}: {wanted}"
