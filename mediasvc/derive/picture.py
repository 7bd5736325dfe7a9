"""Open a picture without decoding it: what its header says, checked against limits, and pixels on demand."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageFile

from mediasvc.derive.exif import orientation_of
from mediasvc.derive.interface import Undecodable
from mediasvc.derive.registry import Kind

MP = 1_000_000
MAX_STREAMED_PIXELS = 500 * MP
MAX_BUFFERED_PIXELS = 100 * MP
MAX_FRAMES = 10_000
MAX_SVG_BYTES = 10 * 1024 * 1024
Image.MAX_IMAGE_PIXELS = MAX_BUFFERED_PIXELS


@dataclass(frozen=True, slots=True)
class Picture:
    """`image` may be smaller than the original's `width` × `height`, which are as stored, before orientation."""

    image: pyvips.Image
    width: int
    height: int
    bit_depth: int
    exif: Image.Exif
    orientation: int = 1  # what is still to be done to `image`
    tagged_orientation: int = 1  # what the file says
    frames: int = 1
    profile: bytes | None = None


def open_with_vips(source: Path, kind: Kind, box: int, *, strict: bool) -> Picture:
    """By libvips; a JPEG comes already shrunk, as long as it keeps `box` pixels on its longer side."""
    load = getattr(pyvips.Image, str(kind.loader))
    options: dict[str, Any] = {"access": "sequential", "fail_on": "error" if strict else "none"}
    image = load(str(source), **options)
    width, height = image.width, image.height
    frames = _field(image, "n-pages", 1)
    # A progressive JPEG or interlaced PNG has its last detail at the end: all of it is in memory until then.
    buffered = not kind.streams or _field(image, "interlaced", 0) or _field(image, "jpeg-multiscan", 0)
    check_size(kind, width, height, frames, streamed=not buffered)
    if kind.loader == "jpegload":
        # libvips' own choice keeps twice what is needed and so decodes at full size: twice the price (measured).
        shrink = next((shrink for shrink in (8, 4, 2) if max(width, height) // shrink >= box), 1)
        image = load(str(source), shrink=shrink, **options)
    exif = _exif(source, kind, _field(image, "exif-data", None))
    orientation = _field(image, "orientation", 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    return Picture(
        image,
        width,
        height,
        bit_depth=_field(image, "bits-per-sample", None) or 8 * _BYTES.get(image.format, 1),
        exif=exif,
        orientation=orientation,
        tagged_orientation=orientation,
        frames=frames,
        profile=_field(image, "icc-profile-data", None),
    )


def open_with_pillow(source: Path, kind: Kind, box: int, *, strict: bool) -> Picture:
    """By Pillow, with only the formats of this kind allowed to look at the bytes."""
    try:
        return _open_with_pillow(source, kind, box, strict=strict)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"the limit for this {kind.name.upper()} is {MAX_BUFFERED_PIXELS // MP}"
        raise Undecodable(f"image has too many megapixels, {limit}") from error


def _open_with_pillow(source: Path, kind: Kind, box: int, *, strict: bool) -> Picture:
    ImageFile.LOAD_TRUNCATED_IMAGES = not strict
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF and the like
        # Also for a picture inside a picture (ICO), which check_size() does not see.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(source, formats=list(kind.pillow)) as opened:
            width, height = opened.size
            frames = getattr(opened, "n_frames", 1) if kind.animated else 1
            check_size(kind, width, height, frames, streamed=False)
            opened.load()
            exif = opened.getexif()
            orientation = orientation_of(exif)
            profile = opened.info.get("icc_profile")
            # What the HEIC plugin has already turned upright it notes here.
            tagged = opened.info.get("original_orientation") or orientation
            mode = opened.mode
            pixels = _plain(opened)
            # Halving by whole steps inside Pillow, so that a large picture is not held twice.
            if (reducible := max(width, height) // (2 * box)) > 1 and pixels.mode not in ("I", "F", "I;16"):
                pixels = pixels.reduce(reducible)
    return Picture(
        _to_vips(pixels),
        width,
        height,
        bit_depth=_BITS.get(mode, 8),
        exif=exif,
        orientation=orientation,
        tagged_orientation=tagged,
        frames=frames,
        profile=profile if isinstance(profile, bytes) else None,
    )


def open_svg(source: Path, kind: Kind, box: int, *, strict: bool) -> Picture:
    """By librsvg, from memory, so that a relative reference has nothing to be relative to."""
    if source.stat().st_size > MAX_SVG_BYTES:
        raise Undecodable(f"SVG of more than {MAX_SVG_BYTES // 1024 // 1024} MiB")
    data = source.read_bytes()
    pyvips.operation_block_set("VipsForeignLoadSvg", False)
    try:
        header = pyvips.Image.svgload_buffer(data)
        scale = min(1.0, box / max(header.width, header.height))
        # Drawn at the size that is needed; only a side many times the other can still be large.
        image = pyvips.Image.svgload_buffer(data, scale=scale).copy_memory()
    finally:
        pyvips.operation_block_set("VipsForeignLoadSvg", True)
    return Picture(image, header.width, header.height, bit_depth=8, exif=Image.Exif())


def check_size(kind: Kind, width: int, height: int, frames: int, *, streamed: bool) -> None:
    """Refuse by what the header says, before a pixel is decoded."""
    limit = MAX_STREAMED_PIXELS if streamed else MAX_BUFFERED_PIXELS
    if width * height > limit:
        name = kind.name.upper()
        raise Undecodable(
            f"image has {width * height // MP} megapixels, the limit for this {name} is {limit // MP}"
        )
    if kind.animated and frames > MAX_FRAMES:
        raise Undecodable(f"image has {frames} frames, the limit is {MAX_FRAMES}")


_BYTES = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8}
_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}
_INTERPRETATIONS = {"L": "b-w", "LA": "b-w", "RGB": "srgb", "RGBA": "srgb", "CMYK": "cmyk", "I;16": "grey16"}


def _field(image: pyvips.Image, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default


def _exif(source: Path, kind: Kind, raw: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    try:
        if kind.loader == "tiffload":
            with Image.open(source, formats=["TIFF"]) as opened:  # reads the directory, no pixels
                return opened.getexif()
        if raw is not None:
            exif.load(raw)
    except Exception:  # whatever broken EXIF makes Pillow raise; a picture without facts is still a picture
        return Image.Exif()
    return exif


def _plain(opened: Image.Image) -> Image.Image:
    """In one of the few modes that we hand on."""
    if opened.mode.startswith("I;16"):
        return opened if opened.mode == "I;16" else opened.convert("I")
    if opened.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F"):
        return opened
    if opened.mode == "1":
        return opened.convert("L")
    return opened.convert("RGBA" if opened.has_transparency_data else "RGB")


def _to_vips(pixels: Image.Image) -> pyvips.Image:
    array: Any = np.asarray(pixels)
    interpretation = _INTERPRETATIONS.get(pixels.mode, "grey16")
    if pixels.mode == "F":
        array = np.nan_to_num(array).clip(0, 1) * 65535
    array = np.ascontiguousarray(
        array.clip(0, 65535).astype(np.uint16) if interpretation == "grey16" else array
    )
    bands = 1 if array.ndim == 2 else array.shape[2]
    form = "ushort" if interpretation == "grey16" else "uchar"
    image = pyvips.Image.new_from_memory(array.data, pixels.width, pixels.height, bands, form)
    return image.copy(interpretation=interpretation)
