"""A number of bytes that everybody shares."""

import asyncio
from collections import deque


class ByteBudget:
    """First come, first served: a large request is not overtaken by small ones for ever."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        return self._total - self._free

    async def take(self, size: int) -> None:
        """Wait until `size` bytes are free and take them."""
        if size > self._total:
            raise ValueError(f"{size} bytes are more than the whole budget of {self._total}")
        if not self._line and size <= self._free:
            self._free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)  # it was our turn in the same moment
            else:
                self._serve()
            raise

    def give_back(self, size: int) -> None:
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._line:
            size, turn = self._line[0]
            if not turn.cancelled():
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._line.popleft()
