"""Python between an ASGI scope and the plan of an authorised 64 KiB download, in this process."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
from machine import KEY, Figure, Workplace

from mediasvc import logs, settings
from mediasvc.bootstrap import House, open_house
from mediasvc.deliver.download import plan_download
from mediasvc.deliver.ways import by_sendfile
from mediasvc.web.app import make_service
from mediasvc.web.caller import caller_resolver
from mediasvc.web.deps import Desk
from mediasvc.web.download import target_of
from mediasvc.web.sendfile import EXTENSION

REQUESTS = 3000


def measure(place: Workplace) -> Iterator[Figure]:
    yield from asyncio.run(_measure(place))


async def _measure(place: Workplace) -> list[Figure]:
    logs.configure(level=30)
    chosen = settings.read({"MEDIASVC_DATA_DIR": str(place.folder / "plan"), "MEDIASVC_ADMIN_KEY": KEY})
    async with open_house(chosen) as house:
        app = make_service(Desk(house, ring=lambda: None, healthy=lambda: True)).app
        headers = {"Authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bench", headers=headers) as client:
            made = await client.put("/b/media/small", content=place.file(0).read_bytes())
            asset = made.raise_for_status().json()["id"]
        scope = _scope(f"/f/{asset}/small")
        planned = min([await _to_plan(house, scope) for _ in range(place.rounds)])
        answered = min([await _to_head(app, scope) for _ in range(place.rounds)])
    return [
        Figure("Python from target and key to plan", planned, "µs", 50, False, "64 KiB, authorised"),
        Figure(
            "Python from ASGI scope to the answer's head",
            answered,
            "µs",
            50,
            False,
            "whole stack, file opened",
        ),
    ]


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"127.0.0.1:8000"), (b"authorization", f"Bearer {KEY}".encode())],
        "extensions": {EXTENSION: {}},
    }


async def _to_plan(house: House, scope: dict[str, Any]) -> float:
    """Microseconds of one decision: URL, key, catalogue, preconditions, headers."""
    caller_of = caller_resolver(house.catalogue, house.admin_secret)
    began = time.perf_counter()
    for _ in range(REQUESTS):
        target = target_of(scope["raw_path"])
        assert target is not None
        caller = await caller_of(scope["headers"][1][1])
        await plan_download(
            house.catalogue,
            target,
            "GET",
            b"",
            scope["headers"],
            caller,
            time.time(),
            signer=house.signer,
            way=by_sendfile,
        )
    return (time.perf_counter() - began) / REQUESTS * 1e6


async def _to_head(app: Any, scope: dict[str, Any]) -> float:
    """Microseconds until the application says how the answer begins."""
    spent = 0.0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal spent
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            spent += time.perf_counter() - began

    for _ in range(REQUESTS):
        request = {**scope, "state": {}}
        began = time.perf_counter()
        await app(request, receive, send)
    return spent / REQUESTS * 1e6
