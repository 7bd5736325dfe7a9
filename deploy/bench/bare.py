"""The floor: what the same server costs without mediasvc, one bare ASGI callable behind our protocol."""

import os
import sys

import uvicorn

from mediasvc.web.protocol import ServerProtocol

SMALL = os.urandom(64 * 1024)  # the answer to every GET, from memory


async def app(scope, receive, send):
    """GET answers 64 KiB with as many headers as an asset has; PUT reads its body and throws it away."""
    body = SMALL if scope["method"] == "GET" else b""
    while scope["method"] == "PUT" and (await receive()).get("more_body"):
        pass
    headers = [(b"x-%d" % number, b"as long as most values are") for number in range(11)]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(
        app, port=port, http=ServerProtocol, lifespan="off", ws="none", log_config=None, access_log=False
    )
