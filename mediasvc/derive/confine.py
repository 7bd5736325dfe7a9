"""What a decoder process may use, set by itself before it reads the first hostile byte."""

import ctypes
import os
import resource
import select
import signal
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
FILE_BYTES = 64 * 1024 * 1024
OPEN_FILES = 64


def confine(memory_bytes: int, *, lifeline: int) -> None:
    """Limits for the whole life of the process, which ends when the other end of `lifeline` is closed.

    Call it after the imports: `memory_bytes` is what may be added to the address space in use now.
    """
    libc = ctypes.CDLL(None)
    # First, because these two hold for the calling thread and those it starts.
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.unshare(
        _CLONE_NEWNET
    )  # no network at all, where we are allowed to ask for that (root, CAP_SYS_ADMIN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd sends it to all; the server says when to end
    _die_with_the_server(lifeline)
    os.nice(5)  # requests come first
    Path("/proc/self/oom_score_adj").write_text("1000")  # and rather one of us than the server
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, _pages(0) + memory_bytes),
    ):
        allowed = _within_ceiling(limit, value)
        resource.setrlimit(limit, (allowed, allowed))


def allow_cpu(seconds: int) -> None:
    """Let the process use `seconds` of CPU from now on; then the kernel ends it by SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = _within_ceiling(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def resident() -> int:
    """Bytes of memory in use."""
    return _pages(1)


def _within_ceiling(limit: int, value: int) -> int:
    ceiling = resource.getrlimit(limit)[1]
    return value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)


def _pages(field: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


def _die_with_the_server(lifeline: int) -> None:
    # The kernel's way works even while a library holds the interpreter; the thread covers a server that was
    # gone before we asked the kernel.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(lifeline, select.POLLRDHUP)
        while not hung_up.poll():
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
