"""One page of a bucket, in order of key: keyset paging, and folders by a delimiter as S3 folds them.

A folder is never read through: from its first key the scan jumps behind its last (a skip scan), so that a
bucket with a million keys in one folder lists its top level in a few statements.
"""

from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from mediasvc.catalogue.interface import AssetPage, AssetQuery
from mediasvc.catalogue.rows import assets_of
from mediasvc.catalogue.statements import ASSETS, Reader, unexpired
from mediasvc.catalogue.tables import asset
from mediasvc.core.asset import Asset

_SMALL = 16  # rows asked for when folders are expected


class _Texts(FunctionElement[str]):
    """The members of a JSON array of texts, as a column `value`."""

    name = "texts"
    inherit_cache = True


@compiles(_Texts)
def _texts(element: _Texts, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each{compiler.process(element.clause_expr, **options)}"


@compiles(_Texts, "postgresql")
def _texts_of_postgresql(element: _Texts, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_array_elements_text{compiler.process(element.clause_expr, **options)}"


def successor(prefix: str) -> str | None:
    """The least text behind every text that begins with `prefix`; None where there is none.

    In the order of bytes of UTF-8, which is that of code points; surrogates are not characters.
    """
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)


def folder_of(key: str, prefix: str, delimiter: str | None) -> str | None:
    """What `key` folds into: everything up to the first delimiter after the prefix."""
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


async def list_assets(reader: Reader, query: AssetQuery, now: float) -> AssetPage:
    """The page after `query.after`; `limit` counts assets and folders together."""
    prefix = max(query.prefix, query.key_prefix, key=len)
    if query.limit < 1 or not (prefix.startswith(query.prefix) and prefix.startswith(query.key_prefix)):
        return AssetPage(())
    if query.newest_first:
        return await _newest(reader, query, prefix, now)
    entries: list[tuple[str, str | None]] = []
    async for entry in _entries(reader, query, prefix, now):
        entries.append(entry)
        if len(entries) > query.limit:
            break
    page = entries[: query.limit]
    assets = await _load(reader, [asset_id for _, asset_id in page if asset_id is not None], now)
    folders = [name for name, asset_id in page if asset_id is None]
    return AssetPage(assets, folders, page[-1][0] if len(entries) > query.limit else None)


async def _newest(reader: Reader, query: AssetQuery, prefix: str, now: float) -> AssetPage:
    """Ids begin with the time at which they were made."""
    found = _matching(query, prefix).params(now=now).order_by(None).order_by(asset.c.id.desc())
    if query.after is not None:
        found = found.where(asset.c.id < query.after)
    ids = [row.id for row in await reader.rows(found.limit(query.limit + 1))]
    page = ids[: query.limit]
    assets = sorted(await _load(reader, page, now), key=lambda one: one.id, reverse=True)
    return AssetPage(assets, next_after=page[-1] if len(ids) > query.limit else None)


async def _entries(
    reader: Reader, query: AssetQuery, prefix: str, now: float
) -> AsyncIterator[tuple[str, str | None]]:
    """Keys with the ids of their assets, and folders (no id), in order."""
    found = _matching(query, prefix).params(now=now)
    last, folder = query.after, folder_of(query.after or "", query.prefix, query.delimiter)
    size = min(query.limit + 1, _SMALL) if query.delimiter else query.limit + 1
    while True:
        start = sa.true() if last is None else asset.c.key > last
        if folder is not None:
            behind = successor(folder)
            if behind is None:
                return
            start = asset.c.key >= behind
        rows = await reader.rows(found.where(start).limit(size))
        fresh = 0
        for row in rows:
            key, asset_id = row.key, row.id
            if folder is not None and key.startswith(folder):
                continue
            last, folder, fresh = key, folder_of(key, query.prefix, query.delimiter), fresh + 1
            yield (key, asset_id) if folder is None else (folder, None)
        if len(rows) < size:
            return
        # Full folders: ask for few rows and jump often. Loose keys: ask for many.
        size = max(2, size // 4) if 2 * fresh < size else min(size * 2, query.limit + 1)


def _matching(query: AssetQuery, prefix: str) -> sa.Select[tuple[str, str]]:
    found = sa.select(asset.c.key, asset.c.id).where(asset.c.bucket == query.bucket, unexpired)
    found = found.where(*begins(asset.c.key, prefix)).order_by(asset.c.key)
    if query.media_type not in (None, "*/*"):
        family = query.media_type.removesuffix("*")
        exact = asset.c.media_type == query.media_type
        found = (
            found.where(*begins(asset.c.media_type, family)) if family.endswith("/") else found.where(exact)
        )
    if query.tag is not None:
        tags = _Texts(asset.c.tags).table_valued("value")
        found = found.where(sa.exists().select_from(tags).where(tags.c.value == query.tag))
    return found


def begins(column: sa.Column[str], prefix: str) -> list[sa.ColumnElement[bool]]:
    """Exactly, by bytes: LIKE would take `%` and `_` for wildcards and fold case."""
    behind = successor(prefix)
    return ([column >= prefix] if prefix else []) + ([column < behind] if behind is not None else [])


async def _load(reader: Reader, ids: list[str], now: float) -> list[Asset]:
    chosen = ASSETS.where(asset.c.id.in_(ids), unexpired).order_by(asset.c.key)
    return assets_of(await reader.rows(chosen.params(now=now))) if ids else []
