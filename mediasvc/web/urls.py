"""Absolute URLs, and where they begin."""

import re
from urllib.parse import quote

from starlette.types import Scope

from mediasvc.core.asset import Asset, Rendition
from mediasvc.core.recipe import EXTENSIONS

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def base_url(scope: Scope, public_url: str | None) -> str:
    """What our URLs begin with: the setting, else what a trusted proxy said, else the request itself."""
    if public_url:
        return public_url
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    if not _HOST.fullmatch(host):
        server = scope.get("server") or ("localhost", None)
        host = (f"{server[0]}:{server[1]}" if server[1] else server[0]).encode()
    return f"{scope['scheme']}://{host.decode()}{scope.get('state', {}).get('prefix', '')}"


def asset_url(base: str, asset: Asset) -> str:
    return named_asset_url(base, asset.id, asset.name)


def named_asset_url(base: str, asset_id: str, name: str) -> str:
    return f"{base}/f/{asset_id}/{quote(name, safe='')}"


def rendition_url(base: str, asset: Asset, rendition: Rendition) -> str:
    """With the asset's version, so that it may be cached for ever."""
    extension = EXTENSIONS[rendition.media_type]
    return f"{base}/i/{rendition.preset}/{asset.id}.{extension}?v={asset.version}"
