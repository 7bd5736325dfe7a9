"""512 MiB by PUT and by form, hashed and synced, against a textbook endpoint that does neither."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from machine import AUTHORISED, Best, Figure, Workplace, at_most, bare, curl, free_port, mediasvc, running

from mediasvc.store.digests import Digests


def measure(place: Workplace) -> Iterator[Figure]:
    source = place.file(512)
    with ExitStack() as stack:
        ours = stack.enter_context(mediasvc(place))
        folder = place.folder / "textbook"
        folder.mkdir()
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            str(Path(__file__).parent),
            "--no-access-log",
        ]
        textbook = stack.enter_context(
            running(
                [*command, "--port", str(port), "textbook:app"],
                f"http://127.0.0.1:{port}",
                "/up",
                folder=folder,
                TMPDIR=str(folder),  # its spooled files on the same disk
                TEXTBOOK_TARGET=str(folder / "stored"),
            )
        )
        floor = stack.enter_context(bare(place))
        put, form, naive, thrown = Best(), Best(), Best(), Best()
        form_field = f"file=@{source}"
        for _ in range(place.rounds):
            os.sync()
            naive.measure(textbook, lambda: curl("-F", form_field, f"{textbook.url}/upload"))
            (folder / "stored").unlink()
            thrown.measure(floor, lambda: curl("-T", source, f"{floor.url}/"))
            os.sync()
            put.measure(ours, lambda: curl("-T", source, "-H", AUTHORISED, f"{ours.url}/b/media/put"))
            curl("-X", "DELETE", "-H", AUTHORISED, f"{ours.url}/b/media/put")
            os.sync()
            form.measure(
                ours,
                lambda: curl("-F", "prefix=f/", "-F", form_field, "-H", AUTHORISED, f"{ours.url}/v1/assets"),
            )
            curl("-X", "DELETE", "-H", AUTHORISED, f"{ours.url}/b/media/f/{source.name}")
    speed = source.stat().st_size / 1e6
    note = f"{speed / put.seconds:.0f} and {speed / naive.seconds:.0f} MB/s"
    yield Figure(
        "raw PUT of 512 MiB, throughput ÷ textbook", naive.seconds / put.seconds, "×", 2.5, True, note
    )
    yield Figure("raw PUT, CPU ÷ textbook", put.cpu / naive.cpu, "×", 0.7, False)
    yield at_most(naive, put, 2.5)
    note = f"{speed / form.seconds:.0f} MB/s"
    yield Figure("form of 512 MiB, throughput ÷ textbook", naive.seconds / form.seconds, "×", 2, True, note)
    yield Figure("form, CPU ÷ textbook", form.cpu / naive.cpu, "×", 0.7, False)
    yield at_most(naive, form, 2)
    note = "received and thrown away by a bare ASGI callable: the floor"
    yield Figure(f"512 MiB {note}, CPU ÷ textbook", thrown.cpu / naive.cpu, "×", 0.7, False)
    digests = digest_seconds(source)
    yield Figure("SHA-256 and CRC-32 of them, CPU ÷ textbook", digests / naive.cpu, "×", 0.7, False)


def digest_seconds(source: Path) -> float:
    """CPU seconds of the checksums alone."""
    digests = Digests()
    began = time.process_time()
    with source.open("rb") as file:
        reading = 0.0
        while True:
            before = time.process_time()
            piece = file.read(1024 * 1024)
            reading += time.process_time() - before
            if not piece:
                return time.process_time() - began - reading
            digests.update(piece)
