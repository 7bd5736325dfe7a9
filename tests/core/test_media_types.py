"""What the first 4 KiB say, what the client says, and who is believed."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mediasvc.core.media_types import decide, essence, facts_from_head, shown_inline, sniff


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = major + b"\0\0\0\0" + b"".join(compatible)
    return (8 + len(body)).to_bytes(4, "big") + b"ftyp" + body


def zipped(*names: str, first: tuple[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        if first:
            archive.writestr(*first)
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


def picture(form: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(out, form)
    return out.getvalue()


MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)
SIGNATURES = {
    "jpeg": (picture("JPEG"), "image/jpeg"),
    "png": (picture("PNG"), "image/png"),
    "gif": (picture("GIF"), "image/gif"),
    "webp": (picture("WEBP"), "image/webp"),
    "tiff": (picture("TIFF"), "image/tiff"),
    "bmp": (picture("BMP"), "image/bmp"),
    "ico": (picture("ICO"), "image/vnd.microsoft.icon"),
    "jp2": (picture("JPEG2000"), "image/jp2"),
    "ppm": (picture("PPM"), "image/x-portable-pixmap"),
    "pgm with a comment": (b"P5\n# made by hand\n2 2\n255\n....", "image/x-portable-graymap"),
    "psd": (b"8BPS\0\x01", "image/vnd.adobe.photoshop"),
    "jxl": (b"\xff\x0a\x00\x10\x80", "image/jxl"),
    "jxl in a box": (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    "avif": (ftyp(b"avif", b"mif1"), "image/avif"),
    "heic": (ftyp(b"heic", b"mif1"), "image/heic"),
    "heic by a compatible brand": (ftyp(b"mif1", b"heic"), "image/heic"),
    "heif": (ftyp(b"mif1"), "image/heif"),
    "mp4": (ftyp(b"isom", b"iso2", b"mp41"), "video/mp4"),
    "mp4 that QuickTime reads too": (ftyp(b"mp42", b"qt  "), "video/mp4"),
    "mov": (ftyp(b"qt  "), "video/quicktime"),
    "old mov": (b"\0\0\x10\0moov", "video/quicktime"),
    "m4a": (ftyp(b"M4A "), "audio/mp4"),
    "webm": (b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm", "video/webm"),
    "mkv": (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", "video/x-matroska"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
    "mpeg-ts": ((b"G" + bytes(187)) * 3, "video/mp2t"),
    "flv": (b"FLV\x01\x05", "video/x-flv"),
    "opus": (b"OggS" + bytes(24) + b"OpusHead", "audio/ogg"),
    "theora": (b"OggS" + bytes(24) + b"\x80theora", "video/ogg"),
    "mp3": (MP3_FRAME * 2, "audio/mpeg"),
    "mp3 with ID3": (b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + MP3_FRAME * 2, "audio/mpeg"),
    "aac": (b"\xff\xf1\x50\x80\x01\x1f\xfc\0" * 2, "audio/aac"),
    "wav": (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
    "flac": (b"fLaC\0\0\0\x22", "audio/flac"),
    "aiff": (b"FORM\0\0\0\0AIFF", "audio/aiff"),
    "midi": (b"MThd\0\0\0\x06\0\x01", "audio/midi"),
    "amr": (b"#!AMR\n", "audio/amr"),
    "pdf": (b"%PDF-1.7\n", "application/pdf"),
    "pdf behind white space": (b"\n\n%PDF-1.4\n", "application/pdf"),
    "zip": (zipped("a.txt"), "application/zip"),
    "docx": (
        zipped("[Content_Types].xml", "word/document.xml"),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    "xlsx": (
        zipped("_rels/.rels", "xl/workbook.xml"),
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    "epub": (zipped(first=("mimetype", "application/epub+zip")), "application/epub+zip"),
    "odt": (
        zipped(first=("mimetype", "application/vnd.oasis.opendocument.text")),
        "application/vnd.oasis.opendocument.text",
    ),
    "gzip": (b"\x1f\x8b\x08\0", "application/gzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    "tar": (bytes(257) + b"ustar\0", "application/x-tar"),
    "rtf": (b"{\\rtf1", "application/rtf"),
    "sqlite": (b"SQLite format 3\0", "application/vnd.sqlite3"),
    "woff2": (b"wOF2\0\x01", "font/woff2"),
    "elf": (b"\x7fELF\x02", "application/x-elf"),
    "exe": (b"MZ\x90\0\x03\0", "application/vnd.microsoft.portable-executable"),
    "wasm": (b"\0asm\x01\0\0\0", "application/wasm"),
    "parquet": (b"PAR1\x15", "application/vnd.apache.parquet"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    "svg behind everything": (
        b"\xef\xbb\xbf <?xml version='1.0'?><!-- a > b --><!DOCTYPE svg [<!ENTITY a 'b'>]>\n<svg/>",
        "image/svg+xml",
    ),
    "svg in UTF-16": ("\ufeff<svg/>".encode("utf-16-le"), "image/svg+xml"),
    "svg with a prefix": (b"<s:svg xmlns:s='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    "html": (b"<!DOCTYPE html><p>", "text/html"),
    "html without a doctype": (b" \n<script>alert(1)</script>", "text/html"),
    "html behind a comment": (b"<!-- x --><BODY onload=x>", "text/html"),
    "xhtml": (b"<?xml version='1.0'?><html/>", "application/xhtml+xml"),
    "xml": (b"<?xml version='1.0'?><rss/>", "application/xml"),
}
UNKNOWN = {
    "nothing": b"",
    "one byte": b"\xff",
    "text": b"hello world\n",
    "json": b'{"a": 1}',
    "text that begins like BMP": b"BMW is a maker of cars and motorcycles",
    "text that begins like an executable": b"MZ is a region",
    "text that begins like ID3": b"ID3 tags are found in MP3 files",
    "UTF-16 text, which begins like a frame of MP3": "\ufeffhello".encode("utf-16-le"),
    "one frame of MP3 is an accident": MP3_FRAME[:100],
    "less than": b"< 3 and > 2",
    "an unknown element": b"<note>hi</note>",
}


@pytest.mark.parametrize(("head", "media_type"), SIGNATURES.values(), ids=SIGNATURES)
def test_the_head_tells(head: bytes, media_type: str) -> None:
    assert sniff(head) == media_type
    assert decide(head, "text/html", "x.html") == media_type


@pytest.mark.parametrize("head", UNKNOWN.values(), ids=UNKNOWN)
def test_the_head_does_not_tell(head: bytes) -> None:
    assert sniff(head) is None


TEXT, DATA, LATIN1 = b"hello w\xc3\xb6rld\n", b"\x00\x01\x02\xfe", b"caf\xe9\n"
DECISIONS = {
    "declared": (TEXT, "text/css; charset=utf-8", "a.txt", "text/css"),
    "declared in capitals": (TEXT, "Text/CSS", "a", "text/css"),
    "by extension": (TEXT, None, "a.CSV", "text/csv"),
    "curl's default is no declaration": (
        TEXT,
        "application/x-www-form-urlencoded",
        "a.json",
        "application/json",
    ),
    "octet-stream is no declaration": (TEXT, "application/octet-stream", "a.md", "text/markdown"),
    "malformed is no declaration": (TEXT, "te xt/<script>", "a.md", "text/markdown"),
    "text": (TEXT, None, "README", "text/plain"),
    "text cut within a character": (b"a" * 4095 + "ö".encode(), None, "a", "text/plain"),
    "text that says it is a picture": (TEXT, "image/png", "a.jpg", "text/plain"),
    "text that says it is a PDF": (TEXT, "application/pdf", "a.pdf", "text/plain"),
    "text in an old encoding": (LATIN1, None, "a", "application/octet-stream"),
    "text in an old encoding, declared": (LATIN1, "text/plain", "a", "text/plain"),
    "data": (DATA, None, "a", "application/octet-stream"),
    "data by extension": (DATA, None, "a.stl", "model/stl"),
    "data as declared": (DATA, "application/x-thing", "a.stl", "application/x-thing"),
    "nothing at all": (b"", None, "a", "application/octet-stream"),
    "nothing, declared": (b"", "text/plain", "a", "text/plain"),
    "another spelling": (DATA, "audio/x-wav", "a", "audio/wav"),
    "xml, said more exactly": (
        b"<?xml version='1.0'?><rss/>",
        "application/rss+xml",
        "a",
        "application/rss+xml",
    ),
    "xml, said wrongly": (b"<?xml version='1.0'?><rss/>", "image/png", "a.png", "application/xml"),
    "zip by extension": (zipped("a"), None, "a.apk", "application/vnd.android.package-archive"),
    "raw photograph": (b"II*\0\x08\0\0\0", None, "a.dng", "image/x-adobe-dng"),
    "markdown that begins with a tag": (b"<h1>x</h1>", None, "README.md", "text/markdown"),
    "html that says it is text": (b"<script>x</script>", "text/plain", "a.txt", "text/html"),
    "a recording without pictures": (
        b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm",
        "audio/webm",
        "a",
        "audio/webm",
    ),
}


@pytest.mark.parametrize(("head", "declared", "name", "media_type"), DECISIONS.values(), ids=DECISIONS)
def test_who_is_believed(head: bytes, declared: str | None, name: str, media_type: str) -> None:
    assert decide(head, declared, name) == media_type


POLYGLOTS = {
    "GIF and HTML": b"GIF89a/*<script>alert(1)</script>*/",
    "JPEG and PHP": picture("JPEG") + b"<?php system($_GET[0]);",
    "PNG and ZIP": picture("PNG") + zipped("a"),
    "PDF and JavaScript": b"%PDF-1.4\n/OpenAction << /S /JavaScript >>",
}


@pytest.mark.parametrize("head", POLYGLOTS.values(), ids=POLYGLOTS)
@pytest.mark.parametrize("declared", ["text/html", "text/javascript", "image/svg+xml"])
def test_a_polyglot_is_what_it_begins_as(head: bytes, declared: str) -> None:
    assert decide(head, declared, "a.html") == sniff(head) not in (None, "text/html", "text/javascript")


@pytest.mark.parametrize(
    "media_type", ["image/svg+xml", "text/html", "application/pdf", "application/xml", "text/plain"]
)
def test_what_could_be_active_is_never_shown_inline(media_type: str) -> None:
    assert not shown_inline(media_type)


@given(st.binary(max_size=5000), st.text(max_size=50) | st.none(), st.text(max_size=50))
def test_any_bytes_have_a_well_formed_type(head: bytes, declared: str | None, name: str) -> None:
    media_type = decide(head, declared, name)
    assert essence(media_type) in (media_type, None)
    facts_from_head(media_type, head, len(head))


@given(
    st.sampled_from([head for head, _ in SIGNATURES.values()]),
    st.binary(max_size=300),
    st.integers(0, 300),
    st.sampled_from([media_type for _, media_type in SIGNATURES.values()]),
)
def test_damaged_heads_break_nothing(head: bytes, noise: bytes, at: int, media_type: str) -> None:
    mutant = head[:at] + noise + head[at + len(noise) :]
    decide(mutant, None, "a")
    for name, value in facts_from_head(media_type, mutant, len(mutant)).items():
        assert isinstance(value, int | float | str), name


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_pictures_tell_their_size(form: str) -> None:
    head = picture(form)
    assert facts_from_head(sniff(head) or "", head, len(head)) == {"width": 30, "height": 20}


def test_sound_tells_its_length() -> None:
    body = b"WAVEfmt \x10\0\0\0\x01\0\x02\0\x44\xac\0\0\x10\xb1\x02\0\x04\0\x10\0data\x10\xb1\x02\0"
    head = b"RIFF" + (len(body) + 176400).to_bytes(4, "little") + body
    assert facts_from_head("audio/wav", head, len(head) + 176400) == {
        "channels": 2,
        "sample_rate": 44100,
        "bits_per_sample": 16,
        "duration": 1.0,
    }
    assert "duration" not in facts_from_head("audio/wav", head, len(head))


def test_an_mp4_tells_its_length_where_the_movie_header_comes_first() -> None:
    mvhd = b"\0\0\0\x6cmvhd" + bytes(12) + (600).to_bytes(4, "big") + (1500).to_bytes(4, "big")
    assert facts_from_head("video/mp4", ftyp(b"isom") + mvhd, 10**6) == {"brand": "isom", "duration": 2.5}


@pytest.mark.parametrize(
    "head",
    [
        b"<!DOCTYPE " + b"a" * 4000,
        b"<!DOCTYPE a [" + b"]  " * 1300,
        b"<!--" * 1024,
        b"<?" * 2048,
        b"P3" + b"\n" * 4000,
    ],
    ids=["doctype", "subset", "comments", "instructions", "pnm"],
)
def test_a_head_made_to_backtrack_is_only_unknown(head: bytes) -> None:
    assert sniff(head) is None
