"""`mediasvc sweep` and `mediasvc fsck`; both work beside a running server and without one."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from mediasvc import logs, settings
from mediasvc.bootstrap import open_records
from mediasvc.cli.options import DataDir, Json
from mediasvc.ingest.fsck import Finding, Fsck
from mediasvc.ingest.sweep import Swept
from mediasvc.ingest.sweep import sweep as sweep_all
from mediasvc.settings import Settings


def sweep(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Remove what no acknowledgement speaks for: unfinished uploads, ownerless blobs, expired assets."""
    logs.configure()
    swept = asyncio.run(_sweep(settings.read(data_dir=data_dir)))
    print(json.dumps(asdict(swept)) if as_json else swept)


async def _sweep(chosen: Settings) -> Swept:
    async with open_records(chosen, found=True) as records:
        return await sweep_all(records.store, records.catalogue, records.runs, clock=records.clock)


def fsck(
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every blob as well")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be put right")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Prove that catalogue and store agree. Exit code 0: clean, 1: findings."""
    logs.configure()
    findings = asyncio.run(_fsck(settings.read(data_dir=data_dir), deep=deep, repair=repair, as_json=as_json))
    if findings:
        print(f"{findings} findings", file=sys.stderr)
        raise typer.Exit(1)
    print("clean: every row has its bytes, and all bytes have a row", file=sys.stderr)


async def _fsck(chosen: Settings, *, deep: bool, repair: bool, as_json: bool) -> int:
    count = 0
    async with open_records(chosen, found=True) as records:
        check = Fsck(records.store, records.catalogue, records.runs)
        async for finding in check.findings(deep=deep):
            count += 1
            done = await check.repair(finding) if repair else None
            print(json.dumps(asdict(finding) | {"repaired": done}) if as_json else _line(finding, done))
    return count


def _line(finding: Finding, done: str | None) -> str:
    asset = f" of {finding.asset_id}" if finding.asset_id else ""
    return f"{finding.kind}  {finding.id}{asset}: {finding.detail}" + (f" ({done})" if done else "")
