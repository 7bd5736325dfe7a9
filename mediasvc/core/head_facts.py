"""Cheap facts from the first 4 KiB, for types that nothing here decodes: only what they tell for certain."""

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from mediasvc.core.signatures import HEAD_SIZE, mpeg_frame_length, text_kind

Facts = dict[str, Any]


def facts_from_head(media_type: str, head: bytes, size: int) -> Facts:
    """Facts of a file of `size` bytes: pixels, seconds, hertz. Empty where the head tells none; never raises."""
    reader = _READERS.get(media_type)
    if reader is None and media_type.startswith("text/"):
        reader = _text
    if reader is None:
        return {}
    try:
        facts = reader(head[:HEAD_SIZE], size)
    except (struct.error, IndexError, ValueError, ZeroDivisionError):
        return {}  # a header that breaks off or makes no sense tells nothing
    return {name: value for name, value in facts.items() if value}


def _pixels(width: int, height: int) -> Facts:
    return {"width": width, "height": height} if width > 0 and height > 0 else {}


def _png(head: bytes, size: int) -> Facts:
    return _pixels(*struct.unpack_from(">II", head, 16)) if head[12:16] == b"IHDR" else {}


def _gif(head: bytes, size: int) -> Facts:
    return _pixels(*struct.unpack_from("<HH", head, 6))


def _bmp(head: bytes, size: int) -> Facts:
    if head[14] == 12:
        return _pixels(*struct.unpack_from("<HH", head, 18))
    width, height = struct.unpack_from("<ii", head, 18)
    return _pixels(width, abs(height))  # negative: rows run from the top


def _psd(head: bytes, size: int) -> Facts:
    height, width = struct.unpack_from(">II", head, 14)
    return _pixels(width, height)


def _webp(head: bytes, size: int) -> Facts:
    kind = head[12:16]
    if kind == b"VP8X":
        return _pixels(int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return _pixels((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return _pixels(width & 0x3FFF, height & 0x3FFF)
    return {}


def _jpeg(head: bytes, size: int) -> Facts:
    """As stored: an EXIF orientation is not applied."""
    position = 2
    while head[position] == 0xFF:
        marker = head[position + 1]
        (length,) = struct.unpack_from(">H", head, position + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, position + 5)
            return _pixels(width, height)
        position += 2 + length
    return {}


def _heif(head: bytes, size: int) -> Facts:
    """The largest extent is the picture, the others its tiles; a quarter turn swaps the sides."""
    extents = [struct.unpack_from(">II", head, m.start() + 8) for m in re.finditer(b"\0\0\0\x14ispe", head)]
    if not extents:
        return {}
    width, height = max(extents, key=lambda extent: extent[0] * extent[1])
    turns = {head[m.end()] & 1 for m in re.finditer(b"\0\0\0\x09irot", head)}
    if len(turns) > 1:
        return {}
    return _pixels(height, width) if turns == {1} else _pixels(width, height)


def _wav(head: bytes, size: int) -> Facts:
    facts: Facts = {}
    position, byte_rate = 12, 0
    while position + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, position)
        if kind == b"fmt ":
            channels, rate, byte_rate, _, bits = struct.unpack_from("<HIIHH", head, position + 10)
            facts = {"channels": channels, "sample_rate": rate, "bits_per_sample": bits}
        elif kind == b"data":
            if byte_rate and position + 8 + length <= size:
                facts["duration"] = round(length / byte_rate, 3)
            break
        position += 8 + length + length % 2
    return facts


def _flac(head: bytes, size: int) -> Facts:
    if head[4] & 0x7F:
        return {}
    (packed,) = struct.unpack_from(">Q", head, 18)
    rate, samples = packed >> 44, packed & 0xFFFFFFFFF
    return {
        "sample_rate": rate,
        "channels": (packed >> 41 & 7) + 1,
        "bits_per_sample": (packed >> 36 & 31) + 1,
        "duration": round(samples / rate, 3),
    }


def _mp3(head: bytes, size: int) -> Facts:
    """Duration only where the encoder wrote the number of frames (Xing, Info)."""
    if head.startswith(b"ID3"):
        head = head[10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) :]
    if head[0] != 0xFF or not mpeg_frame_length(head):
        return {}
    version, mono = head[1] >> 3 & 3, head[3] >> 6 == 3
    rate = (44100, 48000, 32000)[head[2] >> 2 & 3] >> (3 - version if version else 2)
    facts: Facts = {"sample_rate": rate, "channels": 1 if mono else 2}
    tag = re.search(b"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]", head[4:64])
    if tag and head[1] & 6 == 2:
        (frames,) = struct.unpack_from(">I", head, 4 + tag.end())
        facts["duration"] = round(frames * (1152 if version == 3 else 576) / rate, 3)
    return facts


def _ogg(head: bytes, size: int) -> Facts:
    if (opus := head.find(b"OpusHead")) >= 0:
        return {"codec": "opus", "channels": head[opus + 9], "sample_rate": 48000}
    if (vorbis := head.find(b"\x01vorbis")) >= 0:
        channels, rate = struct.unpack_from("<BI", head, vorbis + 11)
        return {"codec": "vorbis", "channels": channels, "sample_rate": rate}
    return {}


def _iso_media(head: bytes, size: int) -> Facts:
    """The brand, and the duration where the movie header comes first."""
    facts: Facts = {}
    if head[4:8] == b"ftyp" and head[8:12].isascii() and head[8:12].decode().isprintable():
        facts["brand"] = head[8:12].decode().strip(" \0")
    if (mvhd := head.find(b"mvhd")) >= 4:
        # Version 1 has 64-bit times and duration (ISO/IEC 14496-12, 8.2.2).
        form, position = (">II", 16) if head[mvhd + 4] == 0 else (">IQ", 24)
        scale, duration = struct.unpack_from(form, head, mvhd + position)
        if scale and 0 < duration < 2**32 - 1:
            facts["duration"] = round(duration / scale, 3)
    return facts


def _pdf(head: bytes, size: int) -> Facts:
    version = re.search(rb"%PDF-(\d\.\d)", head)
    return {"pdf_version": version[1].decode()} if version else {}


def _text(head: bytes, size: int) -> Facts:
    kind = text_kind(head)
    return {"encoding": kind} if kind in ("utf-8", "utf-16") else {}


_READERS: Mapping[str, Callable[[bytes, int], Facts]] = {
    "image/png": _png,
    "image/gif": _gif,
    "image/bmp": _bmp,
    "image/webp": _webp,
    "image/jpeg": _jpeg,
    "image/vnd.adobe.photoshop": _psd,
    "image/heic": _heif,
    "image/heif": _heif,
    "image/avif": _heif,
    "audio/wav": _wav,
    "audio/flac": _flac,
    "audio/mpeg": _mp3,
    "audio/ogg": _ogg,
    "audio/mp4": _iso_media,
    "video/mp4": _iso_media,
    "video/quicktime": _iso_media,
    "video/3gpp": _iso_media,
    "application/pdf": _pdf,
    "application/json": _text,
}
