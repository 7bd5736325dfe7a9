"""The decision about an archive, and the bytes its answers are made of, over a real catalogue."""

import asyncio
import io
import random
import zipfile
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.access import ADMIN_SCOPES, Caller
from mediasvc.core.archive import Archive
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.conditions import format_date
from mediasvc.core.errors import (
    ArchiveEnded,
    BadRequest,
    Forbidden,
    MediasvcError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    TooLarge,
)
from mediasvc.core.ids import new_asset_id, new_blob_id
from mediasvc.core.signing import Signer
from mediasvc.core.span import Span
from mediasvc.deliver import archive as reading
from mediasvc.deliver import pack as packing
from mediasvc.deliver.archive import ArchivePlan, BlobSpan, archive_url, pieces, plan_archive
from mediasvc.deliver.pack import choose, choose_under, pack

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0
LATER = NOW + 10  # when Last-Modified is sent
HOUR = 3600
PAGE = 7  # entries
ADMIN = Caller("key_1", frozenset(ADMIN_SCOPES))
SIGNER = Signer(["a secret of the tests"])


@dataclass
class Place:
    """A catalogue at `now`, and the bytes of every blob in it."""

    catalogue: SqliteCatalogue
    now: float = NOW
    blobs: dict[str, bytes] = field(default_factory=dict)

    async def add(self, *contents: tuple[str, bytes], bucket: str = "media") -> list[Asset]:
        assets = []
        async with self.catalogue.transaction() as tx:
            for key, content in contents:
                blob = Blob(new_blob_id(), len(content), f"{len(self.blobs):064}", zlib.crc32(content))
                self.blobs[blob.id] = content
                name = key.rpartition("/")[2]
                assets.append(
                    Asset(
                        new_asset_id(),
                        bucket,
                        key,
                        name,
                        blob,
                        "text/plain",
                        "ready",
                        self.now,
                        int(self.now),
                    )
                )
                await tx.add_asset(assets[-1])
        return assets

    async def archive(self, prefix: str = "", *, name: str = "all", expires_in: float = HOUR) -> Archive:
        chosen = await choose_under(self.catalogue, ADMIN, "media", prefix)
        return await pack(self.catalogue, chosen, name, self.now, self.now + expires_in)

    async def plan(
        self, archive: Archive, method: str = "GET", *, query: bytes | None = None, **headers: str
    ) -> ArchivePlan:
        asked = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if query is None:
            query = urlsplit(archive_url(SIGNER, archive)).query.encode()
        return await plan_archive(
            self.catalogue, SIGNER, archive.id.encode(), method, query, asked, self.now + 10
        )

    async def read(self, archive: Archive, span: Span | None = None) -> bytes:
        parts = []
        async for piece in pieces(self.catalogue, archive, span or Span(0, archive.layout.size)):
            if isinstance(piece, BlobSpan):
                content = self.blobs[piece.blob_id]
                assert piece.size == len(content)
                parts.append(content[piece.span.start : piece.span.stop])
            else:
                assert piece
                parts.append(piece)
        return b"".join(parts)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    for module in (packing, reading):
        monkeypatch.setattr(module, "_PAGE", PAGE)
    catalogue = SqliteCatalogue(tmp_path / "catalogue.db", clock=lambda: NOW)
    await catalogue.start()
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("media", NOW))
        await tx.add_bucket(Bucket("public", NOW, public=True))
    yield Place(catalogue)
    await catalogue.close()


def names(chosen: Sequence[tuple[object, str]]) -> list[str]:
    return [path for _, path in chosen]


