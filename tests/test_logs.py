"""The line about a request, which is put together by hand."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from mediasvc import logs


@pytest.mark.parametrize("now", [1_700_000_000.0, 1_700_000_000.0625, 1_699_999_999.9999995], ids=str)
def test_a_line_tells_the_time_to_the_microsecond(
    now: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("mediasvc.logs._for_people", lambda: False)
    monkeypatch.setattr("mediasvc.logs.time.time", lambda: now)

    async def request() -> None:
        logs.log_request(
            request_id="5a22", method="GET", path='/b/"', status=200, size=1, seconds=0.00123, client="::1"
        )

    asyncio.run(request())
    logs.write_pending()
    line = json.loads(capsys.readouterr().err)
    told = datetime.fromisoformat(line.pop("timestamp"))
    assert abs(told - datetime.fromtimestamp(now, UTC)) <= timedelta(microseconds=1)
    assert line == {
        "request_id": "5a22", "method": "GET", "path": '/b/"', "status": 200, "bytes": 1, "ms": 1.23,
        "client": "::1", "event": "request", "level": "info",
    }  # fmt: skip
