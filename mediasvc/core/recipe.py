"""How a rendition is made, and the recipes that have a name: presets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Fit inside a square of `box` pixels, never enlarge; encoded as `ext` (WebP where a JPEG cannot keep alpha)."""

    name: str
    box: int
    ext: str


# Largest first: each is made from the one before, so that a picture is decoded once.
PRESETS = (Preset("preview", 2048, "jpg"), Preset("grid", 512, "webp"), Preset("thumb", 256, "webp"))
PRESET_NAMES = frozenset(preset.name for preset in PRESETS)
MEDIA_TYPES = {"jpg": "image/jpeg", "webp": "image/webp"}
EXTENSIONS = {media_type: ext for ext, media_type in MEDIA_TYPES.items()}
