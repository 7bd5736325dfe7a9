"""multipart/form-data as a stream of `UploadFile`s, as the body arrives: no temporary file.

python-multipart's low-level parser calls back for each piece of the body; the pieces become events, and the
route reads one part after the other. What is in memory is one chunk of the network.
"""

import io
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import UploadFile
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from mediasvc.core.errors import BadBody, BadRequest
from mediasvc.store.slabs import give_back, slab_of

PIECE = 256 * 1024
MAX_FIELD = 64 * 1024  # bytes of one field's value
MAX_FIELDS = 1000  # of one form
MAX_FILES = 10_000
MAX_HEADER = 32 * 1024  # bytes of one header of a part: hostile file names have a few thousand


@dataclass(frozen=True, slots=True)
class Field:
    """A part that is no file: name and value."""

    name: str
    value: str


class IncomingFile(UploadFile):
    """A file of the form while it arrives: read it front to back, before asking for the next part."""

    def __init__(self, form: "Form", filename: str, headers: Headers) -> None:
        super().__init__(io.BytesIO(), filename=filename, headers=headers)
        self._form = form
        self._rest = b""

    async def has_content(self) -> bool:
        """Whether there is a first byte."""
        return bool(self._rest) or await self._form.data_follows()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content as it comes over the network."""
        while (chunk := await self._form.next_data()) is not None:
            yield chunk

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all that is left with -1; empty at the end."""
        collected = [self._rest]
        length = len(self._rest)
        while size < 0 or length < size:
            chunk = await self._form.next_data()
            if chunk is None:
                break
            collected.append(bytes(chunk))
            length += len(chunk)
        content = b"".join(collected)
        self._rest = b"" if size < 0 else content[size:]
        return content if size < 0 else content[:size]


class Form:
    """The parts of one request's body, in order. Raises BadBody for what is no form, or ends too early.

    `bytes_read` is how much of the body has come so far.
    """

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or not (boundary := options.get(b"boundary")):
            raise BadRequest("send multipart/form-data with a boundary, as curl -F and browsers' forms do")
        self._network = request.stream()
        self._delimiter = b"\r\n--" + boundary
        self.bytes_read = 0
        self._events: deque[Headers | memoryview | bytes | None] = deque()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: list[tuple[bytes, bytes]] = []
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": lambda: self._events.append(Headers(raw=self._headers)),
                    "on_part_data": lambda data, start, end: self._events.append(memoryview(data)[start:end]),
                    "on_part_end": lambda: self._events.append(None),
                    "on_end": self._on_end,
                },
                max_header_size=MAX_HEADER,
            )
        except FormParserError as error:
            raise BadBody(f"the boundary cannot be used: {error}") from None

    async def parts(self) -> AsyncIterator[Field | IncomingFile]:
        """Fields whole, files as they arrive; ends only at the closing boundary."""
        fields = files = 0
        while headers := await self._next_headers():
            disposition, options = parse_options_header(headers.get("content-disposition", ""))
            if disposition != b"form-data" or b"name" not in options:
                raise BadBody("each part needs Content-Disposition: form-data with a name")
            if b"filename" in options:
                if (files := files + 1) > MAX_FILES:
                    raise BadBody(f"a form may have {MAX_FILES} files")
                file = IncomingFile(self, _filename(options[b"filename"]), headers)
                yield file
                while await self.next_data() is not None:  # what the route did not care to read
                    pass
            else:
                if (fields := fields + 1) > MAX_FIELDS:
                    raise BadBody(f"a form may have {MAX_FIELDS} fields")
                yield Field(_text(options[b"name"]), await self._value())

    async def data_follows(self) -> bool:
        return await self._filled() and isinstance(self._events[0], bytes | memoryview)

    async def next_data(self) -> bytes | None:
        """The next bytes of the part that is being read; None at its end, and ever after."""
        if not await self._filled():
            raise BadBody("the form breaks off before its closing boundary")
        event = self._events[0]
        if event is None or isinstance(event, Headers):
            return None
        self._events.popleft()
        return event  # type: ignore[return-value]  # a view: written and hashed without a copy

    async def _value(self) -> str:
        value = bytearray()
        while (data := await self.next_data()) is not None:
            value += data
            if len(value) > MAX_FIELD:
                raise BadBody(f"a field's value may have {MAX_FIELD} bytes; send larger content as a file")
        return _text(bytes(value))

    async def _next_headers(self) -> Headers | None:
        while await self._filled():
            event = self._events.popleft()
            if isinstance(event, Headers):
                return event
        return None

    async def _filled(self) -> bool:
        """Whether there is an event to look at; False after the closing boundary."""
        while not self._events:
            try:
                chunk: bytes | memoryview | None = await anext(self._network, None)
            except ClientDisconnect:
                raise BadBody("the connection broke before the form's closing boundary") from None
            if chunk is None:
                # The parser itself does not mind a body that just stops.
                if not self._ended:
                    raise BadBody("the form breaks off before its closing boundary")
                return False
            self.bytes_read += len(chunk)
            if self._all_data(chunk):
                self._events.append(chunk)
            else:
                self._parse(chunk)
        return True

    def _all_data(self, chunk: bytes | memoryview) -> bool:
        """Whether a slab holds nothing but more of a file: then it goes past the parser, and uncopied.

        A tenth of a large form's CPU (measured).
        """
        slab = slab_of(chunk)
        within_data = self._parser.state == MultipartState.PART_DATA and self._parser.index == 0
        if slab is None or not within_data or slab.find(self._delimiter, 0, len(chunk)) >= 0:
            return False
        # What may be the beginning of a delimiter is the parser's.
        tail = slab.rfind(b"\r", max(0, len(chunk) - len(self._delimiter)), len(chunk))
        return tail < 0 or not self._delimiter.startswith(slab[tail : len(chunk)])

    def _parse(self, chunk: bytes | memoryview) -> None:
        """The parser wants bytes: a slab is copied in pieces that stay in the processor's cache."""
        try:
            if isinstance(chunk, bytes):
                self._parser.write(chunk)
                return
            for at in range(0, len(chunk), PIECE):
                self._parser.write(bytes(chunk[at : at + PIECE]))
        except FormParserError as error:
            raise BadBody(f"the form is malformed: {error}") from None
        give_back(chunk)

    def _on_end(self) -> None:
        self._ended = True

    def _on_part_begin(self) -> None:
        self._headers = []

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers.append((bytes(name).lower(), bytes(value)))
        self._header = (bytearray(), bytearray())


def _text(raw: bytes) -> str:
    """Names and values as browsers send them: UTF-8, else Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _filename(raw: bytes) -> str:
    """Browsers and curl write these three as percent codes, and no others (WHATWG HTML, multipart/form-data)."""
    return _text(raw).replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
