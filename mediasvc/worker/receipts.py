"""Hears nginx's delivery log on a UDP socket while the server runs, and has downloads written down."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mediasvc.core.errors import MediasvcError, StartupRefused
from mediasvc.deliver.receipts import MAX_LINE, Receipts
from mediasvc.logs import log

# After the first line of many we look again this much later, not at each: a system call and a wake-up less for
# each download. The kernel's smallest buffer holds some 250 lines, so we keep up with 25 000 a second; a flood of
# more is the kernel's to drop.
_PAUSE = 0.01  # seconds
_AT_ONCE = 250  # lines: 2 ms of the event loop
_LAST_WORDS = 3.0  # seconds that the last transaction may take
_BUFFER = 4 * 1024 * 1024  # bytes; the kernel gives what it allows


def bind(address: tuple[str, int]) -> socket.socket:
    """A socket for nginx's lines. Raises StartupRefused with one sentence."""
    host, port = address
    heard = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        heard.setblocking(False)
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        heard.bind(address)
    except OSError as error:
        heard.close()
        raise StartupRefused(
            f"cannot hear receipts on {host} port {port}: {error.strerror}; set MEDIASVC_RECEIPTS to another port"
        ) from error
    return heard


class Listener:
    """Takes datagrams off a socket, in the event loop, and hands them to `receipts`."""

    def __init__(self, heard: socket.socket, receipts: Receipts) -> None:
        self._socket = heard
        self._receipts = receipts
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._loop.add_reader(heard, self._wake)

    def _wake(self) -> None:
        self._loop.remove_reader(self._socket)
        self._turn()

    def _turn(self) -> None:
        if self.take():
            self._next = self._loop.call_later(_PAUSE, self._turn)
        else:
            self._next = None
            self._loop.add_reader(self._socket, self._wake)

    def take(self) -> int:
        """Hand on what has arrived; gives how many lines."""
        for taken in range(_AT_ONCE):
            try:
                datagram = self._socket.recv(MAX_LINE + 1)  # a longer one is cut, and still too long
            except OSError:
                return taken
            self._receipts.hear(datagram)
        return _AT_ONCE

    def close(self) -> None:
        """What has arrived still counts."""
        if self._next is not None:
            self._next.cancel()
        else:
            self._loop.remove_reader(self._socket)
        while self.take() == _AT_ONCE:
            pass


@asynccontextmanager
async def counting(receipts: Receipts, heard: socket.socket | None) -> AsyncIterator[None]:
    """Downloads are counted while the block lasts, and all of them are written down at its end."""
    listener = Listener(heard, receipts) if heard is not None else None
    working = asyncio.create_task(receipts.work())
    try:
        yield
    finally:
        if listener is not None:
            listener.close()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_WORDS):
                while receipts.waiting:
                    await receipts.write_down()
        except (MediasvcError, TimeoutError) as error:
            log.warning("downloads_uncounted", reason=str(error) or "the catalogue took too long")
