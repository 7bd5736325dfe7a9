"""Durations as people write them: seconds, or a number with `s`, `m`, `h` or `d`."""

import math
import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FORM = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([smhd]?)", re.ASCII)
LONGEST = 100 * 365.25 * 86400  # a century; what lies beyond is a mistake


def parse_duration(text: str | int | float) -> float:
    """Seconds of `3600`, `"90s"`, `"30d"`. Raises ValueError with a sentence for anything else."""
    match = _FORM.fullmatch(str(text).strip()) if not isinstance(text, bool) else None
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not 0 < seconds <= LONGEST:
        raise ValueError("must be a number of seconds, or a number with s, m, h or d such as 30d")
    return seconds
