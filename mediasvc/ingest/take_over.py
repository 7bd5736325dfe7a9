"""Take-over instead of locks: the newest request for an upload gets it, and whoever is writing stops, in a moment.

Nobody waits for a client: a writer that waits for bytes which do not come is woken, keeps what it has, and leaves.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from mediasvc.core.errors import MediasvcError, Superseded, Unavailable
from mediasvc.core.upload import Upload
from mediasvc.store.interface import Digests, Growing

PATIENCE = 5.0  # seconds; a writer that is in the middle of a write to the store ends that first
REMEMBERED = 4096  # uploads nobody is busy with; of one that is forgotten the earlier bytes are hashed again


class Interruptible:
    """A body that somebody else can end; it then raises the reason, once what was received has been taken."""

    def __init__(self, body: AsyncIterable[bytes | memoryview]) -> None:
        self._body = body
        self._waiting: asyncio.Task[object] | None = None
        self._ended_with: MediasvcError | None = None

    def interrupt(self, error: MediasvcError | None = None) -> None:
        """End it with `error`, else Superseded."""
        again = self._ended_with is not None
        self._ended_with = (
            self._ended_with
            or error
            or Superseded(
                "a newer request for this upload took over; ask it for its offset and go on from there"
            )
        )
        if self._waiting is not None and not again:
            # Costs nothing while all is well; a wait for two things at once would cost every chunk (measured).
            self._waiting.cancel()

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        task = asyncio.current_task()
        assert task is not None
        chunks = aiter(self._body)
        while self._ended_with is None:
            self._waiting = task
            try:
                chunk = await anext(chunks, None)
            except asyncio.CancelledError:
                if self._ended_with is None or task.uncancel():
                    raise  # somebody else's: the server is stopping
                break
            finally:
                self._waiting = None
            if chunk is None:
                return
            yield chunk
        raise self._ended_with


class Held:
    """An upload while requests for it are served here: what it is, as its row has it, its bytes, their digests so far.

    `digests` is None where the bytes have to be read again. All of it belongs to whoever has the turn.
    """

    upload: Upload
    saved: Upload
    growing: Growing

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.known = False
        self.digests: Digests | None = None
        self.head = b""  # of its bytes, as far as they came through here: their type is told by these
        self.body: Interruptible | None = None
        self.joining: Interruptible | None = None  # what is here, read once more; only its removal stops that
        self.unwanted: MediasvcError | None = None  # why nothing is to be read for its end
        self.users = 0
        self.waiting = 0  # requests for the turn; each is newer than who has it

    def hold(self, upload: Upload, digests: Digests | None) -> None:
        """As its row says."""
        self.known = True
        self.upload = self.saved = upload
        self.growing = Growing(upload.blob_id, upload.offset, upload.notes)
        self.digests = digests
        self.head = self.head[: upload.offset]

    def read(self, body: AsyncIterable[bytes | memoryview]) -> Interruptible:
        """What whoever has the turn is about to read; it ends at once where a newer request is there already."""
        self.body = Interruptible(body)
        if self.waiting:
            self.body.interrupt()
        return self.body

    def read_for_end(self, body: AsyncIterable[bytes]) -> Interruptible:
        """What is here already, read once more for the upload's end."""
        self.joining = Interruptible(body)
        if self.unwanted is not None:
            self.joining.interrupt(self.unwanted)
        return self.joining


class Holdings:
    """What this process holds, by upload id."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._stopping: MediasvcError | None = None

    @asynccontextmanager
    async def taken(self, upload_id: str, *, ends: bool = False) -> AsyncIterator[Held]:
        """The upload, for us alone; who had it before has left. `ends`: nothing is to become of it. Raises Unavailable
        where that takes too long."""
        held = self._held.setdefault(upload_id, Held())
        held.unwanted = held.unwanted or self._stopping
        self._held.move_to_end(upload_id)
        held.users += 1
        try:
            if held.body is not None:
                held.body.interrupt()
            if ends:
                held.unwanted = Superseded("the upload was removed meanwhile")
                if held.joining is not None:
                    held.joining.interrupt(held.unwanted)
            held.waiting += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    await held.turn.acquire()
            except TimeoutError:
                raise Unavailable(
                    "an earlier request for this upload is still being written; ask again"
                ) from None
            finally:
                held.waiting -= 1
                held.unwanted = self._stopping if ends else held.unwanted
            try:
                yield held
            finally:
                held.turn.release()
        finally:
            held.users -= 1
            self._forget_some()

    def stop(self) -> None:
        """Whoever is writing keeps what has come, and leaves: the server stops."""
        self._stopping = Unavailable("the server is stopping; go on in a moment")
        for held in self._held.values():
            held.unwanted = self._stopping
            for body in filter(None, (held.body, held.joining)):
                body.interrupt(self._stopping)

    def busy(self, upload_id: str) -> bool:
        """Whether bytes of it are arriving here."""
        held = self._held.get(upload_id)
        return held is not None and held.body is not None

    def forget(self, upload_id: str) -> None:
        """It has ended, or is another by now."""
        held = self._held.get(upload_id)
        if held is not None:
            held.known, held.digests = False, None

    def _forget_some(self) -> None:
        if len(self._held) <= REMEMBERED:
            return
        for upload_id, held in list(self._held.items())[: len(self._held) - REMEMBERED]:
            if not held.users:
                del self._held[upload_id]
