"""The line between a client and a server: a relay that tests hold and cut at a byte of their choice."""

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit

PATIENCE = 60  # seconds


class Line:
    """Clients call `url`, and reach `target`, a server's URL that may be named later.

    While a connection is held nothing passes in either direction and neither end hears of a close, as on a telephone
    in a tunnel; other connections are not touched.
    """

    def __init__(self, target: str = "") -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._left: int | None = None
        self._lock = threading.Lock()
        self._is_held = threading.Event()
        self._freed = threading.Event()
        self._ended = threading.Event()
        self._held: tuple[socket.socket, socket.socket] | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._freed.set()
        self._listener.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def hold_after(self, size: int) -> None:
        """The connection that carries the byte after so many more to the server stops right before it."""
        with self._lock:
            self._left = size
            self._is_held.clear()

    def wait_until_held(self) -> None:
        assert self._is_held.wait(PATIENCE), "the client never sent so much"

    def cut(self) -> None:
        """The held connection is no more: both ends learn it."""
        assert self._held is not None
        self._freed.set()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        parts = urlsplit(self.target)
        try:
            upstream = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        except OSError:
            client.close()
            return
        upstream.settimeout(None)
        ends = (client, upstream)
        with self._lock:
            self._open.update(ends)
        back = threading.Thread(target=self._pass_back, args=ends, daemon=True)
        back.start()
        self._pass_on(client, upstream)
        back.join()
        with self._lock:
            self._open.difference_update(ends)
        for end in ends:
            end.close()

    def _pass_on(self, client: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                with self._lock:
                    held = self._left is not None and self._left < len(data)
                    passed = data[: self._left] if held else data
                    self._left = None if held or self._left is None else self._left - len(data)
                upstream.sendall(passed)
                if held:
                    self._hold(client, upstream)
                    break
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_WR)

    def _hold(self, client: socket.socket, upstream: socket.socket) -> None:
        self._held = (client, upstream)
        self._freed.clear()
        self._is_held.set()
        self._freed.wait()
        for end in self._held:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_back(self, client: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = upstream.recv(1 << 16)
                if self._held == (client, upstream):
                    return  # it hears nothing any more
                if not data:
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
