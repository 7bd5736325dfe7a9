"""A process that is in the middle of a put until it is killed: python stalled_put.py ADDRESS BLOB_ID MIB."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from mediasvc.store.digests import Digests
from mediasvc.store.interface import BlobStore
from mediasvc.store.local import LocalStore
from mediasvc.store.s3 import S3Store
from mediasvc.store.url import parse_s3_url


def store_at(address: str) -> BlobStore:
    """`s3://…`, or the path of a folder."""
    return S3Store(parse_s3_url(address)) if address.startswith("s3:") else LocalStore(Path(address))


async def stalling(mib: int) -> AsyncIterator[bytes]:
    for _ in range(mib):
        yield b"x" * (1 << 20)
    print("arrived", flush=True)
    await asyncio.Event().wait()


async def main(address: str, blob_id: str, mib: str) -> None:
    store = store_at(address)
    await store.start()
    await store.put(blob_id, stalling(int(mib)), Digests())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
