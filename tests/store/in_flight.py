"""How many bytes are on their way to the store at once."""

import threading
from typing import Any

import pytest

from mediasvc.store.s3_client import S3Client


class InFlight:
    """Counted where they are sent; `most` is the most there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()
        real = S3Client.call

        def counted(client: S3Client, operation: str, **parameters: Any) -> Any:
            size = len(parameters.get("Body", b""))
            self._add(size)
            try:
                return real(client, operation, **parameters)
            finally:
                self._add(-size)

        monkeypatch.setattr(S3Client, "call", counted)

    def _add(self, size: int) -> None:
        with self._lock:
            self._now += size
            self.most = max(self.most, self._now)
