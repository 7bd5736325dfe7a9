"""The thumbhash is the reference's, byte for byte; the colour is what is seen."""

import base64
from itertools import chain

import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from mediasvc.derive.placeholder import mean_colour, placeholder_of, thumbhash


def speckles(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Opaque noise over a gradient: no wave is exactly zero, where the last bit of a sum would decide."""
    values = np.random.default_rng(11).integers(0, 120, (height, width, 4))
    values += np.linspace(0, 120, width, dtype=int)[None, :, None]
    values[..., 3] = 255
    return values.astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 21), (21, 32), (32, 32), (1, 32), (1, 1), (32, 1)], ids=str)
def test_it_equals_another_implementation(size: tuple[int, int]) -> None:
    reference = pytest.importorskip("thumbhash")
    pixels = speckles(*size)
    expected = reference.rgba_to_thumb_hash(*size, list(chain.from_iterable(pixels.reshape(-1, 4).tolist())))
    assert thumbhash(pixels) == bytes(expected)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((255, 0, 0, 255), "#ff0000"), ((9, 9, 9, 0), "#ffffff"), ((16, 32, 48, 128), "#102030")],
    ids=["opaque", "invisible", "half"],
)
def test_the_mean_colour_is_of_what_is_seen(colour: tuple[int, ...], expected: str) -> None:
    assert mean_colour(np.full((4, 5, 4), colour, dtype=np.uint8)) == expected


def test_alpha_makes_a_longer_hash_that_says_so() -> None:
    pixels = speckles(32, 20)
    opaque = thumbhash(pixels)
    pixels[:10, :, 3] = 0
    clear = thumbhash(pixels)
    assert not opaque[2] & 0x80
    assert clear[2] & 0x80


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("size", [(256, 256), (1, 256), (3, 2)], ids=str)
def test_the_data_uri_fits_a_listing(size: tuple[int, int], bands: int) -> None:
    values = np.random.default_rng(5).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    placeholder = placeholder_of(pyvips.Image.new_from_array(values).copy(interpretation="srgb"))
    head, _, data = placeholder["data_uri"].partition(",")
    assert head == "data:image/webp;base64"
    assert len(placeholder["data_uri"]) <= 1024
    assert base64.b64decode(data, validate=True)[8:12] == b"WEBP"
    assert base64.b64decode(placeholder["thumbhash"], validate=True)
