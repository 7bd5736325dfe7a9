"""Inside a decoder process: requests come in as lines of JSON, are decoded under limits, and answered."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mediasvc.core.recipe import Preset
from mediasvc.derive.confine import allow_cpu, confine, resident
from mediasvc.derive.decoder import OUT_OF_MEMORY
from mediasvc.derive.image import ImageDeriver
from mediasvc.derive.interface import Undecodable

_STDIN, _STDERR = 0, 2
DERIVERS = (ImageDeriver(),)


def main() -> None:
    """Serve the socket on standard input until the server closes it."""
    memory_bytes = int(sys.argv[1])
    confine(memory_bytes, lifeline=_STDIN)
    server = socket.socket(fileno=_STDIN)
    server.sendall(b"{}\n")
    for line in server.makefile("rb"):
        request = json.loads(line)
        os.ftruncate(_STDERR, 0)
        os.lseek(_STDERR, 0, os.SEEK_SET)
        allow_cpu(request["cpu_seconds"])
        reply = _answer(request) | {"resident": resident()}
        server.sendall(json.dumps(reply, allow_nan=False).encode() + b"\n")


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    source, media_type = Path(request["source"]), request["media_type"]
    presets = [Preset(*row) for row in request["presets"]]
    try:
        with source.open("rb"):
            pass  # not there, or not ours to read: that is no fault of the bytes
        deriver = next(deriver for deriver in DERIVERS if deriver.accepts(media_type))
        findings = deriver.derive(
            source, media_type, presets, Path(request["workspace"]), strict=request["strict"]
        )
    except Undecodable as error:
        return {"undecodable": str(error)}
    except MemoryError:
        # What is left of the address space is not enough to go on with: end, and let a fresh process try.
        os._exit(OUT_OF_MEMORY)
    except (StopIteration, OSError) as error:
        return {"lost": f"{type(error).__name__}: {error}"}
    return {
        "findings": {
            "facts": dict(findings.facts),
            "placeholder": findings.placeholder,
            "problem": findings.problem,
            "outputs": [
                {
                    "preset": output.preset,
                    "media_type": output.media_type,
                    "width": output.width,
                    "height": output.height,
                }
                for output in findings.outputs
            ],
        }
    }


if __name__ == "__main__":
    main()
