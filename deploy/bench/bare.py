"""The floor: what the same server costs without mediasvc, one bare ASGI callable behind our protocol."""

import os
import sys
import tempfile

import uvicorn

from mediasvc.store.slabs import give_back
from mediasvc.web.carrier import Message, Receive, Send
from mediasvc.web.protocol import ServerProtocol

SMALL = os.urandom(64 * 1024)  # the answer to every GET
FILE = tempfile.NamedTemporaryFile()  # noqa: SIM115 - as long as the process lives
FILE.write(SMALL)
FILE.flush()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """GET answers 64 KiB, from memory or (`/file`) from a file, with as many headers as an asset has; any other path
    than these two names a blob that nginx is to send. PUT reads its body and throws it away."""
    body: bytes | bytearray = SMALL if scope["method"] == "GET" else b""
    if scope["path"] == "/file":
        read = bytearray(len(SMALL))
        opened = os.open(FILE.name, os.O_RDONLY)
        assert os.fstat(opened).st_size == os.preadv(opened, (read,), 0)
        os.close(opened)
        body = read
    while scope["method"] == "PUT":
        message = await receive()
        give_back(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = [(b"x-%d" % number, b"as long as most values are") for number in range(11)]
    if scope["method"] == "GET" and scope["path"] not in ("/", "/file"):
        body = b""
        headers.append((b"x-accel-redirect", b"/_blobs" + scope["raw_path"]))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(
        app, port=port, http=ServerProtocol, lifespan="off", ws="none", log_config=None, access_log=False
    )
