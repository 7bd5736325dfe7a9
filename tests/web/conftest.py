"""A real server on a real socket, in a thread of the test."""

import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from mediasvc.web.protocol import ServerProtocol

Serve = Callable[..., int]


@contextmanager
def _serving(app: Callable[..., Awaitable[None]], **config: Any) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            ws="none",
            log_config=None,
            access_log=False,
            **{"http": ServerProtocol, **config},
        )
    )
    server.config.timeout_graceful_shutdown = 3
    failures: list[BaseException] = []

    def run() -> None:
        try:
            server.run(sockets=[listening])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), failures
            time.sleep(0.005)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()
    assert not failures


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app, **config)` gives the port on which uvicorn answers with the app until the test ends."""
    with ExitStack() as servers:
        yield lambda app, **config: servers.enter_context(_serving(app, **{"lifespan": "off", **config}))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", names, "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made, key
