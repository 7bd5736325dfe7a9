"""CPU of three presets and a placeholder from a 24 MP JPEG, against textbook Pillow making the same files.

    python deploy/bench/images.py [--rounds 5]

Rounds are interleaved and the best of each side counts. The textbook opens once, turns upright, converts, and for
each preset resizes the full picture with LANCZOS and saves; it makes no placeholder and reads no facts. The last
column is the same with `Image.thumbnail`, which since Pillow 7 averages whole pixels first: faster, less exact.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# As in a decoder process; libvips reads it when imported.
os.environ["VIPS_CONCURRENCY"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image, ImageOps

from mediasvc.core.recipe import PRESETS, Preset
from mediasvc.derive.image import ImageDeriver

WIDTH, HEIGHT = 6000, 4000
WEBP_QUALITY, JPEG_QUALITY = 80, 85


def photograph(path: Path, *, progressive: bool) -> None:
    """24 MP with gradients, edges and sensor noise, lying on its side (orientation 6), quality 90."""
    dice = np.random.default_rng(7)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    waves = [
        np.sin(x / 311 + shift) + np.cos(y / 173 - shift) + (np.sin(x * y / 4e6) > 0) for shift in range(3)
    ]
    scene = np.stack(waves, axis=2) * 50 + 90 + dice.normal(0, 6, (HEIGHT, WIDTH, 1)).astype(np.float32)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(scene.clip(0, 255).astype(np.uint8))
    picture.save(path, "JPEG", quality=90, exif=exif, progressive=progressive)


def upright_rgb(source: Path) -> Image.Image:
    """How both textbooks begin."""
    with Image.open(source) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def save(picture: Image.Image, preset: Preset, workspace: Path) -> None:
    """In the format of the preset, otherwise as Pillow does by default."""
    quality = JPEG_QUALITY if preset.ext == "jpg" else WEBP_QUALITY
    picture.save(workspace / f"{preset.name}.{preset.ext}", quality=quality)


def textbook(source: Path, workspace: Path) -> None:
    """What the tutorials say."""
    full = upright_rgb(source)
    for preset in PRESETS:
        scale = preset.box / max(full.size)
        size = (round(full.width * scale), round(full.height * scale))
        save(full.resize(size, Image.Resampling.LANCZOS), preset, workspace)


def textbook_thumbnail(source: Path, workspace: Path) -> None:
    """What the better tutorials say."""
    full = upright_rgb(source)
    for preset in PRESETS:
        copy = full.copy()
        copy.thumbnail((preset.box, preset.box), Image.Resampling.LANCZOS)
        save(copy, preset, workspace)


def ours(source: Path, workspace: Path) -> None:
    """What a decoder process does for one upload."""
    ImageDeriver().derive(source, "image/jpeg", PRESETS, workspace)


def cpu_of(work: Callable[[Path, Path], None], source: Path) -> float:
    """Seconds of CPU, all threads of this process."""
    with tempfile.TemporaryDirectory() as workspace:
        before = time.process_time()
        work(source, Path(workspace))
        return time.process_time() - before


def main() -> None:
    """Print one line for each kind of JPEG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        for progressive in (False, True):
            source = Path(folder) / "photograph.jpg"
            photograph(source, progressive=progressive)
            sides = (ours, textbook, textbook_thumbnail)
            measured = [[cpu_of(side, source) for side in sides] for _ in range(rounds)]
            mine, plain, better = (min(column) * 1000 for column in zip(*measured, strict=True))
            kind = "progressive" if progressive else "baseline"
            print(
                f"24 MP {kind} JPEG ({source.stat().st_size / 1e6:.1f} MB), CPU, best of {rounds}: ours {mine:.0f} ms, "
                f"textbook {plain:.0f} ms, ratio {mine / plain:.2f}"
                + ("" if progressive else " (goal ≤ 0.20)")
                + f"; with Image.thumbnail {better:.0f} ms, ratio {mine / better:.2f}"
            )


if __name__ == "__main__":
    main()
