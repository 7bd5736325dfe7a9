"""What a camera wrote into a picture, as facts: plain JSON values, bounded, and only where they make sense."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from PIL import Image

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _ORIENTATION = 0x010F, 0x0110, 0x0112
_LENS_MODEL = 0xA434
_TIMES = ((0x9003, 0x9011), (0x9004, 0x9012))  # original, digitised: each with its offset from UTC
_EXPOSURE = {"exposure_time": 0x829A, "f_number": 0x829D, "iso": 0x8827, "focal_length": 0x920A}
_MAX_TEXT = 200


def exif_facts(exif: Image.Exif) -> dict[str, Any]:
    """`camera`, `taken_at` (local time, with its offset if known), `exposure` (seconds, mm) and `gps` (degrees, m)."""
    details, position = _ifd(exif, _EXIF_IFD), _ifd(exif, _GPS_IFD)
    found = {
        "camera": _present(
            make=text(exif.get(_MAKE)), model=text(exif.get(_MODEL)), lens=text(details.get(_LENS_MODEL))
        ),
        "taken_at": _taken_at(details),
        "exposure": _present(**{name: _positive(details.get(tag)) for name, tag in _EXPOSURE.items()}),
        "gps": _gps(position),
    }
    return {name: value for name, value in found.items() if value}


def orientation_of(exif: Image.Exif) -> int:
    """1 to 8; 1 where the tag is missing or makes no sense."""
    value = exif.get(_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def text(value: object) -> str | None:
    """What was meant to be read: no control characters, at most 200 characters, None if nothing is left."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        return None
    printable = "".join(character for character in value.partition("\0")[0] if character.isprintable())
    return printable.strip()[:_MAX_TEXT] or None


def _ifd(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(tag)
    except Exception:  # Pillow raises whatever a broken directory makes it raise; the rest of the facts stand
        return {}


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _number(value: Any) -> float | None:
    """A finite number, rounded to what sensors and receivers can mean; some tags hold a list of one."""
    if isinstance(value, tuple) and value:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e9 else None


def _positive(value: object) -> float | int | None:
    number = _number(value)
    if number is None or number <= 0:
        return None
    return int(number) if number == int(number) else round(number, 7)


def _taken_at(details: Mapping[int, Any]) -> str | None:
    for time_tag, offset_tag in _TIMES:
        time, offset = text(details.get(time_tag)), text(details.get(offset_tag))
        for value, form in ((f"{time}{offset}", "%Y:%m:%d %H:%M:%S%z"), (time, "%Y:%m:%d %H:%M:%S")):
            try:
                return datetime.strptime(value or "", form).isoformat()
            except ValueError:
                continue
    return None


def _gps(position: Mapping[int, Any]) -> dict[str, float] | None:
    latitude = _degrees(position.get(2), position.get(1), "S", 90)
    longitude = _degrees(position.get(4), position.get(3), "W", 180)
    if latitude is None or longitude is None:
        return None
    altitude = _number(position.get(6))
    if altitude is not None and position.get(5) in (1, b"\x01"):
        altitude = -altitude
    return _present(
        latitude=latitude, longitude=longitude, altitude=None if altitude is None else round(altitude, 2)
    )


def _degrees(value: object, reference: object, negative: str, limit: int) -> float | None:
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3:
        return None
    parts = [_number(part) for part in value]
    degrees = sum(part / 60.0**power for power, part in enumerate(parts) if part is not None)
    if None in parts or not 0 <= degrees <= limit:
        return None
    return round(-degrees if text(reference) == negative else degrees, 7)
