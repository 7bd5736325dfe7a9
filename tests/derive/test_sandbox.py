"""Decoder processes: hostile pictures end in an answer, and nothing outlives the server."""

# ruff: noqa: ASYNC110, ASYNC222, ASYNC240 - a test may block its own loop

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mediasvc.core.recipe import PRESETS
from mediasvc.derive import decoder as decoder_module
from mediasvc.derive.decoder import DecoderLost
from mediasvc.derive.interface import Findings, Undecodable
from mediasvc.derive.sandbox import Sandbox

pytestmark = pytest.mark.anyio
Encode = Callable[..., bytes]
Noise = Callable[..., Image.Image]


@pytest.fixture
def photo(tmp_path: Path, encode: Encode, noise: Noise) -> Path:
    path = tmp_path / "photo"
    path.write_bytes(encode(noise(640, 480), "JPEG"))
    return path


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes seconds: a progressive JPEG of 96 MP."""
    path = tmp_path_factory.mktemp("slow") / "slow"
    values = np.random.default_rng(1).integers(0, 256, (500, 600, 3), dtype=np.uint8)
    picture = Image.fromarray(np.tile(values, (16, 20, 1)))
    picture.save(path, "JPEG", progressive=True, quality=85)
    return path


def decoders(of: int) -> list[int]:
    """Pids of the decoder processes a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == of and b"decoder_main" in command:
            found.append(int(entry.name))
    return found


async def a_decoder_at_work() -> int:
    while True:
        for pid in decoders(os.getpid()):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) > 60:
                return pid
        await asyncio.sleep(0.02)


async def test_a_picture_is_derived_and_its_decoder_kept(
    sandbox: Sandbox, photo: Path, workspace: Path
) -> None:
    for _ in range(3):
        findings = await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    assert [output.path.exists() for output in findings.outputs] == [True] * 3
    assert findings.problem is None
    assert findings.placeholder is not None
    assert findings.placeholder["data_uri"].startswith("data:image/")
    assert len(findings.placeholder["data_uri"]) < 1024
    assert len(decoders(os.getpid())) == 1


async def test_close_ends_every_decoder(sandbox: Sandbox, photo: Path, slow: Path, workspace: Path) -> None:
    await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    working = asyncio.create_task(sandbox.derive(slow, "image/jpeg", PRESETS, workspace))
    await asyncio.sleep(0.3)
    await sandbox.close()
    assert decoders(os.getpid()) == []
    with pytest.raises(DecoderLost):
        await working
    with pytest.raises(DecoderLost):
        await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)


async def test_the_decoder_knows_no_secret_of_the_server(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, photo: Path, workspace: Path
) -> None:
    monkeypatch.setenv("MEDIASVC_ADMIN_KEY", "secret-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    (pid,) = decoders(os.getpid())
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"secret-key" not in environment
    assert b"VIPS_CONCURRENCY=1" in environment
    # It holds the descriptors of its own pipes and libraries, none of the server's files.
    assert not [link for link in Path(f"/proc/{pid}/fd").iterdir() if "photo" in os.readlink(link)]


async def test_limits_stand_in_the_decoder(sandbox: Sandbox, photo: Path, workspace: Path) -> None:
    await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    (pid,) = decoders(os.getpid())
    limits = Path(f"/proc/{pid}/limits").read_text()
    rows = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert rows["Max core file size"] == "0"
    assert rows["Max open files"] == "64"
    assert rows["Max address space"] != "unlimited"
    assert rows["Max cpu time"] != "unlimited"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"memory_bytes": 100 * 1024 * 1024}, "used more than 100 MiB of memory"),
        ({"cpu_seconds": 0}, "took more than 0 s of CPU time"),
        ({"wall_seconds": 0.3}, "took more than 0.3 s"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_picture_over_a_limit_is_final_and_the_next_one_works(
    limits: dict[str, int], reason: str, tmp_path: Path, slow: Path, workspace: Path, encode: Encode
) -> None:
    small = tmp_path / "small"
    small.write_bytes(encode(Image.new("RGB", (9, 9)), "PNG"))
    sandbox = Sandbox(tmp_path, **limits)  # type: ignore[arg-type]
    with pytest.raises(Undecodable, match=reason):
        await sandbox.derive(slow, "image/jpeg", PRESETS, workspace)
    assert list(workspace.iterdir()) == []
    findings = await sandbox.derive(small, "image/png", PRESETS, workspace)
    assert len(findings.outputs) == 3
    await sandbox.close()


async def test_an_svg_bomb_ends(sandbox: Sandbox, tmp_path: Path, workspace: Path) -> None:
    levels = "".join(f'<g id="l{n}">' + f'<use href="#l{n - 1}"/>' * 10 + "</g>" for n in range(1, 9))
    bomb = tmp_path / "bomb"
    bomb.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"><defs>'
        f'<rect id="l0" width="9" height="9"/>{levels}</defs><use href="#l8"/></svg>'
    )
    with pytest.raises(Undecodable):
        await sandbox.derive(bomb, "image/svg+xml", PRESETS, workspace)


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Decoders that crash while they decode: always, or only when they are strict."""
    (tmp_path / "crashing.py").write_text(
        textwrap.dedent("""
            import os, signal
            from mediasvc.derive import decoder_main
            class Crashing(decoder_main.ImageDeriver):
                def derive(self, source, media_type, presets, workspace, *, strict=True):
                    text = source.read_bytes()
                    if b"CRASH-ALWAYS" in text or (strict and b"CRASH-STRICT" in text):
                        (workspace / "half").write_bytes(b"half")
                        os.kill(os.getpid(), signal.SIGSEGV)
                    return super().derive(source, media_type, presets, workspace, strict=strict)
            decoder_main.DERIVERS = (Crashing(),)
            decoder_main.main()
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(decoder_module, "MODULE", "crashing")
    return tmp_path


