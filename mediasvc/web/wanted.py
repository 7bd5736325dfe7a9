"""What a creation asks for: names in the client's metadata, or in the query, and our own headers."""

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from fastapi import Request

from mediasvc.core.access import Caller
from mediasvc.core.filenames import name_below, safe_name
from mediasvc.core.ids import new_ulid
from mediasvc.core.keys import normalise_key
from mediasvc.core.media_types import essence
from mediasvc.core.upload import UploadToken
from mediasvc.ingest.admission import Wanted
from mediasvc.web.deps import Said, metadata_named

_NAMES = ("bucket", "key", "filename", "name", "filetype", "type")  # the rest is metadata


def wanted_by(request: Request, caller: Caller, names: Mapping[str, str]) -> Wanted:
    """`names` is what the client's own metadata says. A key that it does not say is made here, below the prefix."""
    query, said = request.query_params, Said.by(request)
    filename = names.get("filename") or names.get("name") or ""
    key = names.get("key") or _key_in(request) or ""
    named = bool(key)
    if named:
        name = safe_name(filename or key.rpartition("/")[2] or "upload")
    else:
        key, name = new_key(caller, filename)
    more = {name.lower(): value for name, value in names.items() if name not in _NAMES}
    return Wanted(
        bucket=names.get("bucket") or query.get("bucket") or caller.bucket or "media",
        key=normalise_key(key),
        name=name,
        replace=named,
        declared_type=essence(names.get("filetype") or names.get("type")),
        tags=said.tags,
        metadata=metadata_named(more) | dict(said.metadata),
        expires_in=said.expires_in,
        if_match=request.headers.get("if-match"),
        if_none_match=request.headers.get("if-none-match"),
        if_unmodified_since=request.headers.get("if-unmodified-since"),
    )


def new_key(caller: Caller, filename: str) -> tuple[str, str]:
    """A key for a file that was given none, in a folder of its own below the caller's prefix; and its name."""
    folder = f"{caller.prefix}{new_ulid()}/"
    name = name_below(folder, filename or "upload")
    return folder + name, name


def _key_in(request: Request) -> str | None:
    """The query's key; what is no UTF-8 in it stays recognisable, which Starlette replaces."""
    query = request.scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    return dict(pairs).get("key")


def narrowed(wanted: Wanted, token: UploadToken | None) -> Wanted:
    """What the bearer of an upload token may want: its types, and a key that is free. Whoever has a token did not make
    the assets that are there, and must not replace them."""
    if token is None:
        return wanted
    return replace(
        wanted,
        allowed_types=tuple(token.allowed_types),
        if_match=None,
        if_none_match="*",
        if_unmodified_since=None,
    )
