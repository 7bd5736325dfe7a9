"""`mediasvc serve`: the server, put together and run until it is told to stop."""

import asyncio
import contextlib
import os
import resource
import shlex
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Annotated

import typer
import uvicorn
import uvloop

from mediasvc import logs, settings
from mediasvc.bootstrap import House, open_house
from mediasvc.cli.options import DataDir
from mediasvc.core.errors import StartupRefused
from mediasvc.installation import server_lock
from mediasvc.settings import Settings
from mediasvc.web.app import make_service
from mediasvc.web.deps import Desk
from mediasvc.web.protocol import ServerProtocol
from mediasvc.worker import at_work
from mediasvc.worker.receipts import bind, counting

PATIENCE = 20  # seconds that requests under way get after SIGTERM


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (MEDIASVC_HOST; 127.0.0.1)")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port, 0 for any (MEDIASVC_PORT; 8000)", min=0, max=65535)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the server. Everything else is set by MEDIASVC_* variables; the README lists them."""
    chosen = settings.read(host=host, port=port, data_dir=data_dir)
    logs.configure()
    for name in settings.ignored_variables(os.environ):
        logs.log.info("variable_ignored", name=name, reason="Kubernetes sets it for a service of this name")
    _raise_open_files()
    with server_lock(chosen, f"http://{_shown(chosen.host)}:{chosen.port}"):
        with contextlib.ExitStack() as sockets:
            listener = sockets.enter_context(_listen(chosen))
            address = chosen.receipts_address
            log_socket = sockets.enter_context(bind(address)) if address else None
            try:
                uvloop.run(_serve(chosen, listener, log_socket))
            finally:
                logs.write_pending()


async def _serve(chosen: Settings, listener: socket.socket, log_socket: socket.socket | None) -> None:
    async with (
        open_house(chosen) as house,
        counting(house.receipts, log_socket),
        at_work(house) as dispatcher,
    ):
        service = make_service(Desk(house, ring=dispatcher.ring, healthy=lambda: dispatcher.healthy))
        config = uvicorn.Config(
            service.app,
            http=partial(ServerProtocol, express=service.express),  # type: ignore[arg-type]  # it makes one
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=PATIENCE,
            backlog=1024,
        )
        server = _Server(
            config,
            greet=lambda: _greet(chosen, listener.getsockname()[1]),
            farewell=lambda: _hurry(house),
        )
        await server.serve(sockets=[listener])
        await server.gone()


def _hurry(house: House) -> None:
    """What has no end of its own must not be waited for."""
    house.feed.close()
    house.resumer.stop()


class _Server(uvicorn.Server):
    """Greets once it serves; exits with 0 when told to stop: uvicorn would raise the signal once more at the end."""

    def __init__(
        self, config: uvicorn.Config, greet: Callable[[], None], farewell: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._greet = greet
        self._farewell = farewell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._greet()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._farewell()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def gone(self) -> None:
        """Wait for the requests that were cut off to clean up behind themselves."""
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=5)


def _listen(chosen: Settings) -> socket.socket:
    """Bind before anything else is made, so that a taken port is one sentence. Raises StartupRefused."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            chosen.host, chosen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise StartupRefused(
            f"cannot listen on {chosen.host} port {chosen.port}: {error.strerror}; choose others with --host, --port"
        ) from error
    return listener


def _greet(chosen: Settings, port: int) -> None:
    """Where we listen, and one line that works when pasted."""
    address = f"http://{_shown(chosen.host)}:{port}"
    if chosen.admin_key is not None:
        user = '":$MEDIASVC_ADMIN_KEY"'
    else:
        user = f'":$(cat {shlex.quote(str(chosen.admin_key_file))})"'
    print(f"mediasvc listens on {address} (documentation: {address}/docs)")
    print(f"try: date | curl -T - -u {user} {address}/u/hello.txt", flush=True)


def _shown(host: str) -> str:
    """An address that works from this machine, in the form URLs need."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"[{host}]" if ":" in host else host


def _raise_open_files() -> None:
    """Each slow reader holds a file and a socket: take as many as the system gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
