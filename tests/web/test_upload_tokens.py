"""An upload token is a secret in a path: what is written down about a request must not show it."""

from typing import Any

import pytest
import structlog
from starlette.types import Receive, Scope, Send

from mediasvc.web.observe import Observed

pytestmark = pytest.mark.anyio
SECRET = "upt_" + "s3cr3t-_" * 4


async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/t/{SECRET}/tus/upl_1", "/t/upt_***/tus/upl_1"),
        (f"/t/{SECRET}", "/t/upt_***"),
        (f"//t//{SECRET}/s3/params", "//t//upt_***/s3/params"),
        ("/v1/uploads/upl_1", "/v1/uploads/upl_1"),
    ],
)
async def test_not_even_the_log_of_a_bug_shows_it(path: str, shown: str) -> None:
    async def receive() -> Any:
        raise AssertionError("nobody reads the body")

    async def send(message: Any) -> None:
        assert SECRET not in str(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
    with structlog.testing.capture_logs() as logs:
        await Observed(breaks)(scope, receive, send)
    (bug,) = (line for line in logs if line["event"] == "request_error")
    assert bug["path"] == shown
    assert SECRET not in str(logs)
