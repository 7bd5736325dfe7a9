"""Headless Chromium, driven over its DevTools protocol: what a person does with a page, and what it then shows."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.modes import need
from tests.protocols.delivery.page import QUIET

PATIENCE = 30.0  # seconds


class Browser:
    """One tab. `see` waits until an expression is true, `evaluate` gives its value (promises are awaited)."""

    def __init__(self, connection: ClientConnection, url: str, *, incognito: bool = False) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.complaints: list[str] = []  # exceptions nobody caught, and what broke the page's policy
        context = self.command("Target.createBrowserContext", disposeOnDetach=True) if incognito else {}
        made = self.command("Target.createTarget", url="about:blank", **context)
        attached = self.command("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.command(f"{domain}.enable")
        self.go(url)

    def command(self, method: str, **parameters: Any) -> Any:
        """Send one command and wait for its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer.get("result", {})
            self._hear(answer)

    def _hear(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if event["params"]["entry"]["source"] == "security":
                self.complaints.append(event["params"]["entry"]["text"])
            case "Page.javascriptDialogOpening":
                # Nobody waits here for the answer: this may stand between a command and its own.
                answer = {"id": next(self._numbers), "method": "Page.handleJavaScriptDialog"}
                answer |= {"params": {"accept": True}, "sessionId": self._session}
                self._connection.send(json.dumps(answer))

    def go(self, url: str) -> None:
        self.command("Page.navigate", url=url)
        self.see(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def reload(self) -> None:
        """As by the key F5."""
        self.evaluate("window.old = true")
        self.command("Page.reload")
        self.see("!window.old && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        result = self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def see(self, expression: str, patience: float = PATIENCE) -> Any:
        """Wait until it is true; gives its value."""
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(AssertionError):  # in the middle of loading
                if value := self.evaluate(expression):
                    return value
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText")
                raise AssertionError(f"never seen: {expression}\n{self.complaints}\n{shown}")
            time.sleep(0.05)

    def press(self, key: str, *, shift: bool = False) -> None:
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        code = {"Enter": 13, "Tab": 9, "Space": 32, "Escape": 27}[key]
        name = " " if key == "Space" else key
        common = {"key": name, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        self.command("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of what the selector finds."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drop(self, paths: Sequence[Path], selector: str = "#drop") -> None:
        """Files and folders, from outside of the browser."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector: str, paths: Sequence[Path]) -> None:
        """Into an `<input type=file>`."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def _middle(self, selector: str) -> tuple[float, float]:
        found = f"document.querySelector({json.dumps(selector)})"
        self.see(f"!!{found}")
        box = self.evaluate(
            f"{found}.scrollIntoView({{block: 'center'}}); "
            f"(box => [box.x + box.width / 2, box.y + Math.min(box.height, 300) / 2])({found}.getBoundingClientRect())"
        )
        return box[0], box[1]


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """A browser with a profile of its own; gives the address of its DevTools. It ends with the block."""
    need("chromium")
    program = shutil.which("chromium")
    assert program
    # Chromium's sandbox does not start as root, and has nothing to guard against here.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    port_file = profile / "DevToolsActivePort"
    port_file.unlink(missing_ok=True)
    profile.mkdir(exist_ok=True)
    command = [program, *QUIET, *sandbox, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with (profile / "chromium.log").open("ab") as log:
        process = subprocess.Popen([*command, "about:blank"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no Chromium: {(profile / 'chromium.log').read_text()[-2000:]}")
            time.sleep(0.05)
        port, path = port_file.read_text().split("\n")[:2]
        address = f"ws://127.0.0.1:{port}{path}"
        yield address
        # Told to, it writes down what pages asked it to remember.
        with contextlib.suppress(ConnectionClosed, subprocess.TimeoutExpired), tab(address) as connection:
            connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
            process.wait(10)
    finally:
        process.kill()
        process.wait()


def tab(address: str) -> ClientConnection:
    return connect(address, max_size=None, proxy=None, ping_interval=None)


@contextlib.contextmanager
def browsing(url: str, profile: Path) -> Iterator[Browser]:
    """`url` in a browser that remembers what it was told under the same profile before."""
    with chromium(profile) as address, tab(address) as connection:
        yield Browser(connection, url)


@contextlib.contextmanager
def incognito(url: str, address: str) -> Iterator[Browser]:
    """`url` in a browser that runs already, as if it were another one: no cookies, nothing remembered."""
    with tab(address) as connection:
        yield Browser(connection, url, incognito=True)
