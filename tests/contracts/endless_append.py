"""A process that appends without end until it is killed: python endless_append.py ADDRESS BLOB_ID FILE.

FILE: a line of JSON for each value that would be saved: [size, notes]. Says how many bytes came, again and again.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from mediasvc.store.interface import Growing
from tests.contracts.stalled_put import store_at

PIECE = 300_007  # of no part's or slab's measure


def piece(number: int) -> bytes:
    return number.to_bytes(7, "big") * (PIECE // 7 + 1)


def content(size: int) -> bytes:
    """The first bytes of what is appended."""
    count = size // PIECE + 1
    return b"".join(piece(number)[:PIECE] for number in range(count))[:size]


async def endless() -> AsyncIterator[bytes]:
    came, number = 0, 0
    while True:
        print(came, flush=True)
        yield piece(number)[:PIECE]
        number += 1
        came += PIECE


def save(file: Path, kept: Growing) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps([kept.size, dict(kept.notes)]) + "\n")


async def main(address: str, blob_id: str, file: str) -> None:
    store = store_at(address)
    await store.start()
    async for kept in store.resumable.append(Growing(blob_id), endless(), lambda _: None):
        save(Path(file), kept)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