async def test_every_span_is_cut_from_the_same_bytes(place: Place) -> None:
    noise = random.Random(9)
    contents = [(f"k/{number:04}", noise.randbytes(noise.choice((0, 1, 30)))) for number in range(60)]
    await place.add(*contents)
    archive = await place.archive()
    whole = await place.read(archive)
    assert len(whole) == archive.layout.size
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert opened.testzip() is None
        assert {info.filename: opened.read(info) for info in opened.infolist()} == dict(contents)
    edges = [0, 1, archive.layout.listing_start, archive.layout.tail_start, archive.layout.size]
    edges += [edge + step for edge in edges[2:4] for step in (-1, 1)]
    edges += [noise.randrange(len(whole)) for _ in range(40)]
    for _ in range(150):
        start, stop = sorted(noise.choices(edges, k=2))
        assert await place.read(archive, Span(start, stop)) == whole[start:stop]


async def test_a_span_far_behind_asks_for_few_entries(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.add(*((f"{number:05}", b"x") for number in range(100)))
    archive = await place.archive()
    asked = []
    members = place.catalogue.members

    async def counted(*arguments: object, **more: object) -> object:
        page = await members(*arguments, **more)  # type: ignore[arg-type]
        asked.append(len(page))
        return page

    monkeypatch.setattr(place.catalogue, "members", counted)
    middle = archive.layout.listing_start // 2
    for start in (middle, archive.layout.listing_start + 7, archive.layout.size - 1):
        await place.read(archive, Span(start, start + 1))
    assert sum(asked) <= 2


async def test_what_ends_while_it_is_read_breaks_off(place: Place) -> None:
    (asset, *_) = await place.add(*((f"{number:04}", b"x") for number in range(60)))
    archive = await place.archive()
    read = pieces(place.catalogue, archive, Span(0, archive.layout.size))
    await anext(read)
    async with place.catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    with pytest.raises(ArchiveEnded):
        async for _ in read:
            pass


async def test_what_was_swept_while_it_is_read_breaks_off(place: Place) -> None:
    await place.add(*((f"{number:04}", b"x") for number in range(60)))
    archive = await place.archive()
    read = pieces(place.catalogue, archive, Span(0, archive.layout.size))
    await anext(read)
    async with place.catalogue.transaction() as tx:
        await tx.drop_archive(archive.id, 10_000)
    with pytest.raises(ArchiveEnded):
        async for _ in read:
            pass


async def test_names_go_on_from_the_folder_of_the_prefix(place: Place) -> None:
    await place.add(("a/b/1.txt", b"1"), ("a/b/c/2.txt", b"2"), ("a/bb", b"3"), ("z", b"4"))
    under = {
        prefix: names(await choose_under(place.catalogue, ADMIN, "media", prefix))
        for prefix in ("", "a/b", "a/b/", "nothing")
    }
    assert under == {
        "": ["a/b/1.txt", "a/b/c/2.txt", "a/bb", "z"],
        "a/b": ["b/1.txt", "b/c/2.txt", "bb"],
        "a/b/": ["1.txt", "c/2.txt"],
        "nothing": [],
    }


async def test_a_narrow_key_gets_only_what_it_may_see(place: Place) -> None:
    mine, foreign = await place.add(("mine/1", b"1"), ("other/2", b"2"))
    (open_to_all,) = await place.add(("3", b"3"), bucket="public")
    narrow = Caller("key_2", frozenset(("assets:read",)), "media", "mine/")
    assert names(await choose_under(place.catalogue, narrow, "media", "")) == ["mine/1"]
    assert names(await choose_under(place.catalogue, narrow, "media", "min")) == ["mine/1"]
    assert await choose_under(place.catalogue, narrow, "media", "other/") == []
    assert names(await choose(place.catalogue, narrow, [open_to_all.id, mine.id, mine.id])) == ["3", "1"]
    with pytest.raises(NotFound, match="there is no bucket"):
        await choose_under(place.catalogue, narrow, "public", "")
    with pytest.raises(NotFound) as refused:
        await choose(place.catalogue, narrow, [mine.id, foreign.id, "nonsense", open_to_all.id])
    assert refused.value.detail == f"there is no asset {foreign.id}, nonsense"


async def test_of_many_that_are_missing_a_few_are_named(place: Place) -> None:
    with pytest.raises(NotFound, match=r"id9 and 1990 more$"):
        await choose(place.catalogue, ADMIN, [f"id{number}" for number in range(2000)])


async def test_limits_and_nothing_at_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = await place.add(("a", b""), ("b", b""), ("c", b""))
    with pytest.raises(BadRequest, match="no asset is chosen"):
        await place.archive("nothing")
    monkeypatch.setattr(packing, "MAX_ENTRIES", 2)
    for refused in (
        choose(place.catalogue, ADMIN, [asset.id for asset in assets]),
        choose_under(place.catalogue, ADMIN, "media", ""),
    ):
        with pytest.raises(TooLarge) as error:
            await refused
        assert (error.value.limit, error.value.limit_source) == (2, "server")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a", "a.zip"),
        ("a.zip", "a.zip"),
        ("a.ZIP", "a.zip"),
        ("../x/..", "file.zip"),
        (".zip", "archive.zip"),
        ("a/b", "b.zip"),
        ("ä\n", "ä.zip"),
        ("v1. ", "v1.zip"),
        ("x" * 300, "x" * 251 + ".zip"),
    ],
)
async def test_the_archive_has_a_name_of_its_own(place: Place, name: str, file: str) -> None:
    await place.add(("a", b"a"))
    assert (await place.archive(name=name)).name == file


