"""The hot path in raw ASGI, in front of FastAPI: asks `deliver`, has the plan carried out.

A route inside FastAPI would cost 70 µs a request, a bare callable 2 (measured). OpenAPI documents these URLs
all the same.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar
from urllib.parse import quote

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.access import Caller
from mediasvc.core.errors import Forbidden, NotFound
from mediasvc.core.signing import Signer
from mediasvc.deliver.download import ById, ByKey, OfPreset, Target, plan_download
from mediasvc.deliver.plan import HandToNginx, Header, Plan
from mediasvc.deliver.receipts import Receipts
from mediasvc.deliver.ways import Way, Ways
from mediasvc.store.interface import BlobMissing, BlobStore
from mediasvc.web.caller import CallerOf
from mediasvc.web.carrier import Carrier, Message, Ready, Receive, Send, missing_blob
from mediasvc.web.sendfile import EXTENSION

T = TypeVar("T")
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# nginx asks again when the store does not have what we handed over: which blob that was.
MISSED = b"x-missed-blob"


def target_of(raw_path: bytes) -> Target | None:
    """What a URL's path (percent-encoded) asks for, if it is one of ours."""
    kind = raw_path[:3]
    if kind == b"/b/":
        bucket, slash, key = raw_path[3:].partition(b"/")
        return ByKey(bucket, key) if slash and bucket else None
    if kind == b"/f/":
        asset_id, slash, _ = raw_path[3:].partition(b"/")
        return ById(asset_id) if slash else None
    if kind == b"/i/":
        preset, slash, name = raw_path[3:].partition(b"/")
        asset_id, dot, ext = name.rpartition(b".")
        return OfPreset(preset, asset_id, ext) if slash and dot and b"/" not in name else None
    return None


class Downloads:
    """Answers GET and HEAD of `/b/…`, `/f/…` and `/i/…`; everything else goes on to `app`.

    Errors of the family are raised before anything was sent: turning them into answers is another layer's work.
    """

    def __init__(
        self,
        app: Application,
        catalogue: Catalogue,
        store: BlobStore,
        caller_of: CallerOf,
        signer: Signer,
        ways: Ways,
        receipts: Receipts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._caller_of = caller_of
        self._signer = signer
        self._ways = ways
        self._carrier = Carrier(catalogue, store, receipts)
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        target = target_of(scope.get("raw_path") or quote(scope["path"]).encode())
        if target is None:
            await self._app(scope, receive, send)
            return
        authorization, missed = None, b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = authorization or value
            elif name == MISSED:
                missed = value
        caller = await self._caller_of(authorization)
        behind_proxy = scope.get("state", {}).get("behind_proxy", False)
        way = self._ways.choose(behind_proxy=behind_proxy, zero_copy=EXTENSION in scope.get("extensions", ()))
        try:
            plan = await self._plan(target, scope, caller, way)
            # Whoever made this up has to know the blob's name, and learns that it is gone.
            if missed and isinstance(plan.body, HandToNginx) and plan.body.blob_id.encode() == missed:
                raise missing_blob(BlobMissing(plan.body.blob_id))
            await self._carrier.carry_out(plan, scope, receive, send)
        except Forbidden:
            if missed and behind_proxy:  # by the very download that has come to nothing the link was used up
                raise missing_blob(BlobMissing(missed.decode("latin-1"))) from None
            raise
        except BlobMissing:
            # Replaced and purged since we looked: then there is a next version. Else the bytes are lost.
            plan = await self._plan(target, scope, caller, way)
            try:
                await self._carrier.carry_out(plan, scope, receive, send)
            except BlobMissing as missing:
                raise missing_blob(missing) from None

    def _plan(self, target: Target, scope: Message, caller: Caller, way: Way) -> Awaitable[Plan]:
        client = scope.get("client")
        address = client[0] if client else ""
        return self._planned(
            target, scope["method"], scope["query_string"], scope["headers"], caller, way, address
        )

    def _planned(
        self,
        target: Target,
        method: str,
        query: bytes,
        headers: Iterable[Header],
        caller: Caller,
        way: Way,
        address: str,
    ) -> Coroutine[Any, Any, Plan]:
        return plan_download(
            self._catalogue,
            target,
            method,
            query,
            headers,
            caller,
            self._clock(),
            signer=self._signer,
            way=way,
            address=address,
        )

    def at_once(
        self, raw_path: bytes, query: bytes, authorization: bytes | None, address: str, *, behind_proxy: bool
    ) -> tuple[bytes, bytes | bytearray] | None:
        """Header lines and body of the 200 to a plain GET, where nothing has to be waited for: the blob is nginx's to
        send, or few bytes that are in memory. None, or whatever is raised: the answer is another, or not to be had at
        once; nothing has happened that could be seen, but for 20 µs."""
        caller = _now(self._caller_of(authorization))
        ready = self._ready(raw_path, query, caller, address, behind_proxy=behind_proxy)
        if self._carrier.ask(ready) and behind_proxy and ready.plan.lasts:  # so nobody is to be slowed down
            # It passes through nginx in less time than nginx needs to be told of it and to open it.
            by_us = self._ready(raw_path, query, caller, address, behind_proxy=False)
            if (answer := self._carrier.at_once(by_us)) is not None:
                return answer
        return self._carrier.at_once(ready)

    def _ready(
        self, raw_path: bytes, query: bytes, caller: Caller, address: str, *, behind_proxy: bool
    ) -> Ready:
        """The plan of a plain GET, remembered if it lasts."""
        asked = (Ready, raw_path, query, caller.key_id, behind_proxy)
        ready: Ready | None = self._catalogue.memory.recall(asked)
        if ready is None:
            if (target := target_of(raw_path)) is None:
                raise NotFound("that is no URL of bytes")
            way = self._ways.choose(behind_proxy=behind_proxy, zero_copy=True)
            ready = Ready.of(_now(self._planned(target, "GET", query, (), caller, way, address)))
            if ready.plan.lasts:
                self._catalogue.memory.remember(asked, ready)
        return ready


class _Waits(Exception):
    """What should have been there at once has to be waited for."""


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of what has nothing to wait for. Raises _Waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        outcome: T = ended.value
        return outcome
    work.close()
    raise _Waits