async def test_a_picture_that_crashes_the_decoder_twice_is_final(
    crashing: Path, sandbox: Sandbox, photo: Path, workspace: Path
) -> None:
    with photo.open("ab") as file:
        file.write(b"CRASH-ALWAYS")
    with pytest.raises(Undecodable, match=r"crashed \(signal 11\)"):
        await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)


async def test_a_lenient_try_after_a_crash_keeps_what_was_made_and_the_reason(
    crashing: Path, sandbox: Sandbox, photo: Path, workspace: Path
) -> None:
    with photo.open("ab") as file:
        file.write(b"CRASH-STRICT")
    findings = await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    assert findings.problem == "the decoder crashed (signal 11)"
    assert len(findings.outputs) == 3
    assert sorted(path.stem for path in workspace.iterdir()) == ["grid", "preview", "thumb"]


@pytest.mark.parametrize("source", ["not there", "no workspace"])
async def test_what_is_not_the_fault_of_the_bytes_may_be_tried_again(
    source: str, sandbox: Sandbox, photo: Path, workspace: Path, tmp_path: Path
) -> None:
    if source == "not there":
        photo.unlink()
    else:
        workspace = tmp_path / "missing"
    with pytest.raises(DecoderLost):
        await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)


async def test_a_decoder_that_cannot_start_is_not_the_fault_of_the_bytes(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, photo: Path, workspace: Path
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(decoder_module, "MODULE", "no_such_module")
        with pytest.raises(DecoderLost, match="as it started"):
            await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    assert (await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)).problem is None


async def test_a_decoder_killed_from_outside_is_not_the_fault_of_the_bytes(
    sandbox: Sandbox, slow: Path, workspace: Path
) -> None:
    working = asyncio.create_task(sandbox.derive(slow, "image/jpeg", PRESETS, workspace))
    os.kill(await a_decoder_at_work(), signal.SIGKILL)
    with pytest.raises(DecoderLost, match="signal 9"):
        await working


async def test_a_decoder_killed_while_idle_is_replaced(
    sandbox: Sandbox, photo: Path, workspace: Path
) -> None:
    await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
    (pid,) = decoders(os.getpid())
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert (await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)).problem is None


async def test_interrupts_meant_for_the_server_leave_a_decoder_working(
    sandbox: Sandbox, slow: Path, workspace: Path
) -> None:
    working = asyncio.create_task(sandbox.derive(slow, "image/jpeg", PRESETS, workspace))
    pid = await a_decoder_at_work()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert (await working).problem is None


async def test_cancelling_ends_the_decoder_at_work(sandbox: Sandbox, slow: Path, workspace: Path) -> None:
    working = asyncio.create_task(sandbox.derive(slow, "image/jpeg", PRESETS, workspace))
    pid = await a_decoder_at_work()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    while pid in decoders(os.getpid()):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("busy", [True, False], ids=["at work", "idle"])
def test_decoders_end_when_the_server_is_killed(busy: bool, tmp_path: Path, photo: Path, slow: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from mediasvc.core.recipe import PRESETS
        from mediasvc.derive.sandbox import Sandbox
        async def main():
            scratch, photo, slow, busy = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
            sandbox = Sandbox(scratch)
            workspace = scratch / "made"
            workspace.mkdir()
            await sandbox.derive(photo, "image/jpeg", PRESETS, workspace)
            assert not {"PIL", "pyvips", "numpy"} & set(sys.modules), "the server must not import these"
            if busy == "True":
                asyncio.create_task(sandbox.derive(slow, "image/jpeg", PRESETS, workspace))
                await asyncio.sleep(0.4)
            print("ready", flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(photo), str(slow), str(busy)],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    with server:
        assert server.stdout.readline() == b"ready\n"
        pids = decoders(server.pid)
        assert pids
        server.kill()
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a decoder outlived its server"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_every_mutant_ends_in_findings_or_a_refusal(
    sandbox: Sandbox, tmp_path: Path, encode: Encode, noise: Noise
) -> None:
    dice = random.Random(8)
    picture = noise(48, 32)
    seeds = [
        (encode(picture, "PNG" if form == "SVG" else form), media_type)
        for form, media_type in (
            ("JPEG", "image/jpeg"), ("PNG", "image/png"), ("GIF", "image/gif"), ("WEBP", "image/webp"),
            ("TIFF", "image/tiff"), ("BMP", "image/bmp"), ("ICO", "image/x-icon"), ("AVIF", "image/avif"),
            ("JPEG2000", "image/jp2"), ("TGA", "image/x-tga"),
        )
    ]  # fmt: skip

    refusals: list[str] = []
    made: list[Findings] = []

    async def one(number: int) -> None:
        seed, media_type = seeds[number % len(seeds)]
        mutant = bytearray(seed)
        for _ in range(dice.choice((1, 4, 30))):
            # Headers are where parsers stumble.
            mutant[dice.randrange(min(len(mutant), dice.choice((64, 400, len(mutant)))))] = dice.randrange(
                256
            )
        if dice.random() < 0.2:
            del mutant[dice.randrange(len(mutant)) :]
        folder = tmp_path / f"mutant-{number}"
        folder.mkdir()
        (folder / "source").write_bytes(mutant)
        (folder / "made").mkdir()
        try:
            findings = await sandbox.derive(folder / "source", media_type, PRESETS, folder / "made")
        except Undecodable as refusal:
            refusals.append(str(refusal))
        else:
            made.append(findings)

    await asyncio.gather(*(one(number) for number in range(300)))
    assert len(refusals) + len(made) == 300
    assert all(refusals)
    assert all(len(findings.outputs) == 3 for findings in made)
    assert len(decoders(os.getpid())) <= 2
