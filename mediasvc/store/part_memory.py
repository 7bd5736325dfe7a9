"""The memory that parts are filled into."""

from mediasvc.store.parts import SMALLEST

KEPT = 4  # parts of the smallest size (32 MiB), while there is an upload


class Part:
    """Memory for one part; its pages cost nothing before they are written to."""

    def __init__(self, room: int) -> None:
        self._memory = memoryview(bytearray(room))
        self.room = room
        self.length = 0

    def add(self, data: memoryview) -> int:
        """Copy what fits; gives how much."""
        taken = min(len(data), self.room - self.length)
        self._memory[self.length : self.length + taken] = data[:taken]
        self.length += taken
        return taken

    @property
    def bytes(self) -> memoryview:
        return self._memory[: self.length]


class PartMemory:
    """Keeps a few parts that were sent, to be filled again: fresh pages cost more than hashing does (measured).

    Safe in many threads at once.
    """

    def __init__(self) -> None:
        self._spare: list[Part] = []
        self._uploads = 0

    def begin(self) -> None:
        """An upload begins."""
        self._uploads += 1

    def end(self) -> None:
        """An upload is over; after the last one nothing is kept."""
        self._uploads -= 1
        if not self._uploads:
            self._spare.clear()

    def take(self, room: int) -> Part:
        if room == SMALLEST:
            try:
                part = self._spare.pop()
            except IndexError:
                pass
            else:
                part.length = 0
                return part
        return Part(room)

    def give_back(self, part: Part) -> None:
        if part.room == SMALLEST and len(self._spare) < KEPT and self._uploads:
            self._spare.append(part)
