"""Pictures made by the tests, and two ways to look at them: in this process, and by the sandbox."""

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mediasvc.core.recipe import PRESETS
from mediasvc.derive.image import ImageDeriver
from mediasvc.derive.interface import Findings
from mediasvc.derive.sandbox import Sandbox

Look = Callable[[bytes, str], Findings]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Derive bytes of a type right here."""
    count = iter(range(1000))

    def derive(data: bytes, media_type: str) -> Findings:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        source = folder / "source"
        source.write_bytes(data)
        workspace = folder / "made"
        workspace.mkdir()
        return ImageDeriver().derive(source, media_type, PRESETS, workspace)

    return derive


@pytest.fixture
async def sandbox(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(tmp_path, processes=2, wall_seconds=60)
    yield sandbox
    await sandbox.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """A picture's file, as Pillow writes it."""

    def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture
def noise() -> Callable[..., Image.Image]:
    """A picture that does not compress well."""

    def picture(width: int, height: int, *, mode: str = "RGB") -> Image.Image:
        values = np.random.default_rng(3).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
        return Image.fromarray(values.squeeze() if len(mode) == 1 else values, mode)

    return picture
