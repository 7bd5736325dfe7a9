"""Tell a media type from the first 4 KiB of a file: our own table, so that every machine says the same."""

import codecs
import re
import struct
from typing import Literal

HEAD_SIZE = 4096

# Longest first where one begins like another. Each is at least four telling bytes, or is looked at below.
_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0\x10\0\0\0CR", "image/x-canon-cr2"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0\x08\0\0\0", "image/tiff"),
    (b"MM\0+\0\x08\0\0", "image/tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51\0", "image/j2c"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"8BPS\0", "image/vnd.adobe.photoshop"),
    (b"\x76\x2f\x31\x01", "image/x-exr"),
    (b"#?RADIANCE\n", "image/vnd.radiance"),
    (b"qoif", "image/qoi"),
    (b"DDS |\0\0\0", "image/vnd-ms.dds"),
    (b"AT&TFORM", "image/vnd.djvu"),
    (b"FLV\x01", "video/x-flv"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (b"fLaC", "audio/flac"),
    (b"MThd\0\0\0\x06", "audio/midi"),
    (b"#!AMR", "audio/amr"),
    (b"caff\0\x01", "audio/x-caf"),
    (b"wvpk", "audio/x-wavpack"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x04\x22\x4d\x18", "application/x-lz4"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"PK\x05\x06", "application/zip"),
    (b"MSCF\0\0\0\0", "application/vnd.ms-cab-compressed"),
    (b"!<arch>\ndebian-binary", "application/vnd.debian.binary-package"),
    (b"{\\rtf", "application/rtf"),
    (b"%!PS", "application/postscript"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"ARROW1\0\0", "application/vnd.apache.arrow.file"),
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (b"glTF\x02\0\0\0", "model/gltf-binary"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"OTTO\0", "font/otf"),
    (b"ttcf\0", "font/collection"),
    (b"\x7fELF", "application/x-elf"),
    (b"\0asm", "application/wasm"),
    (b"\xca\xfe\xba\xbe", "application/java-vm"),
    (b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (b"BEGIN:VCALENDAR", "text/calendar"),
    (b"BEGIN:VCARD", "text/vcard"),
    (b"WEBVTT", "text/vtt"),
    (b"#EXTM3U", "application/vnd.apple.mpegurl"),
)
_BY_FIRST_BYTE: dict[int, list[tuple[bytes, str]]] = {}
for _magic, _type in _PREFIXES:
    _BY_FIRST_BYTE.setdefault(_magic[0], []).append((_magic, _type))

_BRANDS = {
    b"avif": "image/avif", b"avis": "image/avif",
    b"heic": "image/heic", b"heix": "image/heic", b"heim": "image/heic", b"heis": "image/heic",
    b"hevc": "image/heic-sequence", b"hevx": "image/heic-sequence",
    b"crx ": "image/x-canon-cr3",
    b"jp2 ": "image/jp2", b"jpx ": "image/jpx",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4", b"M4B ": "audio/mp4", b"M4P ": "audio/mp4", b"F4A ": "audio/mp4",
    b"3gp4": "video/3gpp", b"3gp5": "video/3gpp", b"3gp6": "video/3gpp", b"3gp7": "video/3gpp",
    b"3g2a": "video/3gpp2", b"3g2b": "video/3gpp2", b"3g2c": "video/3gpp2",
}  # fmt: skip
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo", b"RMID": "audio/midi"}
_OGG = (
    (b"OpusHead", "audio/ogg"),
    (b"\x01vorbis", "audio/ogg"),
    (b"\x7fFLAC", "audio/ogg"),
    (b"Speex   ", "audio/ogg"),
    (b"\x80theora", "video/ogg"),
    (b"fishead\0", "video/ogg"),
)
_OOXML = (
    (b"word/", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (b"xl/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (b"ppt/", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
)
_PNM = re.compile(
    rb"P([1-6])[ \t\r\n]{1,64}(?:#[^\n]{0,1024}\n[ \t\r\n]{0,64}){0,16}\d{1,9}[ \t\r\n]{1,64}\d"
)
_PNM_TYPES = {
    b"1": "bitmap",
    b"4": "bitmap",
    b"2": "graymap",
    b"5": "graymap",
    b"3": "pixmap",
    b"6": "pixmap",
}
_ZIP_TYPE = re.compile(rb"application/(?:epub\+zip|vnd\.oasis\.opendocument\.[a-z-]{1,32})")
_ZIP_ENTRY = re.compile(rb"PK\x03\x04.{22}", re.DOTALL)
# What a browser that sniffs takes for HTML (WHATWG MIME Sniffing), and a few more.
_HTML_TAGS = frozenset(
    b"html head script iframe h1 div font table a style title b body br p meta link img form".split()
)
# Possessive where it can be: hostile heads must not make this backtrack.
_PROLOGUE = re.compile(
    rb"\s*+(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE\s++([\w:.-]++)[^\[>]*+(?:>|\[.*?\]\s*+>))", re.S | re.I
)
_ELEMENT = re.compile(rb"\s*<([a-zA-Z][\w:.-]*)(?=[\s/>]|\Z)")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))

TextKind = Literal["utf-8", "utf-16", "8-bit"]


def sniff(head: bytes) -> str | None:
    """The media type that the first bytes of a file tell for certain, or None (text and data without a mark)."""
    head = head[:HEAD_SIZE]
    if len(head) < 2:
        return None
    for magic, media_type in _BY_FIRST_BYTE.get(head[0], ()):
        if head.startswith(magic):
            return media_type
    return _container(head) or _checked(head) or _markup(head)


def text_kind(head: bytes) -> TextKind | None:
    """How the head would read as text, or None for data."""
    cut = len(head) >= HEAD_SIZE
    head = head[:HEAD_SIZE]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = codecs.getincrementaldecoder("utf-16")().decode(head, not cut)
        except UnicodeDecodeError:
            return None
        return None if any(c < " " and c not in "\t\n\r\f" for c in text) else "utf-16"
    if len(head.translate(None, _CONTROLS)) != len(head):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, not cut)
    except UnicodeDecodeError:
        return "8-bit"
    return "utf-8"


def _container(head: bytes) -> str | None:
    """Formats whose outer form is shared by several types."""
    form = head[8:12]
    if head.startswith((b"RIFF", b"RF64", b"BW64")):
        return _RIFF.get(form)
    if head.startswith(b"FORM"):
        return "audio/aiff" if form in (b"AIFF", b"AIFC") else None
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head[0] == 0 and head[4:8] in (b"moov", b"mdat", b"wide", b"pnot"):
        return "video/quicktime"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"\x42\x82\x84webm" in head[:128] else "video/x-matroska"
    if head.startswith(b"OggS"):
        return next((media_type for mark, media_type in _OGG if mark in head[:512]), "application/ogg")
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    return None


def _iso_media(head: bytes) -> str:
    """By the major brand of `ftyp`, else by the first compatible one that tells."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    for brand in brands:
        media_type = _BRANDS.get(brand, "")
        # A QuickTime or audio brand among the compatible ones does not change what an MP4 is.
        if media_type and (brand == brands[0] or media_type.startswith("image/")):
            return media_type
    if brands[0] in (b"mif1", b"msf1"):
        return "image/heif" if brands[0] == b"mif1" else "image/heif-sequence"
    return "video/mp4"


def _zip(head: bytes) -> str:
    names = []
    for entry in _ZIP_ENTRY.finditer(head):
        name_length, extra_length = struct.unpack_from("<HH", head, entry.start() + 26)
        start = entry.start() + 30
        names.append(head[start : start + name_length])
        if names == [b"mimetype"] and (found := _ZIP_TYPE.match(head, start + name_length + extra_length)):
            return found[0].decode()
    if b"[Content_Types].xml" in names or b"_rels/.rels" in names:
        for folder, media_type in _OOXML:
            if any(name.startswith(folder) for name in names):
                return media_type
    return "application/java-archive" if b"META-INF/MANIFEST.MF" in names else "application/zip"


def _checked(head: bytes) -> str | None:
    """Marks so short that the bytes after them must make sense as well."""
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0" and head[15:18] == b"\0\0\0" and head[14] >= 12:
        return "image/bmp"
    if head.startswith((b"\0\0\x01\0", b"\0\0\x02\0")) and len(head) >= 22 and head[4] and not head[5]:
        return "image/vnd.microsoft.icon" if head[9] == 0 else None
    if head.startswith(b"\xff\x0a") and text_kind(head) is None:
        return "image/jxl"
    if pnm := _PNM.match(head):
        return f"image/x-portable-{_PNM_TYPES[pnm[1]]}"
    if head.startswith(b"ID3") and len(head) > 10 and head[3] < 5 and max(head[6:10]) < 128:
        size = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
        after = head[size : size + 4]
        return "audio/flac" if after == b"fLaC" else _mpeg_audio(head[size:]) or "audio/mpeg"
    if head[0] == 0xFF and (audio := _mpeg_audio(head)):
        return audio
    if head[0] == 0x47 and len(head) > 376 and head[188] == head[376] == 0x47:
        return "video/mp2t"
    if len(head) > 388 and head[4] == head[196] == head[388] == 0x47 and text_kind(head) is None:
        return "video/mp2t"
    if head.startswith(b"BZh") and head[3:4] in b"123456789" and head[4:10] == b"1AY&SY":
        return "application/x-bzip2"
    if head[257:262] == b"ustar":
        return "application/x-tar"
    if head[128:132] == b"DICM":
        return "application/dicom"
    if head.startswith(b"\0\1\0\0\0") and len(head) > 16 and 0 < head[5] < 64 and head[12:16].isascii():
        return "font/ttf"
    if head.startswith(b"MZ") and text_kind(head) is None:
        return "application/vnd.microsoft.portable-executable"
    return "application/pdf" if head[:256].lstrip(b"\xef\xbb\xbf\0\t\n\f\r ").startswith(b"%PDF-") else None


def _mpeg_audio(data: bytes) -> str | None:
    """MP3 or ADTS: two frames in a row, the second where the first one's header says."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    if data[1] & 0xF6 == 0xF0:
        length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
        following = data[length : length + 2]
        return "audio/aac" if length > 7 and len(following) == 2 and following[1] == data[1] else None
    length = mpeg_frame_length(data)
    following = data[length : length + 2]
    if not length or len(following) < 2 or following[0] != 0xFF:
        return None
    return "audio/mpeg" if following[1] & 0xFE == data[1] & 0xFE else None


_BITRATES = {  # kbit/s by (MPEG version 1?, layer)
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}


def mpeg_frame_length(data: bytes) -> int:
    """Bytes from this MPEG audio header (layer II or III) to the next; 0 where it is none."""
    version, layer = data[1] >> 3 & 3, 4 - (data[1] >> 1 & 3)
    bitrate_index, rate_index = data[2] >> 4, data[2] >> 2 & 3
    if version == 1 or layer not in (2, 3) or rate_index == 3:
        return 0
    bitrate = _BITRATES[version == 3, layer][bitrate_index] * 1000
    rate = (44100, 48000, 32000)[rate_index] >> (3 - version if version else 2)
    samples = 72 if layer == 3 and version != 3 else 144
    return samples * bitrate // rate + (data[2] >> 1 & 1) if bitrate else 0


def _markup(head: bytes) -> str | None:
    """SVG, HTML or XML by the root element, past byte order mark, declarations and comments."""
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            head = head[len(bom) :].decode(encoding, "ignore").encode()
            break
    position, declared_xml, doctype = 0, head.lstrip().startswith(b"<?xml"), b""
    while prologue := _PROLOGUE.match(head, position):
        position, doctype = prologue.end(), prologue[1] or doctype
    element = _ELEMENT.match(head, position)
    root = element[1].lower() if element else b""
    if root == b"svg" or root.endswith(b":svg") or doctype.lower().endswith(b"svg"):
        return "image/svg+xml"
    if root == b"html" or doctype.lower() == b"html":
        return "application/xhtml+xml" if declared_xml else "text/html"
    if declared_xml:
        return "application/xml"
    return "text/html" if root in _HTML_TAGS else None
