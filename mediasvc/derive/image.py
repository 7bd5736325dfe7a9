"""Images: facts, the presets and a placeholder from one decode.

Each rendition is made from the one before, and the first from as few pixels as the format lets us decode:
a 24 MP JPEG costs an eighth of what three textbook thumbnails cost (`deploy/bench/images.py`).
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyvips
from PIL import ImageCms

from mediasvc.core.recipe import MEDIA_TYPES, Preset
from mediasvc.derive import registry
from mediasvc.derive.exif import exif_facts, text
from mediasvc.derive.interface import Findings, Output, Undecodable
from mediasvc.derive.picture import Picture, open_svg, open_with_pillow, open_with_vips
from mediasvc.derive.placeholder import placeholder_of
from mediasvc.derive.registry import KINDS, Kind

if registry.accepts("image/heic"):
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)

pyvips.cache_set_max(0)
pyvips.block_untrusted_set(True)

Opener = Callable[..., Picture]


class ImageDeriver:
    """The deriver of everything in the registry, by libvips, or Pillow where libvips cannot or is slower."""

    def accepts(self, media_type: str) -> bool:
        """See the registry."""
        return registry.accepts(media_type)

    def derive(
        self,
        source: Path,
        media_type: str,
        presets: Sequence[Preset],
        workspace: Path,
        *,
        strict: bool = True,
    ) -> Findings:
        """As the door says; without `strict` only the lenient tries are made.

        Raises MemoryError when the limit of the process was hit, OSError when the workspace cannot be written.
        """
        kind = KINDS[media_type]
        picture, upright, problem = _decode(
            source, kind, max(preset.box for preset in presets), strict=strict
        )
        facts = _facts(picture, kind)
        outputs, smallest = _render(upright, facts["width"], facts["height"], presets, workspace)
        return Findings(facts, placeholder_of(smallest), outputs, problem)


def _decode(source: Path, kind: Kind, box: int, *, strict: bool) -> tuple[Picture, pyvips.Image, str | None]:
    """The first try that gives a picture, and the first problem if only a lenient one did."""
    problem: str | None = None
    for careful in (True, False) if strict else (False,):
        for opener in _openers(kind):
            if careful and problem and problem.startswith(_TRUNCATED):
                continue  # certain already, and the other library may not notice
            try:
                picture = opener(source, kind, box, strict=careful)
                upright = _upright(picture, box)
            except (Undecodable, MemoryError):
                raise
            except (
                Exception
            ) as error:  # struct.error, IndexError, SyntaxError…: Pillow's plugins raise anything
                if "out of memory" in str(error):
                    raise MemoryError from error
                problem = problem or _in_plain_words(error, source, kind)
            else:
                return picture, upright, None if careful else problem
    raise Undecodable(problem or "no picture in it")


def _openers(kind: Kind) -> list[Opener]:
    if kind.loader == "svgload":
        return [open_svg]
    return [open_with_vips] * (kind.loader is not None) + [open_with_pillow] * bool(kind.pillow)


def _upright(picture: Picture, box: int) -> pyvips.Image:
    """Upright 8-bit sRGB fitted into `box`, in memory: here the decoding happens, and only here."""
    image = _fit(_plain_bands(picture.image), *_fitted(picture.width, picture.height, box))
    # Everything below works on few pixels.
    image = _without_idle_alpha(_srgb(image, picture.profile))
    return _TURNS[picture.orientation](image).copy_memory()


def _plain_bands(image: pyvips.Image) -> pyvips.Image:
    """Grey, RGB or CMYK, with or without alpha, and named as what it is."""
    if image.interpretation == "multiband" or image.bands > (5 if image.interpretation == "cmyk" else 4):
        image = image.extract_band(0, n=3) if image.bands >= 3 else image.extract_band(0)
        image = image.copy(interpretation="srgb" if image.bands == 3 else "b-w")
    if image.format == "ushort" and image.interpretation in ("b-w", "srgb"):
        image = image.copy(interpretation="grey16" if image.interpretation == "b-w" else "rgb16")
    return image


def _fitted(width: int, height: int, box: int) -> tuple[int, int]:
    """Inside a square, never enlarged, no side under one pixel."""
    scale = min(1.0, box / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _fit(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """To this size, in memory."""
    if (image.width, image.height) == (width, height):
        return image.copy_memory()
    across, down = width / image.width, height / image.height
    if not image.hasalpha():
        return image.resize(across, vscale=down).copy_memory()
    # The colour of what is transparent must not bleed into what is not.
    premultiplied = image.premultiply().resize(across, vscale=down)
    return premultiplied.unpremultiply().cast(image.format).copy_memory()


def _srgb(image: pyvips.Image, profile: bytes | None) -> pyvips.Image:
    converted = None
    if profile is not None and not (profile_name(profile) or "").startswith("sRGB"):
        with contextlib.suppress(pyvips.Error):  # a broken profile, or one for other colours than these
            converted = image.icc_transform("srgb", embedded=True, intent="relative").copy_memory()
    if converted is None and image.interpretation == "cmyk":
        converted = image.icc_transform("srgb", input_profile="cmyk")
    if converted is None:
        converted = image.colourspace("srgb")
    return converted.cast("uchar")


def _without_idle_alpha(image: pyvips.Image) -> pyvips.Image:
    """Alpha that hides nothing (screenshots) would make every rendition larger."""
    if image.hasalpha() and image[image.bands - 1].min() == 255:
        return image.extract_band(0, n=image.bands - 1)
    return image


_TURNS: dict[int, Callable[[pyvips.Image], pyvips.Image]] = {
    1: lambda image: image,
    2: lambda image: image.fliphor(),
    3: lambda image: image.rot180(),
    4: lambda image: image.flipver(),
    5: lambda image: image.rot90().fliphor(),
    6: lambda image: image.rot90(),
    7: lambda image: image.rot270().fliphor(),
    8: lambda image: image.rot270(),
}


def _render(
    image: pyvips.Image, width: int, height: int, presets: Sequence[Preset], workspace: Path
) -> tuple[tuple[Output, ...], pyvips.Image]:
    """Each preset from the one before, largest first; also the smallest picture that was made."""
    outputs = []
    for preset in sorted(presets, key=lambda preset: -preset.box):
        image = _fit(image, *_fitted(width, height, preset.box))
        ext = "webp" if preset.ext == "jpg" and image.hasalpha() else preset.ext
        path = workspace / f"{preset.name}.{ext}"
        path.write_bytes(_ENCODERS[ext](image))
        outputs.append(Output(preset.name, path, MEDIA_TYPES[ext], image.width, image.height))
    return tuple(outputs), image


_ENCODERS: dict[str, Callable[[pyvips.Image], bytes]] = {
    # keep=none: no EXIF, no position, no thumbnail of what was cropped away.
    "jpg": lambda image: image.jpegsave_buffer(Q=85, keep="none"),
    "webp": lambda image: image.webpsave_buffer(Q=80, effort=2, keep="none"),
}


def _facts(picture: Picture, kind: Kind) -> dict[str, Any]:
    width, height = picture.width, picture.height
    if picture.orientation >= 5:
        width, height = height, width
    facts: dict[str, Any] = {
        "format": kind.name,
        "width": width,
        "height": height,
        "orientation": picture.tagged_orientation,
        "bit_depth": picture.bit_depth,
        "has_alpha": bool(picture.image.hasalpha()),
    }
    if picture.frames > 1:
        facts["frames" if kind.animated else "pages"] = picture.frames
    if picture.profile is not None and (name := profile_name(picture.profile)):
        facts["color_profile"] = name
    return facts | exif_facts(picture.exif)


def profile_name(profile: bytes) -> str | None:
    """The description inside an ICC profile."""
    try:
        return text(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


_TRUNCATED = "truncated"
_SIGNS_OF_TRUNCATION = (
    "premature end",
    "truncated",
    "unexpected end",
    "read error",
    "end of file",
    "not enough data",
)


def _in_plain_words(error: Exception, source: Path, kind: Kind) -> str:
    lines = [
        line.strip() for line in str(error).replace(str(source), "the file").splitlines() if line.strip()
    ]
    if isinstance(error, pyvips.Error):
        lines = lines[
            1:
        ]  # after what was called: the first of the libraries' complaints, then what came of it
    said = lines[0][:200] if lines else type(error).__name__
    cut = any(sign in said.lower() for sign in _SIGNS_OF_TRUNCATION)
    return f"{_TRUNCATED if cut else 'damaged'} {kind.name.upper()}: {said}"
