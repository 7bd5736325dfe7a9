"""One upload over HTTP: the head becomes a command, the outcome an answer, whichever dialect the client speaks."""

from contextlib import suppress
from dataclasses import dataclass, replace

from fastapi import Request, Response, status
from fastapi.responses import JSONResponse

from mediasvc import metrics
from mediasvc.core.access import Caller
from mediasvc.core.asset import Asset
from mediasvc.core.errors import (
    ChecksumMismatch,
    InconsistentLength,
    LimitError,
    Locked,
    MediasvcError,
    MethodNotAllowed,
    StoreFault,
    Superseded,
    TooLarge,
    Unavailable,
)
from mediasvc.core.upload import Upload, UploadToken
from mediasvc.ingest.admission import Wanted
from mediasvc.ingest.commands import Append, Begin, Describe, Discard, Inspect, Limits, Reply
from mediasvc.ingest.direct import Direct
from mediasvc.ingest.fields import body_size, joined
from mediasvc.ingest.possession import Outcome
from mediasvc.web.deps import Desk, body_sha256
from mediasvc.web.dialects import Dialect, Draft, Tus, dialect_of
from mediasvc.web.errors import problem, request_id_of
from mediasvc.web.preflight import Welcome, is_preflight
from mediasvc.web.protocol import INFORM
from mediasvc.web.schemas import AssetOut
from mediasvc.web.upload_schemas import UploadIn, UploadOut
from mediasvc.web.urls import asset_url, base_url, named_asset_url
from mediasvc.web.wanted import narrowed, wanted_by

OF_ALL = "GET, HEAD, OPTIONS, POST"
OF_ONE = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


