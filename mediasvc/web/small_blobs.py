"""Small blobs that were asked for lately, in memory: opening a file and reading it is a third of what 64 KiB cost."""

from collections import OrderedDict

ROOM = 8 * 1024 * 1024  # bytes: some hundred thumbnails
_BESIDES = 512  # bytes that one more costs, however small it is


class SmallBlobs:
    """A blob never changes, so what was read of it once stays right; who may have it is decided at each request.

    What has not been asked for the longest makes room.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._kept: OrderedDict[str, bytes | bytearray] = OrderedDict()

    def get(self, blob_id: str) -> bytes | bytearray | None:
        """The whole blob, if it is kept."""
        content = self._kept.get(blob_id)
        if content is not None:
            self._kept.move_to_end(blob_id)
        return content

    def keep(self, blob_id: str, content: bytes | bytearray) -> None:
        """`content` is the whole blob, and nobody changes it from now on."""
        if blob_id in self._kept:
            return
        self._kept[blob_id] = content
        self._room -= len(content) + _BESIDES
        while self._room < 0:
            _, oldest = self._kept.popitem(last=False)
            self._room += len(oldest) + _BESIDES
