"""`mediasvc keys`: make, list and revoke API keys; works beside a running server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from mediasvc import settings
from mediasvc.bootstrap import Records, make_key, open_records
from mediasvc.catalogue.interface import Gone
from mediasvc.cli.options import DataDir, Json
from mediasvc.core.access import SCOPES, Key
from mediasvc.core.durations import parse_duration
from mediasvc.core.errors import NotFound
from mediasvc.core.ids import new_key_secret
from mediasvc.core.keys import normalise_prefix
from mediasvc.settings import Settings

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    scope: Annotated[list[str], typer.Option(help=f"May be given several times: {', '.join(SCOPES)}")],
    name: Annotated[str, typer.Option(help="To tell keys apart")] = "",
    bucket: Annotated[str | None, typer.Option(help="Narrow the key to this bucket")] = None,
    prefix: Annotated[str, typer.Option(help="Narrow the key to asset keys that begin like this")] = "",
    expires_in: Annotated[str | None, typer.Option(help="Such as 3600, 12h or 30d")] = None,
    max_asset_size: Annotated[
        int | None, typer.Option(help="Largest asset it may store, bytes", min=0)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key; prints its secret alone on stdout, this once."""
    for unknown in (one for one in scope if one not in SCOPES):
        raise typer.BadParameter(
            f"{unknown!r} is no scope; there are {', '.join(SCOPES)}", param_hint="--scope"
        )
    if prefix and bucket is None:
        raise typer.BadParameter("name the bucket as well", param_hint="--prefix")
    try:
        lifetime = parse_duration(expires_in) if expires_in is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires-in") from None
    chosen = settings.read(data_dir=data_dir)
    secret = new_key_secret()

    async def add(records: Records) -> None:
        if bucket is not None and await records.catalogue.bucket(bucket) is None:
            raise NotFound(f"there is no bucket {bucket!r}")
        now = records.clock()
        key = replace(
            make_key(secret, name=name, scopes=frozenset(scope), now=now),
            bucket=bucket,
            prefix=normalise_prefix(prefix),
            expires_at=now + lifetime if lifetime is not None else None,
            max_asset_size=max_asset_size,
        )
        async with records.catalogue.transaction() as tx:
            await tx.add_key(key)

    _with_records(chosen, add)
    print(secret)


@app.command("list")
def list_(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List live keys; secrets are not kept and cannot be shown."""

    async def show(records: Records) -> None:
        after = None
        while page := await records.catalogue.keys(after):
            for key in page:
                print(json.dumps(_row(key)) if as_json else _line(key))
            after = page[-1].id

    _with_records(settings.read(data_dir=data_dir), show)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="key_…, as `keys list` shows it")], data_dir: DataDir = None
) -> None:
    """Revoke a key; a running server refuses it at once."""

    async def end(records: Records) -> None:
        try:
            async with records.catalogue.transaction() as tx:
                await tx.revoke_key(key_id, records.clock())
        except Gone:
            raise NotFound(f"there is no live key {key_id}") from None

    _with_records(settings.read(data_dir=data_dir), end)


def _with_records(chosen: Settings, work: Callable[[Records], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_records(chosen, need_store=False, found=True) as records:
            await work(records)

    asyncio.run(run())


def _row(key: Key) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "bucket": key.bucket,
        "prefix": key.prefix,
        "created_at": _when(key.created_at),
        "expires_at": _when(key.expires_at) if key.expires_at is not None else None,
    }


def _line(key: Key) -> str:
    where = f"{key.bucket}/{key.prefix}" if key.bucket else "every bucket"
    until = f" until {_when(key.expires_at)}" if key.expires_at is not None else ""
    return f"{key.id}  {key.hint}…  {key.name or '-'}  {','.join(sorted(key.scopes))}  {where}{until}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
