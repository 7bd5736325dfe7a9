"""Which media types we can look at, how, and within which bounds. Imports no decoder: the server asks here too."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

SVG = "image/svg+xml"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one format is read.

    `loader` is libvips', tried first; `pillow` the formats of Pillow that may open the bytes, in its stead or
    after it. `streams`: libvips reads rows as it needs them, so that pixels cost time but hardly memory.
    """

    name: str
    loader: str | None = None
    pillow: Sequence[str] = ()
    streams: bool = False
    animated: bool = False
    extra: str | None = None  # the package that a base installation lacks


_JPEG = Kind("jpeg", "jpegload", ("JPEG", "MPO"), streams=True)
_TIFF = Kind("tiff", "tiffload", ("TIFF",), streams=True)
_HEIC = Kind("heic", None, ("HEIF",), extra="pillow_heif")
# Pillow decodes AVIF in half the time of libvips and all of it from one process' own memory (measured).
_AVIF = Kind("avif", None, ("AVIF",), animated=True)
_BMP = Kind("bmp", None, ("BMP", "DIB"))
_ICO = Kind("ico", None, ("ICO", "CUR"))
_JP2 = Kind("jp2", None, ("JPEG2000",))
_PSD = Kind("psd", None, ("PSD",))
_PNM = Kind("pnm", None, ("PPM",))
_TGA = Kind("tga", None, ("TGA",))

KINDS = {
    "image/jpeg": _JPEG,
    "image/png": Kind("png", "pngload", ("PNG",), streams=True, animated=True),
    "image/gif": Kind("gif", "gifload", ("GIF",), animated=True),
    "image/webp": Kind("webp", "webpload", ("WEBP",), animated=True),
    "image/avif": _AVIF,
    "image/heic": _HEIC,
    "image/heif": _HEIC,
    "image/tiff": _TIFF,
    SVG: Kind("svg", "svgload"),
    "image/bmp": _BMP,
    "image/x-ms-bmp": _BMP,
    "image/x-icon": _ICO,
    "image/vnd.microsoft.icon": _ICO,
    "image/jp2": _JP2,
    "image/jpx": _JP2,
    "image/vnd.adobe.photoshop": _PSD,
    "image/x-portable-anymap": _PNM,
    "image/x-portable-bitmap": _PNM,
    "image/x-portable-graymap": _PNM,
    "image/x-portable-pixmap": _PNM,
    "image/x-tga": _TGA,
    "image/qoi": Kind("qoi", None, ("QOI",)),
    "image/vnd.ms-dds": Kind("dds", None, ("DDS",)),
}


def accepts(media_type: str) -> bool:
    """Whether, with what is installed, renditions can be made of this type."""
    kind = KINDS.get(media_type)
    return kind is not None and (kind.extra is None or _installed(kind.extra))


def why_not(media_type: str) -> str:
    """A sentence for the timeline of an asset whose type is not accepted."""
    kind = KINDS.get(media_type)
    if kind is not None and kind.extra is not None:
        return f"{kind.name.upper()} needs the extra: pip install 'mediasvc[heic]'"
    return f"no deriver for {media_type}: kept as it is"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
