"""Runs the benchmarks named, or all, and prints one table fit for the README.

Every figure is a ratio within one run, the best of interleaved rounds on each side, or a size in memory.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import delivery
import downloads
import memory
import plan
import readers
import resumable
import start
import store
import uploads
from machine import Figure, Workplace

HERE = Path(__file__).parent


def images(place: Workplace) -> Iterator[Figure]:
    """24 MP JPEG to three presets, against Pillow (a table of its own)."""
    subprocess.run([sys.executable, HERE / "images.py"], check=True)
    yield from ()


BENCHMARKS: dict[str, Callable[[Workplace], Iterator[Figure]]] = {
    "uploads": uploads.measure,
    "resumable": resumable.measure,
    "memory": memory.measure,
    "store": store.measure,
    "downloads": downloads.measure,
    "delivery": delivery.measure,
    "large": delivery.large,
    "archives": archives.measure,
    "readers": readers.measure,
    "start": start.measure,
    "plan": plan.measure,
    "images": images,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the files, relative to the real run"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(
            f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    scratch = Path.cwd() / ".cache"
    scratch.mkdir(exist_ok=True)
    print("| what | measured | goal | |\n|---|---|---|---|", flush=True)
    # Beside the code and not in /tmp, which may be memory: the figures are meant for a disk.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=scratch) as folder:
        place = Workplace(Path(folder), arguments.rounds, arguments.scale)
        for name in arguments.names or BENCHMARKS:
            for figure in BENCHMARKS[name](place):
                print(figure, flush=True)


if __name__ == "__main__":
    main()
