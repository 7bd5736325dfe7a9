"""A large file goes up in pieces, and goes on where it stopped: after a break, and in the next run too."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mediasvc.cli.local_files import SourceChanged
from mediasvc.cli.remote import CHUNK, Item, Refused, Remote

PIECE = 16 * 1024 * 1024  # bytes of one PATCH: what a break costs at most


def send_in_pieces(
    remote: Remote, bucket: str, item: Item, descriptor: int, sent: Callable[[int], object]
) -> Mapping[str, Any]:
    """Store the open file's `item.size` bytes and return the asset's JSON.

    `sent` hears how many bytes the server has more, or fewer where it lost some. Raises Refused, Away, Stopped,
    SourceChanged, OSError.
    """
    upload_id = remote.unfinished(bucket, item)
    if upload_id is not None:
        try:
            return _go_on(remote, upload_id, remote.offset(upload_id), item, descriptor, sent)
        except Refused as refused:
            if refused.status not in (404, 410):
                raise
            # It is over: begin again.
    return _go_on(remote, remote.begin(bucket, item), 0, item, descriptor, sent)


def _go_on(
    remote: Remote,
    upload_id: str,
    offset: int,
    item: Item,
    descriptor: int,
    sent: Callable[[int], object],
) -> Mapping[str, Any]:
    told = 0

    def piece(start: int) -> tuple[int, Iterator[bytes]]:
        size = min(PIECE, item.size - start)
        return size, _bytes(remote, descriptor, start, size)

    while True:
        sent(offset - told)
        told = offset
        # At the end once more, with nothing: that completes what was received, and not completed.
        offset = remote.append(upload_id, offset, piece)
        if offset == item.size:
            sent(offset - told)
            return remote.completed(upload_id)


def _bytes(remote: Remote, descriptor: int, start: int, size: int) -> Iterator[bytes]:
    at = start
    while at < start + size:
        remote.check_stopped()
        chunk = os.pread(descriptor, min(CHUNK, start + size - at), at)
        if not chunk:
            raise SourceChanged
        at += len(chunk)
        yield chunk
