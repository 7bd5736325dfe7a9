"""What an asset's media type is, and which types a browser may show in place."""

import re
from collections.abc import Mapping

from mediasvc.core.head_facts import facts_from_head
from mediasvc.core.signatures import HEAD_SIZE, sniff, text_kind

__all__ = [
    "HEAD_SIZE",
    "INLINE",
    "by_extension",
    "decide",
    "essence",
    "facts_from_head",
    "shown_inline",
    "sniff",
]

# Nothing that can carry script (SVG, HTML, XML, PDF), whatever the Content-Security-Policy says.
INLINE = frozenset({
    "image/png", "image/jpeg", "image/webp", "image/gif", "image/avif",
    "video/mp4", "video/webm", "video/ogg",
    "audio/mpeg", "audio/mp4", "audio/aac", "audio/ogg", "audio/webm", "audio/wav", "audio/flac",
})  # fmt: skip

_ESSENCE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
# What clients send when they do not know.
_UNDECLARED = frozenset({
    "application/octet-stream", "application/x-www-form-urlencoded", "binary/octet-stream",
    "application/unknown", "application/x-unknown", "unknown/unknown", "multipart/form-data",
})  # fmt: skip
_ALIASES = {
    "image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png",
    "image/svg": "image/svg+xml", "image/x-icon": "image/vnd.microsoft.icon", "image/x-ms-bmp": "image/bmp",
    "audio/mp3": "audio/mpeg", "audio/x-mp3": "audio/mpeg", "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav", "audio/vnd.wave": "audio/wav", "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4", "audio/m4a": "audio/mp4", "audio/x-aac": "audio/aac",
    "audio/x-aiff": "audio/aiff", "video/x-m4v": "video/mp4", "video/avi": "video/x-msvideo",
    "text/xml": "application/xml", "application/javascript": "text/javascript",
    "application/x-javascript": "text/javascript", "application/x-zip-compressed": "application/zip",
    "application/x-gzip": "application/gzip", "application/x-rar-compressed": "application/vnd.rar",
    "application/x-pdf": "application/pdf", "text/rtf": "application/rtf",
}  # fmt: skip
_EXTENSIONS: Mapping[str, str] = {
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "apng": "image/png", "gif": "image/gif",
    "webp": "image/webp", "avif": "image/avif", "heic": "image/heic", "heif": "image/heif",
    "tif": "image/tiff", "tiff": "image/tiff", "bmp": "image/bmp", "ico": "image/vnd.microsoft.icon",
    "jp2": "image/jp2", "jxl": "image/jxl", "psd": "image/vnd.adobe.photoshop", "svg": "image/svg+xml",
    "dng": "image/x-adobe-dng", "nef": "image/x-nikon-nef", "arw": "image/x-sony-arw",
    "cr2": "image/x-canon-cr2", "cr3": "image/x-canon-cr3", "raf": "image/x-fuji-raf", "tga": "image/x-tga",
    "ppm": "image/x-portable-pixmap", "pgm": "image/x-portable-graymap", "pbm": "image/x-portable-bitmap",
    "mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/quicktime", "webm": "video/webm",
    "mkv": "video/x-matroska", "avi": "video/x-msvideo", "ts": "video/mp2t", "m2ts": "video/mp2t",
    "flv": "video/x-flv", "ogv": "video/ogg", "mpg": "video/mpeg", "mpeg": "video/mpeg", "3gp": "video/3gpp",
    "wmv": "video/x-ms-wmv",
    "mp3": "audio/mpeg", "wav": "audio/wav", "flac": "audio/flac", "aac": "audio/aac", "m4a": "audio/mp4",
    "ogg": "audio/ogg", "oga": "audio/ogg", "opus": "audio/ogg", "weba": "audio/webm", "aif": "audio/aiff",
    "aiff": "audio/aiff", "mid": "audio/midi", "midi": "audio/midi", "amr": "audio/amr",
    "wma": "audio/x-ms-wma", "m3u8": "application/vnd.apple.mpegurl",
    "txt": "text/plain", "text": "text/plain", "log": "text/plain", "md": "text/markdown", "csv": "text/csv",
    "tsv": "text/tab-separated-values", "html": "text/html", "htm": "text/html", "css": "text/css",
    "js": "text/javascript", "mjs": "text/javascript", "ics": "text/calendar", "vcf": "text/vcard",
    "vtt": "text/vtt", "srt": "application/x-subrip", "py": "text/x-python", "c": "text/x-c",
    "h": "text/x-c", "sh": "application/x-sh", "json": "application/json", "map": "application/json",
    "geojson": "application/geo+json", "jsonl": "application/jsonl", "xml": "application/xml",
    "xhtml": "application/xhtml+xml", "rss": "application/rss+xml", "atom": "application/atom+xml",
    "gpx": "application/gpx+xml", "kml": "application/vnd.google-earth.kml+xml", "yaml": "application/yaml",
    "yml": "application/yaml", "toml": "application/toml", "sql": "application/sql", "tex": "application/x-tex",
    "pdf": "application/pdf", "ps": "application/postscript", "eps": "application/postscript",
    "rtf": "application/rtf", "epub": "application/epub+zip", "doc": "application/msword",
    "xls": "application/vnd.ms-excel", "ppt": "application/vnd.ms-powerpoint",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text", "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "zip": "application/zip", "gz": "application/gzip", "tgz": "application/gzip",
    "bz2": "application/x-bzip2", "xz": "application/x-xz", "zst": "application/zstd",
    "7z": "application/x-7z-compressed", "rar": "application/vnd.rar", "tar": "application/x-tar",
    "jar": "application/java-archive", "apk": "application/vnd.android.package-archive",
    "woff": "font/woff", "woff2": "font/woff2", "ttf": "font/ttf", "otf": "font/otf",
    "wasm": "application/wasm", "sqlite": "application/vnd.sqlite3", "db": "application/vnd.sqlite3",
    "parquet": "application/vnd.apache.parquet", "exe": "application/vnd.microsoft.portable-executable",
    "iso": "application/x-iso9660-image", "glb": "model/gltf-binary", "gltf": "model/gltf+json",
    "stl": "model/stl", "obj": "model/obj",
}  # fmt: skip
_TEXTUAL_IMAGES = frozenset({"image/svg+xml", "image/x-xbitmap", "image/x-xpixmap"})
_TEXTUAL_AUDIO = frozenset({"audio/mpegurl", "audio/x-mpegurl", "audio/x-scpls"})
_BINARY_APPLICATIONS = re.compile(
    r"application/(?:pdf|zip|gzip|zstd|wasm|epub\+zip|msword|dicom|java-(?:vm|archive)"
    r"|vnd\.(?:rar|sqlite3|openxmlformats|oasis|ms-excel|ms-powerpoint|android|apache|microsoft|debian)[^/]*"
    r"|x-(?:bzip2|xz|7z-compressed|tar|iso9660-image|elf|mach-binary|ole-storage|hdf5|lz4))"
)
# The outer form says this much; a declared type or an extension may say more of the same kind.
_REFINEMENTS: Mapping[str, re.Pattern[str]] = {
    sniffed: re.compile(pattern)
    for sniffed, pattern in {
        "application/xml": r"application/[a-z0-9.-]+\+xml",
        "text/html": r"text/markdown",  # which often begins with a tag
        "application/zip": r"application/(?:[a-z0-9.-]+\+zip|java-archive|vnd\.[a-z0-9.+-]+|x-xpinstall)",
        "application/x-ole-storage": r"application/(?:msword|vnd\.ms-[a-z0-9.-]+|x-msi|vnd\.visio)",
        "application/gzip": r"application/(?:x-gtar|x-compressed-tar)",
        "application/ogg": r"(?:audio|video)/ogg",
        "image/tiff": r"image/x-(?:adobe-dng|nikon-nef|sony-arw|pentax-pef|canon-cr2)",
        "image/heif": r"image/hei[cf](?:-sequence)?",
        "image/png": r"image/apng",
        "video/webm": r"audio/webm",
        "video/mp4": r"audio/mp4",
        "video/x-matroska": r"audio/x-matroska",
        "video/x-ms-asf": r"video/x-ms-wmv|audio/x-ms-wma",
    }.items()
}


