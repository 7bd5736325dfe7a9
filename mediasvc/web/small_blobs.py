"""Small blobs that everybody asks for, in memory: opening a file and reading it is a third of what 64 KiB cost."""

import time
from collections.abc import Callable

OFTEN = 8  # times in a second
ROOM = 8 * 1024 * 1024  # bytes, for one second: some hundred thumbnails


class SmallBlobs:
    """What is asked for often within a second is kept for the rest of it: then it is looked for on the disk again, for
    what is lost there must show. Who may have it is decided at each request; a blob itself never changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = 0.0
        self._room = ROOM
        self._asked: dict[str, int] = {}
        self._kept: dict[str, bytes | bytearray] = {}

    def ask(self, blob_id: str) -> bool:
        """Note that it is asked for once more; whether that is often."""
        now = self._clock()
        if now >= self._ends:
            self._ends, self._room = now + 1, ROOM
            self._asked.clear()
            self._kept.clear()
        self._asked[blob_id] = times = self._asked.get(blob_id, 0) + 1
        return times > OFTEN

    def get(self, blob_id: str) -> bytes | bytearray | None:
        """The whole blob, if it is kept."""
        return self._kept.get(blob_id)

    def keep(self, blob_id: str, content: bytes | bytearray) -> None:
        """`content` is the whole blob, which was just asked for; nobody changes it from now on."""
        if self._asked.get(blob_id, 0) > OFTEN and len(content) <= self._room:
            self._room -= len(content)
            self._kept[blob_id] = content