async def test_it_lives_no_longer_than_what_is_in_it(place: Place) -> None:
    (asset, _) = await place.add(("a", b"a"), ("b", b"b"))
    assert (await place.archive(expires_in=59.5)).expires_at == NOW + 59
    async with place.catalogue.transaction() as tx:
        current = await tx.asset(asset.id)
        assert current
        await tx.save_asset(replace(current, expires_at=NOW + 30.7))
    assert (await place.archive()).expires_at == NOW + 30


async def test_making_a_large_one_leaves_turns_for_others(place: Place) -> None:
    await place.add(*((f"{number:05}", b"") for number in range(80)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await place.archive()
    beside.cancel()
    assert turns > 3 * 80 // PAGE


def headers_of(plan: ArchivePlan) -> dict[bytes, bytes]:
    headers = dict(plan.headers)
    assert len(headers) == len(plan.headers)
    return headers


async def test_the_whole(place: Place) -> None:
    await place.add(("a", b"hello"))
    archive = await place.archive(name="zoë")
    plan = await place.plan(archive)
    assert (plan.status, plan.span) == (200, Span(0, archive.layout.size))
    assert headers_of(plan) == {
        b"etag": f'"{archive.id}"'.encode(),
        b"last-modified": format_date(int(NOW)).encode(),
        b"accept-ranges": b"bytes",
        b"cache-control": b"private, no-cache",
        b"content-security-policy": headers_of(plan)[b"content-security-policy"],
        b"content-disposition": b"attachment; filename=\"zoe.zip\"; filename*=UTF-8''zo%C3%AB.zip",
        b"content-type": b"application/zip",
        b"content-length": b"%d" % archive.layout.size,
    }
    head = await place.plan(archive, "HEAD", range="bytes=0-1")
    assert (head.status, head.headers, head.span) == (200, plan.headers, None)


WHOLE = 1 << 40
ETAG, THEN, BEFORE = "TAG", format_date(int(NOW)), format_date(int(NOW) - 1)


@pytest.mark.parametrize(
    ("headers", "status", "span"),
    [
        ({"range": "bytes=2-4"}, 206, Span(2, 5)),
        ({"range": "bytes=5-"}, 206, Span(5, WHOLE)),
        ({"range": "bytes=2-4", "if_range": ETAG}, 206, Span(2, 5)),
        ({"range": "bytes=2-4", "if_range": THEN}, 206, Span(2, 5)),
        ({"range": "bytes=2-4", "if_range": '"other"'}, 200, None),
        ({"range": "bytes=0-1,4-5"}, 200, None),
        ({"range": "lines=1-2"}, 200, None),
        ({"if_match": ETAG}, 200, None),
        ({"if_none_match": '"other"'}, 200, None),
        ({"if_modified_since": BEFORE}, 200, None),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
async def test_what_a_request_gets(
    place: Place, headers: dict[str, str], status: int, span: Span | None
) -> None:
    await place.add(("a", b"hello"))
    archive = await place.archive()
    size = archive.layout.size
    plan = await place.plan(archive, **{n: v.replace(ETAG, archive.etag) for n, v in headers.items()})
    expected = Span(0, size) if span is None else Span(span.start, min(span.stop, size))
    assert (plan.status, plan.span) == (status, expected)
    answer = headers_of(plan)
    assert answer[b"content-length"] == b"%d" % expected.length
    shown = f"bytes {expected.start}-{expected.stop - 1}/{size}".encode() if status == 206 else None
    assert answer.get(b"content-range") == shown


@pytest.mark.parametrize(
    "headers", [{"if_none_match": ETAG}, {"if_none_match": "*"}, {"if_modified_since": THEN}]
)
async def test_nothing_new_is_not_sent(place: Place, headers: dict[str, str]) -> None:
    await place.add(("a", b"hello"))
    archive = await place.archive()
    plan = await place.plan(archive, **{n: v.replace(ETAG, archive.etag) for n, v in headers.items()})
    assert (plan.status, plan.span) == (304, None)
    assert b"content-length" not in headers_of(plan)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"if_match": '"other"'}, PreconditionFailed),
        ({"if_match": 'W/"TAG"'}, PreconditionFailed),
        ({"if_unmodified_since": BEFORE}, PreconditionFailed),
        ({"range": "bytes=9999999-"}, RangeNotSatisfiable),
    ],
)
async def test_what_cannot_be_had(place: Place, headers: dict[str, str], error: type[MediasvcError]) -> None:
    await place.add(("a", b"hello"))
    with pytest.raises(error):
        await place.plan(await place.archive(), **headers)


