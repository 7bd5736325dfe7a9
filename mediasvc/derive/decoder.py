"""One decoder process, as the server sees it.

Started like multiprocessing's spawn, a fresh interpreter, but by hand: a forked one would carry the server's
memory and environment (keys, store credentials) into the process that reads hostile bytes, multiprocessing's
pipes carry pickles, which a decoder that was taken over could turn against the server, and its forkserver and
resource tracker are two more processes that must end at kill -9. Requests and replies are lines of JSON over one
socket pair, which is also how each side notices that the other is gone.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULE = "mediasvc.derive.decoder_main"
START_SECONDS = 60.0
MAX_REPLY = 256 * 1024
OUT_OF_MEMORY = 77  # exit status of a decoder that knows why it ends
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
_TUNED = {
    "VIPS_CONCURRENCY": "1",  # the same CPU per picture, less memory; the pool is what is parallel
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# Signals that say the decoder stumbled over its picture. Any other came from outside.
_OWN_FAULT = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
_OWN_FAULT |= {signal.SIGSYS, signal.SIGXFSZ}


class DecoderLost(Exception):
    """The decoder ended, or could not start, for a reason that is not the bytes: try again later."""


class Overrun(Exception):
    """The decoder died on these bytes, or went over a limit; the text says which."""


class Decoder:
    """A decoder process. `tasks` counts what it was asked."""

    def __init__(self, scratch: Path, memory_bytes: int) -> None:
        self.tasks = 0
        self._memory_bytes = memory_bytes
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._unread = b""
        # What the image libraries grumble goes here instead of into the server's log.
        self._grumbles = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by bury()
        try:
            # Forked by the event loop's thread on purpose: the decoder dies with the thread that started it.
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._grumbles,
                cwd=scratch,
                env=_environment(scratch),
                start_new_session=True,  # Ctrl-C in a terminal is for the server
            )
        except OSError as error:
            self._socket.close()
            self._grumbles.close()
            raise DecoderLost(f"no decoder could be started: {error}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def ready(self) -> None:
        """Wait until it has imported what it needs and stands under its limits."""
        try:
            async with asyncio.timeout(START_SECONDS):
                if await self._line() is not None:
                    return
                await self._ended()
        except TimeoutError:
            raise DecoderLost(f"a decoder was not ready within {START_SECONDS:.0f} s") from None
        raise DecoderLost(f"a decoder ended as it started: {self._last_words() or self._process.returncode}")

    async def ask(
        self, request: Mapping[str, Any], *, cpu_seconds: int, wall_seconds: float
    ) -> Mapping[str, Any]:
        """Its answer. Raises Overrun or DecoderLost when there is none; the decoder is of no use then."""
        self.tasks += 1
        try:
            async with asyncio.timeout(wall_seconds):
                with contextlib.suppress(OSError):  # it has just ended: its exit status says why
                    await asyncio.get_running_loop().sock_sendall(
                        self._socket, json.dumps(request).encode() + b"\n"
                    )
                line = await self._line()
                if line is None and not await self._ended():
                    raise Overrun("the decoder stopped answering")
        except TimeoutError:
            raise Overrun(f"took more than {wall_seconds:g} s") from None
        if line is None:
            raise self._verdict(cpu_seconds)
        try:
            reply = json.loads(line, parse_constant=_refuse)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise Overrun("the decoder gave an answer that makes no sense")
        return reply

    def kill(self) -> None:
        """End it now, whatever it is doing."""
        self._process.kill()

    async def bury(self) -> None:
        """Wait for the end of a killed decoder and give back what it held here."""
        await asyncio.to_thread(self._process.wait)
        self._socket.close()
        self._grumbles.close()

    async def _line(self) -> bytes | None:
        """One line, or None when the decoder has closed its end or talks too much."""
        loop = asyncio.get_running_loop()
        while b"\n" not in self._unread:
            try:
                some = await loop.sock_recv(self._socket, 65536)
            except OSError:
                return None
            self._unread += some
            if not some or len(self._unread) > MAX_REPLY:
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    async def _ended(self) -> bool:
        """Wait for a decoder that closed its end to be gone: killing it at once would hide its exit status."""
        for _ in range(200):
            if not self.alive:
                return True
            await asyncio.sleep(0.01)
        return False

    def _verdict(self, cpu_seconds: int) -> Exception:
        status = self._process.returncode
        words = self._last_words()
        if status == OUT_OF_MEMORY or "failed to allocate" in words or "out of memory" in words.lower():
            return Overrun(f"the decoder used more than {_readable(self._memory_bytes)} of memory")
        if status == -signal.SIGXCPU:
            return Overrun(f"took more than {cpu_seconds} s of CPU time")
        if status < 0 and -status not in _OWN_FAULT:
            # The kernel short of memory, an operator, or our own close(): says nothing about the bytes.
            return DecoderLost(f"the decoder was killed (signal {-status})")
        if status < 0:
            return Overrun(f"the decoder crashed (signal {-status})")
        return Overrun(f"the decoder gave up (exit status {status})")

    def _last_words(self) -> str:
        descriptor = self._grumbles.fileno()
        size = os.fstat(descriptor).st_size
        text = os.pread(descriptor, 2000, max(0, size - 2000)).decode(errors="replace")
        return text.strip()[-300:]


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of the server's own: what a decoder does not know, a picture cannot make it tell."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # As multiprocessing does: whatever way our package was found, the decoder finds it too.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return passed_on | _TUNED | {"PYTHONPATH": path, "HOME": os.fspath(scratch)}


def _readable(size: int) -> str:
    mebibytes = size // (1024 * 1024)
    return f"{mebibytes // 1024} GiB" if mebibytes % 1024 == 0 and mebibytes else f"{mebibytes} MiB"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
