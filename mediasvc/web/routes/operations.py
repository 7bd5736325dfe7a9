"""What operators and monitors ask: alive, ready, figures."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from mediasvc import metrics
from mediasvc.core.errors import MediasvcError, Unavailable
from mediasvc.web.deps import CallerDep, DeskDep, require
from mediasvc.web.errors import problem, request_id_of
from mediasvc.web.openapi import OPEN
from mediasvc.web.problems import problems

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """Each part is `ok`, or says what is wrong: then the answer is a problem that has these members besides."""

    store: str
    catalogue: str
    dispatcher: str


@router.get("/healthz", response_model=Health, summary="The process is alive", openapi_extra=OPEN)
async def healthz() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    response_model=Readiness,
    summary="Store, catalogue and dispatcher can do their work",
    responses=problems(),
    openapi_extra=OPEN,
)
async def readyz(request: Request, desk: DeskDep) -> Response:
    store, catalogue = await asyncio.gather(
        _state(desk.house.store.check()), _state(desk.house.catalogue.check())
    )
    dispatcher = "ok" if desk.healthy() else "has not turned for a minute"
    parts = Readiness(store=store, catalogue=catalogue, dispatcher=dispatcher).model_dump()
    if wrong := [f"{name}: {state}" for name, state in parts.items() if state != "ok"]:
        return problem(Unavailable("; ".join(wrong)), request_id_of(request.scope), members=parts)
    return JSONResponse(parts, headers={"Cache-Control": "no-store"})


async def _state(check: "asyncio.Future[None] | object") -> str:
    try:
        await check  # type: ignore[misc]
    except MediasvcError as error:
        return error.detail
    return "ok"


@router.get(
    "/metrics",
    summary="Prometheus metrics; needs the scope metrics:read",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401, 403)},
)
async def prometheus(caller: CallerDep, desk: DeskDep) -> Response:
    require(caller, "metrics:read")
    counts = await desk.house.catalogue.outbox.counts()
    for state in ("waiting", "running", "done", "failed", "cancelled"):
        metrics.tasks.labels(state).set(counts.get(state, 0))
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
