"""What to show before a picture is there: a thumbhash, its mean colour and a data URI."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

_SIDE = 32  # enough for what a thumbhash keeps; 100 px give the same picture at ten times the price
_DATA_URI_BYTES = 700  # base64 makes them 1 KB


def placeholder_of(image: pyvips.Image) -> dict[str, str]:
    """`{thumbhash, color, data_uri}` of a small upright sRGB picture, with alpha or without."""
    tiny = image.resize(min(1.0, _SIDE / max(image.width, image.height)))
    pixels = np.asarray(tiny if tiny.hasalpha() else tiny.bandjoin(255)).reshape(tiny.height, tiny.width, 4)
    return {
        "thumbhash": base64.b64encode(thumbhash(pixels)).decode(),
        "color": mean_colour(pixels),
        "data_uri": _data_uri(tiny),
    }


def mean_colour(pixels: npt.NDArray[np.uint8]) -> str:
    """`#rrggbb` of what is not transparent."""
    alpha = pixels[..., 3:].astype(float)
    total = float(alpha.sum())
    red, green, blue = (pixels[..., :3] * alpha).sum((0, 1)) / total if total else (255.0, 255.0, 255.0)
    return f"#{round(red):02x}{round(green):02x}{round(blue):02x}"


def thumbhash(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The ThumbHash of height × width × RGBA pixels (https://evanw.github.io/thumbhash/)."""
    height, width, _ = pixels.shape
    alpha = pixels[..., 3] / 255
    colour = pixels[..., :3] / 255 * alpha[..., None]
    mean = colour.sum((0, 1)) / max(float(alpha.sum()), 1e-9)
    has_alpha = bool((pixels[..., 3] < 255).any())
    red, green, blue = np.moveaxis(colour + mean * (1 - alpha[..., None]), 2, 0)
    limit, longest = (5 if has_alpha else 7), max(width, height)
    across, down = max(1, _round(limit * width / longest)), max(1, _round(limit * height / longest))
    l_dc, l_ac, l_scale = _channel((red + green + blue) / 3, max(3, across), max(3, down))
    p_dc, p_ac, p_scale = _channel((red + green) / 2 - blue, 3, 3)
    q_dc, q_ac, q_scale = _channel(red - green, 3, 3)
    landscape = width > height
    head = _round(63 * l_dc) | _round(31.5 + 31.5 * p_dc) << 6 | _round(31.5 + 31.5 * q_dc) << 12
    head |= _round(31 * l_scale) << 18 | has_alpha << 23
    tail = (down if landscape else across) | _round(63 * p_scale) << 3 | _round(63 * q_scale) << 9
    tail |= landscape << 15
    packed = bytearray(head.to_bytes(3, "little") + tail.to_bytes(2, "little"))
    waves = l_ac + p_ac + q_ac
    if has_alpha:
        a_dc, a_ac, a_scale = _channel(alpha, 5, 5)
        packed.append(_round(15 * a_dc) | _round(15 * a_scale) << 4)
        waves += a_ac
    nibbles = [_round(15 * wave) for wave in waves] + [0]
    packed += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=False))
    return bytes(packed)


def _channel(values: npt.NDArray[Any], across: int, down: int) -> tuple[float, list[float], float]:
    """Constant part, waves scaled to 0…1, and their scale, of a cosine transform cut to a triangle."""
    height, width = values.shape
    by_x = np.cos(np.pi / width * np.arange(across)[:, None] * (np.arange(width) + 0.5))
    by_y = np.cos(np.pi / height * np.arange(down)[:, None] * (np.arange(height) + 0.5))
    waves = by_y @ values @ by_x.T / (width * height)
    kept = [
        float(waves[y, x])
        for y in range(down)
        for x in range(across)
        if (x or y) and x * down < across * (down - y)
    ]
    scale = max(map(abs, kept), default=0.0)
    return float(waves[0, 0]), [0.5 + 0.5 / scale * wave for wave in kept] if scale else kept, scale


def _round(value: float) -> int:
    return int(value + 0.5)  # as the reference implementation in JavaScript, whose halves go up


def _data_uri(tiny: pyvips.Image) -> str:
    encoded: bytes = tiny.webpsave_buffer(Q=40, effort=2, keep="none")
    if len(encoded) > _DATA_URI_BYTES:
        encoded = tiny.resize(0.5).webpsave_buffer(Q=30, effort=2, keep="none")
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()
