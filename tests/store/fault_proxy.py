"""A TCP proxy in front of a real store that loses what it is told to lose."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Loses = Callable[[bytes], bool]


class FaultProxy:
    """Hands everything on; the answer to a request for which `loses` says so is dropped with its connection,
    after the first `spared` bytes of it, or after `instead` in its place.

    `loses` is called with what the client sends, as it arrives; a request line is at the beginning of one of those.
    """

    def __init__(self, port: int, loses: Loses, spared: int = 0) -> None:
        self._target = ("127.0.0.1", port)
        self._loses = loses
        self.spared = spared
        self.instead = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lost = 0

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                losing = threading.Event()
                threading.Thread(target=self._ask, args=(client, server, losing), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server, losing), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._loses(data):
                    losing.set()
                server.sendall(data)
        _hang_up(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        spared = self.spared
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if losing.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    if self.instead:
                        client.sendall(self.instead)
                        break
                    client.sendall(data[:spared])
                    spared -= len(data)
                    if spared <= 0:
                        self.lost += 1
                        break
                    continue
                client.sendall(data)
        _hang_up(client, server)


def _hang_up(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def first(count: int, *needles: bytes) -> Loses:
    """Says yes to the first `count` pieces that hold all the needles."""
    seen = 0

    def loses(data: bytes) -> bool:
        nonlocal seen
        if seen < count and all(needle in data for needle in needles):
            seen += 1
            return True
        return False

    return loses
