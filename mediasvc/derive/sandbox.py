"""Decoding happens in processes with limits, never in the server.

The server imports no image library: it asks a decoder, and believes nothing the decoder says before it is checked.
A decoder that dies or overruns takes its own picture down and nothing else.
"""

import asyncio
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mediasvc.core.recipe import EXTENSIONS, Preset
from mediasvc.derive.decoder import Decoder, DecoderLost, Overrun
from mediasvc.derive.interface import Findings, Output, Undecodable
from mediasvc.derive.registry import SVG

log = logging.getLogger(__name__)

MiB = 1024 * 1024
TASKS_PER_DECODER = 100  # then a fresh one: leaks and fragments end with the process
IDLE_SECONDS = 300.0  # a decoder without work gives its 100 MB back
SVG_CPU_SECONDS = 3  # a bomb of `use` elements costs librsvg 4 s before it gives up (measured)


class Sandbox:
    """A pool of decoder processes, started when first needed, warm and re-used.

    `memory_bytes` is what one task may add to a decoder that has just started, `cpu_seconds` and
    `wall_seconds` what one try may take. Belongs to one event loop, whose thread must outlive it; `close()` it.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        processes: int = 2,
        memory_bytes: int = 1024 * MiB,
        cpu_seconds: int = 30,
        wall_seconds: float = 90.0,
    ) -> None:
        self._scratch = scratch
        self._memory_bytes = memory_bytes
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._processes = processes
        self._slots = asyncio.Semaphore(processes)
        self._idle: list[tuple[Decoder, asyncio.TimerHandle]] = []
        self._busy: set[Decoder] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._closed = False

    async def derive(
        self, source: Path, media_type: str, presets: Sequence[Preset], workspace: Path
    ) -> Findings:
        """Facts, placeholder and renditions of `source`, written into `workspace` (an empty directory).

        Raises Undecodable when the bytes are to blame: final. Raises DecoderLost when they are not (the decoder
        could not start, was killed from outside, the disk is full): worth another try later.
        Cancelling ends the decoder at work.
        """
        async with self._slots:
            try:
                return await self._ask(source, media_type, presets, workspace, strict=True, fresh=False)
            except Overrun as overrun:
                died = str(overrun)
            log.warning("decoder ended (%s); one lenient try in a fresh one", died)
            _empty(workspace)
            try:
                findings = await self._ask(source, media_type, presets, workspace, strict=False, fresh=True)
            except Overrun as overrun:
                raise Undecodable(died) from overrun
            return replace(findings, problem=died)

    async def close(self) -> None:
        """End every decoder, also those at work: their tasks see DecoderLost. Safe to call twice."""
        self._closed = True
        for decoder, timer in self._idle:
            timer.cancel()
            self._end(decoder)
        self._idle.clear()
        for decoder in tuple(self._busy):
            decoder.kill()
        for _ in range(self._processes):  # those at work or waiting hear of it first
            await self._slots.acquire()
        for _ in range(self._processes):
            self._slots.release()
        await asyncio.gather(*self._burials)

    async def _ask(
        self,
        source: Path,
        media_type: str,
        presets: Sequence[Preset],
        workspace: Path,
        *,
        strict: bool,
        fresh: bool,
    ) -> Findings:
        cpu_seconds = min(self._cpu_seconds, SVG_CPU_SECONDS) if media_type == SVG else self._cpu_seconds
        request = _request(source, media_type, presets, workspace) | {
            "cpu_seconds": cpu_seconds,
            "strict": strict,
        }
        decoder = self._take(fresh=fresh)
        keep = False
        try:
            if decoder.tasks == 0:
                await decoder.ready()
            reply = await decoder.ask(request, cpu_seconds=cpu_seconds, wall_seconds=self._wall_seconds)
            keep = self._worth_keeping(decoder, reply, media_type)
            return _checked(reply, presets, workspace)
        finally:
            self._busy.discard(decoder)
            if keep and not self._closed:
                self._rest(decoder)
            else:
                self._end(decoder)

    def _take(self, *, fresh: bool) -> Decoder:
        if self._closed:
            raise DecoderLost("the server is stopping")
        while self._idle and not fresh:
            decoder, timer = self._idle.pop()
            timer.cancel()
            if decoder.alive:
                self._busy.add(decoder)
                return decoder
            self._end(decoder)
        decoder = Decoder(self._scratch, self._memory_bytes)
        self._busy.add(decoder)
        return decoder

    def _worth_keeping(self, decoder: Decoder, reply: Mapping[str, Any], media_type: str) -> bool:
        resident = reply.get("resident")
        # SVG is the one format whose renderer is a small language: nothing follows it in the same process.
        return (
            media_type != SVG
            and decoder.tasks < TASKS_PER_DECODER
            and isinstance(resident, int)
            and resident < self._memory_bytes // 2
        )

    def _rest(self, decoder: Decoder) -> None:
        def retire() -> None:
            self._idle[:] = [pair for pair in self._idle if pair[0] is not decoder]
            self._end(decoder)

        timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, retire)
        self._idle.append((decoder, timer))

    def _end(self, decoder: Decoder) -> None:
        decoder.kill()
        burial = asyncio.get_running_loop().create_task(decoder.bury())
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)


def _request(source: Path, media_type: str, presets: Sequence[Preset], workspace: Path) -> dict[str, Any]:
    return {
        "source": os.path.abspath(source),
        "media_type": media_type,
        "presets": [[preset.name, preset.box, preset.ext] for preset in presets],
        "workspace": os.path.abspath(workspace),
    }


def _empty(workspace: Path) -> None:
    for leftover in workspace.iterdir():
        leftover.unlink()


def _checked(reply: Mapping[str, Any], presets: Sequence[Preset], workspace: Path) -> Findings:
    """What a decoder answered, as values: it may have been taken over by its picture."""
    if isinstance(reason := reply.get("undecodable"), str):
        raise Undecodable(reason[:500])
    if isinstance(reason := reply.get("lost"), str):
        raise DecoderLost(reason[:500])
    try:
        found = reply["findings"]
        facts, placeholder, problem = found["facts"], found["placeholder"], found["problem"]
        if not isinstance(facts, dict) or not isinstance(placeholder, dict | None):
            raise ValueError("facts and placeholder are objects")
        made = {row["preset"]: row for row in found["outputs"]}
        outputs = tuple(
            _checked_output(made[preset.name], preset, workspace) for preset in presets if preset.name in made
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise Undecodable("the decoder gave an answer that makes no sense") from error
    if placeholder is not None:
        placeholder = {str(name): str(value) for name, value in placeholder.items()}
    return Findings(facts, placeholder, outputs, None if problem is None else str(problem)[:500])


def _checked_output(row: Mapping[str, Any], preset: Preset, workspace: Path) -> Output:
    media_type = row["media_type"]
    path = workspace / f"{preset.name}.{EXTENSIONS[media_type]}"
    # A link in its place would publish another file of the server.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is not a plain file")
    width, height = int(row["width"]), int(row["height"])
    if not (1 <= width <= preset.box and 1 <= height <= preset.box):
        raise ValueError(f"{preset.name} of {width}×{height}")
    return Output(preset.name, path, media_type, width, height)