@dataclass(frozen=True, slots=True)
class UploadsAt:
    """Where uploads are taken: `url` is the absolute URL where they begin, and `/{id}` after it that of each.

    With a `token` the caller is its bearer: tus alone is spoken, whose answers show nothing of any asset.
    """

    request: Request
    desk: Desk
    caller: Caller
    base: str
    url: str
    token: UploadToken | None = None

    async def serve(self, upload_id: str | None, *, named: Wanted | None = None) -> Response:
        """Answer the request, errors too. `named`: what a URL with a key in it asks for."""
        headers = joined(self.request.headers.raw)
        dialect: Dialect = Tus(headers, self._at) if self.token else dialect_of(headers, self._at)
        try:
            return await self._serve(dialect, upload_id, named)
        except MediasvcError as caught:
            error = caught
            if isinstance(error, MethodNotAllowed) and not self.token:  # the dialect knows its own only
                allow = OF_ALL if upload_id is None else OF_ONE
                error = MethodNotAllowed(f"this URL takes {allow}", allow=allow)
            if self.request.method == "HEAD" and isinstance(error, Unavailable | StoreFault):
                # tus-js-client takes any other answer than this for the end of the upload, and begins a new one.
                error = Locked(error.detail)
            metrics.uploads.labels(dialect.door, error.code).inc()
            limits = self._limits(None)
            if isinstance(error, TooLarge) and error.limit_source not in ("server", "upload"):
                limits = replace(limits, max_size=error.limit)
            told = dialect.on_error(error, limits)
            answer = problem(
                error, request_id_of(self.request.scope), type=told.type, members=told.members or {}
            )
            answer.headers.update(told.headers)
            return answer

    @property
    def _at(self) -> tuple[str, str]:
        """`url` as we tell it, and as this client asked for it: MEDIASVC_PUBLIC_URL may say otherwise."""
        return self.url, base_url(self.request.scope, None) + self.url.removeprefix(self.base)

    async def let_in(self, upload_id: str) -> None:
        """A preflight ends here, once it is known that the caller may go on with this upload."""
        if is_preflight(self.request.scope):
            await self.desk.house.resumer.look(self.caller, upload_id)
            raise Welcome

    def describe(self, allow: str) -> Response:
        """What OPTIONS answers: tus's words and the draft's, whoever asks."""
        limits = self._limits(None)
        answer = _bare(Tus({}).described(limits))
        if not self.token:
            answer.headers.update(Draft({}).described(limits).headers)
        answer.headers["Allow"] = allow
        return answer

    async def begin_plain(self, wanted: UploadIn) -> Response:
        """An upload without bytes; the answer says where they go."""
        names = {"bucket": wanted.bucket, "key": wanted.key or "", "filename": wanted.name or ""}
        names["filetype"] = wanted.media_type or ""
        command = Begin(wanted.size, names=names, sha256=wanted.sha256.lower() if wanted.sha256 else None)
        asked = replace(
            wanted_by(self.request, self.caller, names), length=command.length, sha256=command.sha256
        )
        admission = await self.desk.house.resumer.admit(self.caller, command, asked)
        outcome = await self.desk.house.resumer.create(self.caller, command, admission)
        told = self._told(outcome)
        answer = JSONResponse(told.model_dump(), status.HTTP_201_CREATED, {"Location": told.url})
        return self._named(outcome, answer)

    async def put_whole(self, upload_id: str) -> Response:
        await self.let_in(upload_id)
        headers = joined(self.request.headers.raw)
        append = Append(
            0, size=body_size(headers), completes=True, whole=True, sha256=body_sha256(self.request)
        )
        outcome = await self._append(upload_id, append)
        return self._progress(Draft(headers), outcome, Reply(status.HTTP_200_OK))

    async def told(self, upload: Upload) -> UploadOut:
        """As JSON, with its asset where it has become one."""
        return self._told(await self.desk.house.resumer.outcome(upload))

    def _told(self, outcome: Outcome) -> UploadOut:
        return UploadOut.of(outcome, self.base, self.url, self.desk.house.store.presigned)

    async def complete_parts(self, upload_id: str) -> Response:
        """The answer is the asset, as that of a PUT; it may be asked for again."""
        await self.let_in(upload_id)
        outcome = await self.direct.complete(self.caller, upload_id)
        self.desk.ring()
        return self._progress(
            Draft(joined(self.request.headers.raw)), outcome, Reply(status.HTTP_200_OK), door="direct"
        )

    @property
    def direct(self) -> Direct:
        house = self.desk.house
        return Direct(house.catalogue, house.store, house.resumer)

    async def _serve(self, dialect: Dialect, upload_id: str | None, named: Wanted | None) -> Response:
        command = dialect.read(self.request.method, creating=upload_id is None)
        resumer = self.desk.house.resumer
        match command:
            case Describe():
                return _bare(dialect.described(self._limits(None)))
            case Begin():
                return await self._begin(dialect, command, named)
        assert upload_id is not None
        await self.let_in(upload_id)
        match command:
            case Append():
                outcome = await self._append(upload_id, command)
                return self._progress(dialect, outcome, dialect.appended(outcome.upload))
            case Inspect():
                outcome = await resumer.inspect(self.caller, upload_id, length_ends=dialect.length_ends)
                return self._named(
                    outcome, _bare(dialect.inspected(outcome.upload, self._limits(outcome.upload)))
                )
            case Discard():
                await resumer.discard(self.caller, upload_id)
        return _bare(dialect.discarded())

    async def _begin(self, dialect: Dialect, command: Begin, named: Wanted | None) -> Response:
        resumer = self.desk.house.resumer
        wanted = named or narrowed(wanted_by(self.request, self.caller, command.names), self.token)
        wanted = replace(wanted, length=command.length, sha256=command.sha256)
        admission = await resumer.admit(self.caller, command, wanted)
        if is_preflight(self.request.scope):
            raise Welcome
        outcome = await resumer.create(self.caller, command, admission)
        upload = outcome.upload
        if upload.state == "completing" or outcome.received is not None:
            self.desk.ring()
        location, limits = f"{self.url}/{upload.id}", self._limits(upload)
        inform = self.request.scope.get("extensions", {}).get(INFORM)
        # A proxy would take a 104 for the answer: nginx does, and the next answer is then lost.
        told = dialect.informed(location, limits)
        informed = False
        if inform is not None and told is not None and self.desk.house.settings.delivery != "nginx":
            inform(told)
            informed = True
        if upload.state == "open" and (command.has_body or upload.received or command.completes):
            append = Append(
                0,
                size=command.size,
                completes=command.completes,
                checksum=command.checksum,
                content_digest=command.content_digest,
                sha256=command.sha256,
            )
            try:
                outcome = await self._append(upload.id, append)
            except Exception as error:
                over = isinstance(error, ChecksumMismatch | InconsistentLength | LimitError)
                # Who was not told where it is cannot go on with it; but somebody else may have found it.
                if over or not (informed or isinstance(error, Superseded)):
                    with suppress(MediasvcError):  # the error may have ended it
                        await resumer.discard(self.caller, upload.id)
                raise
        return self._progress(dialect, outcome, dialect.created(outcome.upload, location, limits), location)

    async def _append(self, upload_id: str, command: Append) -> Outcome:
        body = self.request.stream() if command.size != 0 else None
        outcome = await self.desk.house.resumer.append(self.caller, upload_id, command, body)
        if outcome.received is not None:
            self.desk.ring()
        return outcome

    def _progress(
        self, dialect: Dialect, outcome: Outcome, reply: Reply, location: str = "", *, door: str = ""
    ) -> Response:
        received = outcome.received
        if received is None or not dialect.tells_asset:
            if received is not None:
                count_stored(door or dialect.door, received.asset)
            return self._named(outcome, _bare(reply))
        count_stored(door or dialect.door, received.asset)
        asset = received.asset
        answer = JSONResponse(
            AssetOut.of(asset, self.base, with_gps=True).model_dump(),
            status.HTTP_201_CREATED if received.created else status.HTTP_200_OK,
            {"ETag": asset.etag},
        )
        if received.created:
            answer.headers["Location"] = asset_url(self.base, asset)
        answer.headers.update(dialect.completed(outcome.upload, location))
        return self._named(outcome, answer)

    def _named(self, outcome: Outcome, answer: Response) -> Response:
        """With the URL that the asset has, or will have."""
        upload = outcome.upload
        if upload.asset_id:
            answer.headers["Content-Location"] = named_asset_url(self.base, upload.asset_id, upload.name)
        return answer

    async def look(self, upload_id: str) -> Response:
        """The upload as JSON, with the draft's headers; disturbs nobody."""
        outcome = await self.desk.house.resumer.look(self.caller, upload_id)
        dialect = dialect_of(joined(self.request.headers.raw))
        answer = JSONResponse(self._told(outcome).model_dump())
        answer.headers.update(dialect.inspected(outcome.upload, self._limits(outcome.upload)).headers)
        return self._named(outcome, answer)

    def _limits(self, upload: Upload | None) -> Limits:
        settings, store = self.desk.house.settings, self.desk.house.store
        sizes = (settings.max_upload_size, self.caller.max_asset_size, store.max_blob_size)
        return Limits(
            max_size=upload.limit
            if upload
            else min((size for size in sizes if size is not None), default=None),
            max_append_size=settings.max_request_size,
            max_age=int(settings.upload_expires),
        )


def _bare(reply: Reply) -> Response:
    return Response(status_code=reply.status, headers=dict(reply.headers))


def count_stored(door: str, asset: Asset) -> None:
    metrics.uploads.labels(door, "stored").inc()
    metrics.upload_bytes.labels(door).inc(asset.blob.size)