def essence(declared: str | None) -> str | None:
    """A Content-Type without parameters, in lower case and its usual spelling; None where it says nothing."""
    if not declared:
        return None
    media_type = declared.partition(";")[0].strip().lower()
    if not _ESSENCE.fullmatch(media_type) or media_type in _UNDECLARED:
        return None
    return _ALIASES.get(media_type, media_type)


def by_extension(name: str) -> str | None:
    """The media type that goes with a file name's extension, the same on every machine."""
    _, dot, extension = name.rpartition(".")
    return _EXTENSIONS.get(extension.lower()) if dot else None


def decide(head: bytes, declared: str | None, name: str) -> str:
    """The media type of a file: what its first 4 KiB say, else the declared type, else the extension.

    A declared type that the bytes contradict counts for nothing, and is no error.
    """
    told = (essence(declared), by_extension(name))
    if sniffed := sniff(head):
        if refined := _REFINEMENTS.get(sniffed):
            return next((t for t in told if t and refined.fullmatch(t)), sniffed)
        return sniffed
    kind = text_kind(head) if head else None
    for media_type in told:
        if media_type and not (kind and _never_text(media_type)):
            return media_type
    return "text/plain" if kind in ("utf-8", "utf-16") else "application/octet-stream"


def shown_inline(media_type: str) -> bool:
    """Whether a browser may show it in place; everything else is an attachment."""
    return media_type in INLINE


def _never_text(media_type: str) -> bool:
    family = media_type.partition("/")[0]
    return (
        (family == "image" and media_type not in _TEXTUAL_IMAGES and "portable" not in media_type)
        or (family == "audio" and media_type not in _TEXTUAL_AUDIO)
        or family in ("video", "font")
        or _BINARY_APPLICATIONS.fullmatch(media_type) is not None
    )