async def test_only_its_own_link_opens_an_archive(place: Place) -> None:
    await place.add(("a", b"hello"))
    archive, other = await place.archive(), await place.archive()
    good = urlsplit(archive_url(SIGNER, archive)).query
    fields = dict(part.split("=") for part in good.split("&"))
    wrong = {
        "nothing": "",
        "no signature": f"exp={fields['exp']}&kid={fields['kid']}",
        "another archive's": urlsplit(archive_url(SIGNER, other)).query,
        "a later end": good.replace(fields["exp"], str(int(fields["exp"]) + 1)),
        "another key": urlsplit(archive_url(Signer(["quite another secret"]), archive)).query,
        "changed": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "doubled": good + "&exp=" + fields["exp"],
        "more than was signed": good + "&disposition=inline",
        "a link's id": good + "&link=lnk_" + "0" * 36,
        "an asset link's signature": "&".join(
            f"{n}={v}"
            for n, v in (
                ("exp", fields["exp"]),
                *zip(("kid", "sig"), SIGNER.sign("link", archive.id, int(fields["exp"])), strict=True),
            )
        ),
    }
    for query in wrong.values():
        with pytest.raises(Forbidden):
            await place.plan(archive, query=query.encode())
    for archive_id in (b"zip_x", b"ast_" + b"0" * 36, b"\xff"):
        with pytest.raises(Forbidden):
            await plan_archive(place.catalogue, SIGNER, archive_id, "GET", good.encode(), [], LATER)
    assert (await place.plan(archive, query=good.encode())).status == 200


async def test_an_end_is_told_as_what_it_is(place: Place) -> None:
    (asset,) = await place.add(("a", b"hello"))
    archive = await place.archive()
    query = urlsplit(archive_url(SIGNER, archive)).query.encode()
    place.now += 2 * HOUR
    with pytest.raises(Forbidden, match="over"):
        await place.plan(archive, query=query)
    place.now = NOW
    async with place.catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    with pytest.raises(ArchiveEnded, match="make a new archive"):
        await place.plan(archive, query=query)
