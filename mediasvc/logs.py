"""Structured logs on stderr: JSON lines, or coloured text where a person is looking."""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as _quoted

import structlog


@cache
def _for_people() -> bool:
    return sys.stderr.isatty()


def configure(*, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's loggers to stderr in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if _for_people() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    for chatty in ("botocore", "boto3", "urllib3", "asyncio", "uvicorn", "alembic", "PIL"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(
        logging.ERROR
    )  # every malformed form is answered, not news


log = structlog.get_logger("mediasvc")


def log_request(
    *, request_id: str, method: str, path: str, status: int, size: int, seconds: float, client: str
) -> None:
    """One line for one request, within a tenth of a second. As JSON it is put together here, several at once:
    line by line structlog would take as long as the rest of a small download (measured)."""
    if _for_people():
        ms = _ms(seconds)
        log.info("request", method=method, path=path, status=status, bytes=size, ms=ms, request_id=request_id)
    elif logging.getLogger().isEnabledFor(logging.INFO):
        if not _pending:
            asyncio.get_running_loop().call_later(0.1, write_pending)
        _pending.append((request_id, method, path, status, size, seconds, client, time.time()))


def write_pending() -> None:
    """Write the lines that wait; at the end of the process too."""
    lines = [
        f'{{"request_id": "{request_id}", "method": "{method}", "path": {_quoted(path)}, "status": {status}, '
        f'"bytes": {size}, "ms": {_ms(seconds)}, "client": {_quoted(client)}, "event": "request", "level": "info", '
        f'"timestamp": "{_second(int(when))}.{int(when % 1 * 1e6):06d}Z"}}\n'
        for request_id, method, path, status, size, seconds, client, when in _pending
    ]
    _pending.clear()
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


@lru_cache(maxsize=4)  # lines come by the hundred
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_pending: list[tuple[str, str, str, int, int, float, str, float]] = []
