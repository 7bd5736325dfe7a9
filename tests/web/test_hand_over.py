"""Downloads that others send: nginx is told where the bytes lie, a client is sent to the store."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mediasvc import metrics
from mediasvc.core.errors import NotFound, StoreFault
from mediasvc.deliver.ways import Ways
from tests.web.test_download import CONTENT, House, _next

Answered = tuple[int, dict[str, str], bytes]
Ask = Callable[..., Awaitable[Answered]]


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.downloads._ways = Ways("nginx", house.store)
    return house


def visit(house: House, story: Callable[[Ask], Awaitable[Any]]) -> Any:
    """Runs the story with a way to ask, as nginx would, for the private asset."""

    async def ask(method: str = "GET", *, proxied: bool = True, **headers: str) -> Answered:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            await asyncio.Event().wait()

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        path = f"/f/{house.ids['media']}/x"
        scope = {
            "type": "http",
            "asgi": {"spec_version": "2.3"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer msk_reader"), *raw],
            "client": ("203.0.113.1", 0),
            "state": {"behind_proxy": True} if proxied else {},
        }
        await house.downloads(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent)

    async def told() -> Any:
        await house.open()
        try:
            return await story(ask)
        finally:
            await house.catalogue.close()
            await house.store.close()

    return asyncio.run(told())


def test_nginx_gets_the_place_of_the_blob_and_no_bytes(house: House) -> None:
    async def story(ask: Ask) -> None:
        status, told, body = await ask()
        assert (status, body, told["content-length"]) == (200, b"", "0")
        blob_id = house.blobs["media"]
        assert told["x-accel-redirect"] == f"/_blobs/{blob_id[:2]}/{blob_id[2:4]}/{blob_id}"
        assert told["content-type"] == "video/mp4"
        assert "accept-ranges" not in told

    visit(house, story)


@pytest.mark.parametrize(
    ("method", "proxied", "headers", "status"),
    [
        ("GET", False, {}, 200),
        ("HEAD", True, {}, 200),
        ("GET", True, {"if_none_match": "*"}, 304),
        ("GET", True, {"if_match": "*"}, 200),
        ("GET", True, {"range": "bytes=0-1", "if_range": "Thu, 01 Jan 1970 00:00:01 GMT"}, 200),
    ],
    ids=["a stranger", "HEAD", "unchanged", "If-Match", "a range that does not count"],
)
def test_these_are_answered_here(
    house: House, method: str, proxied: bool, headers: dict[str, str], status: int
) -> None:
    async def story(ask: Ask) -> None:
        answered, told, body = await ask(method, proxied=proxied, **headers)
        assert answered == status
        assert body == (CONTENT if method == "GET" and status == 200 else b"")
        assert not [name for name in told if name.startswith(("x-accel", "x-s3", "x-download"))]
        assert told["accept-ranges"] == "bytes"

    visit(house, story)


def test_every_answer_has_an_id_of_its_own_whose_receipt_counts_once(house: House) -> None:
    async def story(ask: Ask) -> None:
        ids = [(await ask())[1]["x-download-id"] for _ in range(2)]
        assert ids[0] != ids[1]
        assert all(one.startswith(house.ids["media"] + ".") for one in ids)
        for one in (*ids, ids[0]):
            house.receipts.hear(json.dumps({"id": one, "st": 200, "b": 100, "ok": "OK"}).encode())
        await house.receipts.write_down()
        asset = await house.catalogue.asset(house.ids["media"])
        assert asset is not None
        assert (asset.downloads, asset.downloaded_bytes) == (2, 200)

    visit(house, story)


def test_what_we_send_ourselves_counts_as_well(house: House) -> None:
    async def story(ask: Ask) -> None:
        await ask(proxied=False)
        await ask(proxied=False, range="bytes=5-9")
        await ask("HEAD", proxied=False)
        await ask(proxied=False, if_none_match="*")
        await house.receipts.write_down()
        asset = await house.catalogue.asset(house.ids["media"])
        assert asset is not None
        assert (asset.downloads, asset.downloaded_bytes) == (1, len(CONTENT) + 5)

    visit(house, story)


def test_a_lost_file_is_not_found_and_counted_before_nginx_hears_of_it(house: House) -> None:
    async def story(ask: Ask) -> None:
        house.path("media").unlink()
        before = metrics.blobs_missing._value.get()
        with pytest.raises(NotFound):
            await ask()
        assert metrics.blobs_missing._value.get() == before + 1

    visit(house, story)


def test_a_file_of_another_size_is_not_handed_over(house: House) -> None:
    async def story(ask: Ask) -> None:
        with house.path("media").open("ab") as file:
            file.write(b"!")
        with pytest.raises(StoreFault):
            await ask()

    visit(house, story)


def test_an_asset_replaced_while_we_looked_is_handed_over_in_its_next_version(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(ask: Ask) -> None:
        asset = await house.catalogue.asset(house.ids["media"])
        assert asset is not None
        blob = await house._keep("next", b"the next version")
        plan, replaced = house.downloads._plan, False

        async def plan_and_replace(*arguments: Any) -> Any:
            nonlocal replaced
            planned = await plan(*arguments)
            if not replaced:
                replaced = True
                async with house.catalogue.transaction() as tx:
                    await tx.close_intent(blob.id)
                    await tx.replace_asset(_next(asset, blob))
                await house.store.delete(asset.blob.id)
            return planned

        monkeypatch.setattr(house.downloads, "_plan", plan_and_replace)
        _, told, _ = await ask()
        assert told["x-accel-redirect"].endswith(blob.id)

    visit(house, story)


def test_nginx_that_did_not_get_the_blob_is_told_that_it_is_lost(house: House) -> None:
    async def story(ask: Ask) -> None:
        before = metrics.blobs_missing._value.get()
        with pytest.raises(NotFound):
            await ask(x_missed_blob=house.blobs["media"])
        assert metrics.blobs_missing._value.get() == before + 1

    visit(house, story)


def test_what_nginx_missed_of_an_older_version_is_no_loss(house: House) -> None:
    async def story(ask: Ask) -> None:
        _, told, _ = await ask(x_missed_blob="0" * 32)
        assert told["x-accel-redirect"].endswith(house.blobs["media"])

    visit(house, story)


def test_nobody_but_nginx_can_miss_a_blob(house: House) -> None:
    async def story(ask: Ask) -> None:
        assert (await ask(proxied=False, x_missed_blob=house.blobs["media"]))[2] == CONTENT

    visit(house, story)
