"""What an image gives: upright renditions of the right size and colour, and true facts."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import IFDRational

from mediasvc.core.recipe import PRESETS
from mediasvc.derive.interface import Findings, Undecodable

Look = Callable[[bytes, str], Findings]
Encode = Callable[..., bytes]
Noise = Callable[..., Image.Image]
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240)


def quarters(width: int = 96, height: int = 64) -> Image.Image:
    """Red, green / blue, white: every way of turning it shows."""
    picture = Image.new("RGB", (width, height), WHITE)
    picture.paste(RED, (0, 0, width // 2, height // 2))
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    return picture


def rendition(findings: Findings, preset: str) -> Image.Image:
    path = next(output.path for output in findings.outputs if output.preset == preset)
    with Image.open(path) as opened:
        opened.load()
        return opened


def near(one: tuple[int, ...], other: tuple[int, ...], tolerance: int = 25) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def sideways(orientation: int) -> Image.Image:
    """Stored so that the tag is needed to see `quarters()`."""
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    tagged = quarters()
    tagged.getexif()[0x0112] = undo
    return ImageOps.exif_transpose(tagged)


def assert_is_quarters(picture: Image.Image) -> None:
    width, height = picture.size
    assert width > height
    corners = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
    pixels = [picture.convert("RGB").getpixel((int(x * width), int(y * height))) for x, y in corners]
    for pixel, colour in zip(pixels, (RED, GREEN, BLUE, WHITE), strict=True):
        assert near(pixel, colour), pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_rendition_stands_upright(form: str, orientation: int, look: Look, encode: Encode) -> None:
    if form == "HEIF":
        pytest.importorskip("pillow_heif")
    media_type = "image/heic" if form == "HEIF" else f"image/{form.lower()}"
    # As bytes: only then does the HEIF writer turn the tag into the rotation that readers of HEIC obey.
    exif = with_orientation(orientation).tobytes()
    findings = look(encode(sideways(orientation), form, exif=exif), media_type)
    for preset in PRESETS:
        assert_is_quarters(rendition(findings, preset.name))
    assert (findings.facts["width"], findings.facts["height"]) == (96, 64)
    assert findings.facts["orientation"] == orientation
    assert findings.problem is None


@pytest.mark.parametrize("orientation", [0, 9, 200], ids=str)
def test_an_orientation_that_makes_no_sense_is_none(orientation: int, look: Look, encode: Encode) -> None:
    findings = look(encode(quarters(), "JPEG", exif=with_orientation(orientation)), "image/jpeg")
    assert_is_quarters(rendition(findings, "thumb"))
    assert findings.facts["orientation"] == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), [(1, 1)] * 3),
        ((3000, 2000), [(2048, 1365), (512, 341), (256, 171)]),
        ((2048, 512), [(2048, 512), (512, 128), (256, 64)]),
        ((1, 20000), [(1, 2048), (1, 512), (1, 256)]),
        ((20000, 2), [(2048, 1), (512, 1), (256, 1)]),
        ((300, 200), [(300, 200), (300, 200), (256, 171)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_all_presets_are_made_fitted_and_never_enlarged(
    size: tuple[int, int], expected: list[tuple[int, int]], form: str, look: Look, encode: Encode
) -> None:
    findings = look(encode(Image.new("RGB", size, RED), form), f"image/{form.lower()}")
    assert [(output.width, output.height) for output in findings.outputs] == expected
    for output in findings.outputs:
        made = rendition(findings, output.preset)
        assert made.size == (output.width, output.height)
        assert near(made.convert("RGB").getpixel((0, 0)), RED)
    assert [output.media_type for output in findings.outputs] == ["image/jpeg", "image/webp", "image/webp"]


def test_position_and_camera_are_facts_and_in_no_rendition(look: Look, encode: Encode) -> None:
    exif = with_orientation(1)
    exif[0x010F], exif[0x0110] = "Käse\x00rest", "Model \x07X"
    exif.get_ifd(0x8769).update({
        0x9003: "2024:05:01 12:34:56", 0x9011: "+02:00", 0x8827: 200, 0x829D: IFDRational(18, 10),
        0x829A: IFDRational(1, 250), 0x920A: IFDRational(35, 1), 0xA434: "A lens",
    })  # fmt: skip
    exif.get_ifd(0x8825).update({
        1: "N", 2: (IFDRational(48), IFDRational(12), IFDRational(30)),
        3: "W", 4: (IFDRational(16), IFDRational(30), IFDRational(0)), 5: b"\x01", 6: IFDRational(105, 10),
    })  # fmt: skip
    findings = look(encode(quarters(), "JPEG", exif=exif), "image/jpeg")
    assert findings.facts["gps"] == {"latitude": 48.2083333, "longitude": -16.5, "altitude": -10.5}
    assert findings.facts["camera"]["model"] == "Model X"
    assert findings.facts["camera"]["lens"] == "A lens"
    assert findings.facts["taken_at"] == "2024-05-01T12:34:56+02:00"
    assert findings.facts["exposure"] == {
        "exposure_time": 0.004, "f_number": 1.8, "iso": 200, "focal_length": 35,
    }  # fmt: skip
    for output in findings.outputs:
        data = output.path.read_bytes()
        assert b"Exif" not in data
        assert b"EXIF" not in data
        assert b"A lens" not in data
        assert not rendition(findings, output.preset).getexif()
    json.dumps(findings.facts, allow_nan=False)


@pytest.mark.parametrize(
    "position",
    [
        {1: "N", 2: (IFDRational(1, 0), IFDRational(0), IFDRational(0)), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (IFDRational(91), IFDRational(0), IFDRational(0)), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (1.0, 0.0, 0.0)},
    ],
    ids=["division by zero", "beyond the pole", "half of it"],
)
def test_a_position_that_makes_no_sense_is_no_fact(
    position: dict[int, object], look: Look, encode: Encode
) -> None:
    exif = with_orientation(1)
    exif.get_ifd(0x8825).update(position)
    assert "gps" not in look(encode(quarters(), "JPEG", exif=exif), "image/jpeg").facts


def test_broken_exif_leaves_the_picture_alone(look: Look, encode: Encode) -> None:
    findings = look(encode(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage"), "image/jpeg")
    assert_is_quarters(rendition(findings, "thumb"))


def test_colours_of_a_wide_profile_are_converted(look: Look) -> None:
    # libvips carries a Display P3 profile; its pure green lies outside sRGB, its grey does not move.
    p3 = pyvips.Image.black(64, 64, bands=3).linear([0, 0, 0], [120, 160, 90]).cast("uchar")
    tagged = p3.copy(interpretation="srgb").icc_transform("p3", input_profile="srgb")
    data = tagged.jpegsave_buffer(Q=98, keep="icc")
    with Image.open(io.BytesIO(data)) as raw:
        assert not near(raw.getpixel((9, 9)), (120, 160, 90), 4)
    findings = look(data, "image/jpeg")
    assert near(rendition(findings, "preview").getpixel((9, 9)), (120, 160, 90), 4)
    assert "P3" in findings.facts["color_profile"]


def test_an_srgb_profile_changes_nothing(look: Look, encode: Encode) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    findings = look(encode(quarters(), "JPEG", icc_profile=profile), "image/jpeg")
    assert_is_quarters(rendition(findings, "preview"))
    assert findings.facts["color_profile"].startswith("sRGB")
    assert "icc_profile" not in rendition(findings, "preview").info


def test_a_broken_profile_is_ignored(look: Look, encode: Encode) -> None:
    findings = look(encode(quarters(), "JPEG", icc_profile=b"not a profile" * 20), "image/jpeg")
    assert_is_quarters(rendition(findings, "preview"))


def test_cmyk_becomes_the_colour_it_prints(look: Look, encode: Encode) -> None:
    findings = look(encode(Image.new("CMYK", (64, 64), (255, 0, 0, 0)), "JPEG"), "image/jpeg")
    red, green, blue = rendition(findings, "preview").getpixel((5, 5))
    assert red < 90 < green < blue


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_of_grey_stay_in_the_middle(form: str, look: Look, encode: Encode) -> None:
    grey = Image.fromarray(np.full((40, 40), 0x8080, dtype=np.uint16))
    media_type = "image/x-portable-graymap" if form == "PPM" else f"image/{form.lower()}"
    findings = look(encode(grey, form), media_type)
    assert near(rendition(findings, "preview").convert("RGB").getpixel((5, 5)), (128, 128, 128), 3)
    assert findings.facts["bit_depth"] in (16, 32)


def test_sixteen_bit_rgb_with_alpha_keeps_both(look: Look) -> None:
    values = np.zeros((40, 40, 4), dtype=np.uint16)
    values[...] = (0xFFFF, 0x8080, 0, 0x8080)
    data = pyvips.Image.new_from_array(values).copy(interpretation="rgb16").pngsave_buffer(bitdepth=16)
    findings = look(data, "image/png")
    assert near(rendition(findings, "grid").convert("RGBA").getpixel((9, 9)), (255, 128, 0, 128), 6)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("P", 5, None),
        ("I;16", 0x4040, (64, 64, 64)),
    ],
    ids=str,
)
def test_modes_with_few_colours(
    mode: str, colour: int, expected: tuple[int, ...] | None, look: Look, encode: Encode
) -> None:
    picture = Image.new(mode, (50, 40), colour)
    expected = expected or picture.convert("RGB").getpixel((1, 1))
    findings = look(encode(picture, "PNG"), "image/png")
    assert near(rendition(findings, "preview").convert("RGB").getpixel((5, 5)), expected, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_stays_and_makes_the_preview_webp(mode: str, look: Look, encode: Encode) -> None:
    picture = Image.new("RGBA", (600, 400), (255, 0, 0, 0))
    picture.paste((90, 90, 90, 255), (0, 0, 300, 400))
    findings = look(encode(picture.convert(mode), "PNG"), "image/png")
    assert [output.media_type for output in findings.outputs] == ["image/webp"] * 3
    thumb = rendition(findings, "thumb").convert("RGBA")
    assert thumb.getpixel((240, 80))[3] == 0
    # Nothing of the hidden red bleeds over the edge.
    assert near(thumb.getpixel((126, 80))[:3], (90, 90, 90), 12)
    assert findings.facts["has_alpha"] is True
    assert findings.placeholder["color"] == "#5a5a5a"


def test_alpha_that_hides_nothing_is_dropped(look: Look, encode: Encode) -> None:
    findings = look(encode(quarters().convert("RGBA"), "PNG"), "image/png")
    assert findings.outputs[0].media_type == "image/jpeg"


@pytest.mark.parametrize("form", ["GIF", "WEBP", "AVIF"])
def test_of_an_animation_the_first_frame_is_shown(form: str, look: Look, encode: Encode) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    findings = look(data, f"image/{form.lower()}")
    assert near(rendition(findings, "preview").convert("RGB").getpixel((9, 9)), RED)
    assert findings.facts["frames"] == 3


def test_pages_of_a_tiff_are_counted(look: Look, encode: Encode) -> None:
    data = encode(quarters(), "TIFF", save_all=True, append_images=[quarters(), quarters()])
    assert look(data, "image/tiff").facts["pages"] == 3


@pytest.mark.parametrize(
    ("form", "media_type"),
    [
        ("BMP", "image/bmp"),
        ("ICO", "image/x-icon"),
        ("TGA", "image/x-tga"),
        ("JPEG2000", "image/jp2"),
        ("PPM", "image/x-portable-pixmap"),
        ("QOI", "image/qoi"),
        ("DDS", "image/vnd.ms-dds"),
        ("AVIF", "image/avif"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("TIFF", "image/tiff"),
    ],
)
def test_other_formats(form: str, media_type: str, look: Look, encode: Encode) -> None:
    findings = look(encode(quarters(), form), media_type)
    assert_is_quarters(rendition(findings, "preview"))
    assert findings.problem is None


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 60, "subsampling": 2}], ids=str)
def test_large_jpegs_are_decoded_small(options: dict[str, object], look: Look, encode: Encode) -> None:
    findings = look(encode(quarters(6000, 4000), "JPEG", **options), "image/jpeg")
    assert_is_quarters(rendition(findings, "preview"))
    assert (findings.facts["width"], findings.facts["height"]) == (6000, 4000)
    assert findings.outputs[0].width == 2048


def test_an_interlaced_png(look: Look) -> None:
    image = pyvips.Image.new_from_array(np.asarray(quarters()))
    assert_is_quarters(rendition(look(image.pngsave_buffer(interlace=True), "image/png"), "thumb"))


SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">'
    b'<rect width="100%%" height="100%%" fill="#dc1e1e"/>%s</svg>'
)


def test_svg_is_drawn(look: Look) -> None:
    findings = look(SVG % (40, 20, b""), "image/svg+xml")
    assert near(rendition(findings, "preview").convert("RGB").getpixel((5, 5)), RED)
    assert (findings.facts["width"], findings.facts["height"]) == (40, 20)


def test_a_huge_svg_is_drawn_small(look: Look) -> None:
    findings = look(SVG % (400000, 200000, b""), "image/svg+xml")
    assert findings.outputs[0].width == 2048


def test_svg_shows_no_other_file(look: Look, encode: Encode, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(encode(Image.new("RGB", (40, 20), GREEN), "PNG"))
    reference = f'<image href="file://{other}" width="40" height="20"/>'.encode()
    findings = look(SVG % (40, 20, reference), "image/svg+xml")
    assert near(rendition(findings, "preview").convert("RGB").getpixel((5, 5)), RED)


def test_svg_is_drawn_only_where_svg_was_sniffed(look: Look) -> None:
    for media_type in ("image/png", "image/tiff", "image/bmp"):
        with pytest.raises(Undecodable):
            look(SVG % (40, 20, b""), media_type)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_a_truncated_picture_is_shown_as_far_as_it_goes(
    form: str, look: Look, encode: Encode, noise: Noise
) -> None:
    data = encode(noise(300, 200), form)
    findings = look(data[: len(data) * 2 // 3], f"image/{form.lower()}")
    assert findings.problem is not None
    assert findings.problem.startswith(f"truncated {form}")
    assert len(findings.outputs) == 3


@pytest.mark.parametrize(
    "media_type",
    ["image/jpeg", "image/png", "image/webp", "image/avif", "image/tiff", "image/bmp", "image/gif"],
)
@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0", b"GIF89a", b"no picture at all" * 100], ids=repr)
def test_what_is_no_picture_is_refused(media_type: str, data: bytes, look: Look) -> None:
    with pytest.raises(Undecodable) as refusal:
        look(data, media_type)
    assert "/" not in str(refusal.value)


def png_of_zeros(width: int, height: int, *, interlaced: bool = False) -> bytes:
    """A tiny file that says it is large, and is."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, int(interlaced))
    squeezer = zlib.compressobj(9)
    row = bytes(width // 8 + 2)
    rows = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "media_type", "reason"),
    [
        (png_of_zeros(30000, 30000), "image/png", "900 megapixels, the limit for this PNG is 500"),
        (
            png_of_zeros(11000, 11000, interlaced=True),
            "image/png",
            "121 megapixels, the limit for this PNG is 100",
        ),
        (
            b"GIF89a" + struct.pack("<HH", 60000, 60000) + b"\x80\0\0" + bytes(100),
            "image/gif",
            "no frames|limit",
        ),
        (b"P6 40000 40000 255\n" + bytes(100), "image/x-portable-pixmap", "limit"),
        (
            b"BM" + struct.pack("<IIIIIIHHI", 99, 0, 54, 40, 50000, 50000, 1, 24, 0) + bytes(50),
            "image/bmp",
            "limit",
        ),
    ],
    ids=["png", "interlaced png", "gif", "ppm", "bmp"],
)
def test_a_bomb_is_refused_by_its_header(data: bytes, media_type: str, reason: str, look: Look) -> None:
    with pytest.raises(Undecodable, match=reason):
        look(data, media_type)


def test_a_large_png_that_streams_is_made(look: Look) -> None:
    findings = look(png_of_zeros(20000, 15000), "image/png")
    assert findings.outputs[0].width == 2048


def test_bytes_after_the_picture_reach_no_rendition(look: Look, encode: Encode) -> None:
    findings = look(encode(quarters(), "JPEG") + b"<script>alert(1)</script>", "image/jpeg")
    assert all(b"script" not in output.path.read_bytes() for output in findings.outputs)


def test_heic_is_accepted_where_the_extra_is_installed(look: Look) -> None:
    if find_spec("pillow_heif") is None:
        with pytest.raises(Undecodable):
            look(b"", "image/heic")
    else:
        with pytest.raises(Undecodable):
            look(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "image/heic")
