"""What every catalogue promises."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediasvc.catalogue.interface import AssetPage, AssetQuery, Catalogue, Gone, Intent
from mediasvc.core.access import Key
from mediasvc.core.asset import Asset, Blob, Rendition
from mediasvc.core.bucket import Bucket, Usage
from mediasvc.core.errors import Conflict
from mediasvc.core.ids import new_asset_id, new_blob_id, new_key_id, new_run_id
from mediasvc.core.task import NewTask

pytestmark = pytest.mark.anyio

ODD_KEYS = [
    "%",
    "%25",
    "_",
    "a",
    "a b",
    "a%b",
    "a/",
    "a/b",
    "a//b",
    "A",
    "ä",
    "é/ü",
    "\ud7ff",
    "\ue000",
    "\uffff",
]
ODD_KEYS += ["😀", "😀/x", "\U0010ffff", "\U0010ffff/\U0010ffff", "\U0010ffff\U0010ffff", "'\"\\", "\n"]


def an_asset(key: str = "photo.jpg", *, bucket: str = "media", size: int = 10, **values: Any) -> Asset:
    blob = Blob(new_blob_id(), size, values.pop("sha256", "ab" * 32), 7)
    given = {"media_type": "image/jpeg", "state": "ready", "created_at": 1.5, "modified_at": 2, **values}
    return Asset(new_asset_id(), bucket, key, key.rpartition("/")[2], blob, **given)


def next_version(asset: Asset, *, size: int = 10) -> Asset:
    return replace(asset, version=asset.version + 1, blob=Blob(new_blob_id(), size, "cd" * 32, 8))


def a_rendition(preset: str) -> Rendition:
    return Rendition(preset, Blob(new_blob_id(), 3, "ef" * 32, 9), "image/webp", 256, 128)


def a_key(**values: Any) -> Key:
    key_id = new_key_id()
    return Key(key_id, key_id.ljust(64, "0"), "msk_abcd", frozenset({"assets:read"}), 1.0, **values)


async def add(catalogue: Catalogue, *assets: Asset, bucket: str = "media") -> None:
    async with catalogue.transaction() as tx:
        if await tx.bucket(bucket) is None:
            await tx.add_bucket(Bucket(bucket, 1.0))
        for asset in assets:
            await tx.add_asset(asset)


async def usage(catalogue: Catalogue, bucket: str = "media") -> Usage:
    async with catalogue.transaction() as tx:
        return await tx.usage(bucket)


async def pages(catalogue: Catalogue, query: AssetQuery) -> list[AssetPage]:
    found = [await catalogue.assets(query)]
    while found[-1].next_after is not None:
        found.append(await catalogue.assets(replace(query, after=found[-1].next_after)))
    return found


# Buckets and keys


async def test_a_bucket_comes_back_as_it_was_saved(catalogue: Catalogue) -> None:
    allowed, origins = ("image/*", "video/mp4"), ("https://a.example", "https://b.example")
    policy = Bucket("photos", 3.25, True, 2**40, allowed, 60.0, 2**50, 7, origins, 2**33)
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("photos", 3.25))
        await tx.save_bucket(policy)
        assert await tx.bucket("photos") == policy
    assert await catalogue.bucket("photos") == policy
    assert await catalogue.bucket("absent") is None


async def test_buckets_are_listed_by_name_in_pages(catalogue: Catalogue) -> None:
    async with catalogue.transaction() as tx:
        for name in ("ccc", "aaa", "bbb"):
            await tx.add_bucket(Bucket(name, 1.0))
    assert [b.name for b in await catalogue.buckets(limit=2)] == ["aaa", "bbb"]
    assert [b.name for b in await catalogue.buckets(after="bbb")] == ["ccc"]


async def test_a_bucket_name_is_taken_once(catalogue: Catalogue) -> None:
    await add(catalogue)
    with pytest.raises(Conflict):
        async with catalogue.transaction() as tx:
            await tx.add_bucket(Bucket("media", 2.0))


async def test_a_policy_of_no_bucket_is_gone(catalogue: Catalogue) -> None:
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.save_bucket(Bucket("absent", 1.0))


async def test_a_bucket_with_assets_or_uploads_stays(catalogue: Catalogue) -> None:
    asset = an_asset()
    await add(catalogue, asset)
    with pytest.raises(Conflict, match="assets"):
        async with catalogue.transaction() as tx:
            await tx.delete_bucket("media")
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
        await tx.open_intent(Intent("b1", "run", "media"))
    with pytest.raises(Conflict, match="under way"):
        async with catalogue.transaction() as tx:
            await tx.delete_bucket("media")
    async with catalogue.transaction() as tx:
        await tx.condemn_intent("b1")
        await tx.delete_bucket("media")
    assert await catalogue.bucket("media") is None
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.delete_bucket("media")


async def test_what_has_expired_does_not_keep_a_bucket(catalogue: Catalogue, clock: Any) -> None:
    asset = an_asset(expires_at=clock.now - 1)
    await add(catalogue, asset)
    async with catalogue.transaction() as tx:
        await tx.delete_bucket("media")
    assert [record.blob for record in await catalogue.doomed_blobs()] == [asset.blob]


async def test_a_key_comes_back_as_it_was_added(catalogue: Catalogue, clock: Any) -> None:
    key = a_key(name="n", bucket="media", prefix="a/😀", expires_at=clock.now + 9, max_asset_size=5)
    async with catalogue.transaction() as tx:
        await tx.add_key(key)
    assert await catalogue.key_by_secret(key.secret_sha256) == key
    assert await catalogue.key(key.id) == key
    assert await catalogue.keys() == [key]
    assert await catalogue.key_by_secret("0" * 64) is None


async def test_a_dead_key_opens_nothing(catalogue: Catalogue, clock: Any) -> None:
    revoked, expiring = a_key(), a_key(expires_at=clock.now + 10)
    async with catalogue.transaction() as tx:
        await tx.add_key(revoked)
        await tx.add_key(expiring)
        await tx.revoke_key(revoked.id, clock.now)
    assert await catalogue.key_by_secret(revoked.secret_sha256) is None
    assert await catalogue.keys() == [expiring]
    clock.now += 10
    assert await catalogue.key_by_secret(expiring.secret_sha256) is None
    for dead in (revoked, expiring):
        with pytest.raises(Gone):
            async with catalogue.transaction() as tx:
                await tx.revoke_key(dead.id, clock.now)


# Assets


async def test_an_asset_comes_back_as_it_was_added(catalogue: Catalogue, clock: Any) -> None:
    asset = an_asset(
        "a/😀.jpg",
        size=2**41,
        expires_at=clock.now + 1,
        tags=("x", "ü"),
        metadata={"who": "me"},
        facts={"width": 3, "gps": [1.5, None]},
        placeholder={"color": "#fff"},
    )
    await add(catalogue, asset)
    assert await catalogue.asset(asset.id) == asset
    assert await catalogue.asset_at("media", "a/😀.jpg") == asset
    assert await catalogue.assets_with("ab" * 32, 2**41) == [asset]
    async with catalogue.transaction() as tx:
        assert await tx.asset(asset.id) == await tx.asset_at("media", asset.key) == asset
    assert await catalogue.asset("ast_absent") is None
    assert await catalogue.asset_at("other", asset.key) is None
    assert await catalogue.assets_with("ab" * 32, 1) == []


async def test_a_source_says_what_a_download_needs(catalogue: Catalogue) -> None:
    asset, thumb = an_asset(), a_rendition("thumb")
    async with catalogue.transaction() as tx:
        policy = Bucket("media", 1.0, public=True, cors_origins=("https://a.example",), download_rate=2**33)
        await tx.add_bucket(policy)
        await tx.add_asset(asset)
        await tx.save_findings(asset.id, 1, state="ready", facts={}, placeholder=None, renditions=[thumb])
    original = await catalogue.source(asset.id)
    assert original == await catalogue.source_at("media", asset.key)
    assert original is not None
    assert (original.blob_id, original.size, original.sha256) == (asset.blob.id, 10, asset.blob.sha256)
    assert (original.public, original.media_type, original.version, original.modified_at) == (
        True,
        "image/jpeg",
        1,
        2,
    )
    rendition = await catalogue.source(asset.id, "thumb")
    assert rendition is not None
    for source in (original, rendition):
        assert (list(source.cors_origins), source.download_rate) == (["https://a.example"], 2**33)
    assert (rendition.blob_id, rendition.media_type, rendition.key) == (
        thumb.blob.id,
        "image/webp",
        asset.key,
    )
    assert await catalogue.source(asset.id, "grid") is None


async def test_a_key_of_a_bucket_is_taken_once(catalogue: Catalogue, clock: Any) -> None:
    await add(catalogue, an_asset(expires_at=clock.now - 1))
    with pytest.raises(Conflict):
        await add(catalogue, an_asset())
    await add(catalogue, an_asset(bucket="other"), bucket="other")
    assert await usage(catalogue) == Usage(10, 1)


async def test_no_asset_without_its_bucket(catalogue: Catalogue) -> None:
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.add_asset(an_asset())
    assert await catalogue.blobs() == []


async def test_an_exception_leaves_nothing_of_a_transaction(catalogue: Catalogue) -> None:
    await add(catalogue)
    asset = an_asset()

    async def break_off() -> None:
        async with catalogue.transaction() as tx:
            await tx.add_asset(asset)
            await tx.enqueue(NewTask("analyse", asset.id))
            await tx.open_intent(Intent("b1", "run"))
            await tx.add_key(a_key())
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        await break_off()
    assert await catalogue.asset(asset.id) is None
    assert [await catalogue.blobs(), await catalogue.tasks_of(asset.id), await catalogue.intents()] == [
        [],
        [],
        [],
    ]
    assert await catalogue.keys() == []
    assert await usage(catalogue) == Usage()


async def test_a_cancelled_transaction_leaves_nothing_and_blocks_nobody(catalogue: Catalogue) -> None:
    await add(catalogue)
    asset, added = an_asset(), asyncio.Event()

    async def adding() -> None:
        async with catalogue.transaction() as tx:
            await tx.add_asset(asset)
            added.set()
            await asyncio.sleep(60)

    for _ in range(3):
        added.clear()
        task = asyncio.create_task(adding())
        await added.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await catalogue.asset(asset.id) is None
    await add(catalogue, asset)
    assert await catalogue.asset(asset.id) == asset


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_block_that_was_left_normally_is_committed_however_it_is_cancelled(
    catalogue: Catalogue, steps: int
) -> None:
    await add(catalogue)
    asset, left = an_asset(), False

    async def adding() -> None:
        nonlocal left
        async with catalogue.transaction() as tx:
            await tx.add_asset(asset)
        left = True
        await asyncio.sleep(60)

    task = asyncio.create_task(adding())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await catalogue.asset(asset.id) is not None) == left


async def test_a_timeout_around_a_transaction_is_still_a_timeout(catalogue: Catalogue) -> None:
    async def add_for_ever() -> None:
        async with asyncio.timeout(0.05):
            while True:
                await add(catalogue)

    with pytest.raises(TimeoutError):
        await add_for_ever()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    await add(catalogue)


async def test_a_new_version_dooms_the_old_bytes(catalogue: Catalogue) -> None:
    first, thumb = an_asset(size=10), a_rendition("thumb")
    await add(catalogue, first)
    async with catalogue.transaction() as tx:
        await tx.save_findings(first.id, 1, state="ready", facts={}, placeholder=None, renditions=[thumb])
        await tx.enqueue(NewTask("analyse", first.id))
    second = next_version(first, size=4)
    async with catalogue.transaction() as tx:
        await tx.replace_asset(second)
    found = await catalogue.asset(first.id)
    assert found is not None
    assert replace(found, tasks_pending=0) == second
    doomed = await catalogue.doomed_blobs(first.id)
    assert {record.blob.id for record in doomed} == {first.blob.id, thumb.blob.id}
    states = {task.kind: task.state for task in await catalogue.tasks_of(first.id)}
    assert states == {"analyse": "cancelled", "purge": "waiting"}
    assert await usage(catalogue) == Usage(4, 1)
    assert await catalogue.source(first.id, "thumb") is None


async def test_a_version_is_replaced_once(catalogue: Catalogue) -> None:
    first = an_asset()
    await add(catalogue, first)
    async with catalogue.transaction() as tx:
        await tx.replace_asset(next_version(first))
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.replace_asset(next_version(first, size=99))
    assert await usage(catalogue) == Usage(10, 1)


async def test_a_new_version_forgets_old_failures(catalogue: Catalogue) -> None:
    first = an_asset()
    await add(catalogue, first)
    async with catalogue.transaction() as tx:
        await tx.enqueue(NewTask("analyse", first.id))
    (task,) = await catalogue.outbox.claim("run", 2e9, 1)
    await catalogue.outbox.fail(task.id, "run", detail="not an image")
    assert (await catalogue.asset(first.id)).tasks_failed == 1  # type: ignore[union-attr]
    async with catalogue.transaction() as tx:
        await tx.replace_asset(next_version(first))
    assert (await catalogue.asset(first.id)).tasks_failed == 0  # type: ignore[union-attr]


async def test_findings_of_an_old_version_are_gone(catalogue: Catalogue) -> None:
    first = an_asset()
    await add(catalogue, first)
    async with catalogue.transaction() as tx:
        await tx.replace_asset(next_version(first))
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.save_findings(
                first.id, 1, state="damaged", facts={}, placeholder=None, renditions=[a_rendition("thumb")]
            )
    assert (await catalogue.asset(first.id)).state == "ready"  # type: ignore[union-attr]


async def test_looking_again_replaces_what_the_last_look_made(catalogue: Catalogue) -> None:
    asset, kept, old, new = an_asset(), a_rendition("grid"), a_rendition("thumb"), a_rendition("thumb")
    await add(catalogue, asset)
    for renditions in ([kept, old], [kept, new]):
        async with catalogue.transaction() as tx:
            await tx.save_findings(
                asset.id,
                1,
                state="ready",
                facts={"n": 1},
                placeholder={"color": "#000"},
                renditions=renditions,
            )
    found = await catalogue.asset(asset.id)
    assert found is not None
    assert found.renditions == {"grid": kept, "thumb": new}
    assert (found.facts, found.placeholder) == ({"n": 1}, {"color": "#000"})
    assert [record.blob for record in await catalogue.doomed_blobs()] == [old.blob]
    assert await catalogue.unpurged(10) == [asset.id]


async def test_a_deleted_asset_is_gone_from_every_answer(catalogue: Catalogue) -> None:
    asset, thumb = an_asset(), a_rendition("thumb")
    await add(catalogue, asset)
    async with catalogue.transaction() as tx:
        await tx.save_findings(asset.id, 1, state="ready", facts={}, placeholder=None, renditions=[thumb])
        await tx.enqueue(NewTask("analyse", asset.id))
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    assert await catalogue.asset(asset.id) is None
    assert await catalogue.asset_at("media", asset.key) is None
    assert await catalogue.source(asset.id) is None
    assert await catalogue.source(asset.id, "thumb") is None
    assert await catalogue.assets_with(asset.blob.sha256, 10) == []
    assert await catalogue.assets(AssetQuery("media")) == AssetPage([], [])
    assert [task.kind for task in await catalogue.tasks_of(asset.id)] == ["purge"]
    assert {record.blob.id for record in await catalogue.doomed_blobs()} == {asset.blob.id, thumb.blob.id}
    assert await usage(catalogue) == Usage()
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.delete_asset(asset.id)


async def test_a_patch_changes_what_the_uploader_said_and_no_more(catalogue: Catalogue, clock: Any) -> None:
    asset = an_asset()
    await add(catalogue, asset)
    said = replace(asset, name="new", tags=("t",), metadata={"a": "b"}, expires_at=clock.now + 5)
    async with catalogue.transaction() as tx:
        await tx.save_asset(replace(said, state="damaged", media_type="text/plain"))
    assert await catalogue.asset(asset.id) == said
    async with catalogue.transaction() as tx:
        await tx.set_asset_state(asset.id, "quarantined")
    assert (await catalogue.asset(asset.id)).state == "quarantined"  # type: ignore[union-attr]
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.save_asset(an_asset())
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.set_asset_state(new_asset_id(), "ready")


async def test_what_has_expired_is_shown_to_nobody_but_the_sweep(catalogue: Catalogue, clock: Any) -> None:
    asset = an_asset(expires_at=clock.now + 10)
    await add(catalogue, asset)
    assert await catalogue.source(asset.id) is not None
    clock.now += 10
    assert await catalogue.asset(asset.id) is None
    assert await catalogue.asset_at("media", asset.key) is None
    assert await catalogue.source(asset.id) is None
    assert await catalogue.source_at("media", asset.key) is None
    assert await catalogue.assets_with(asset.blob.sha256, 10) == []
    assert (await catalogue.assets(AssetQuery("media"))).assets == []
    assert (await catalogue.assets(AssetQuery("media", delimiter="/"))).assets == []
    assert await catalogue.expired(clock.now, 10) == [asset.id]
    assert await usage(catalogue) == Usage(10, 1)
    async with catalogue.transaction() as tx:
        assert await tx.asset(asset.id) == await tx.asset_at("media", asset.key) == asset
        await tx.delete_asset(asset.id)
    assert await catalogue.expired(clock.now, 10) == []


# Blobs and intents


async def test_the_ledger_of_blobs(catalogue: Catalogue) -> None:
    assets = [an_asset(str(n)) for n in range(3)]
    await add(catalogue, *assets)
    by_id = sorted(asset.blob.id for asset in assets)
    assert [record.blob.id for record in await catalogue.blobs(limit=2)] == by_id[:2]
    assert [record.blob.id for record in await catalogue.blobs(after=by_id[1])] == by_id[2:]
    async with catalogue.transaction() as tx:
        await tx.doom_blob(by_id[0])
        await tx.forget_blobs(by_id)  # only the doomed one goes
    assert await catalogue.blob(by_id[0]) is None
    record = await catalogue.blob(by_id[1])
    assert record is not None
    assert (record.doomed, record.preset) == (False, "")
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.doom_blob(by_id[0])


async def test_doomed_blobs_without_a_purge_are_found(catalogue: Catalogue) -> None:
    asset = an_asset()
    await add(catalogue, asset)
    async with catalogue.transaction() as tx:
        await tx.delete_asset(asset.id)
    assert await catalogue.unpurged(10) == []
    (purge,) = await catalogue.outbox.claim("run", 2e9, 1)
    assert await catalogue.unpurged(10) == []
    await catalogue.outbox.fail(purge.id, "run", detail="the store said no")
    assert await catalogue.unpurged(10) == [asset.id]


async def test_an_intent_is_closed_once(catalogue: Catalogue) -> None:
    await add(catalogue)
    intent = Intent("b1", new_run_id(), "media", 100, 1)
    async with catalogue.transaction() as tx:
        await tx.open_intent(intent)
    assert await catalogue.intents() == [intent]
    assert await usage(catalogue) == Usage(0, 0, 100, 1)
    async with catalogue.transaction() as tx:
        await tx.close_intent("b1")
    assert await usage(catalogue) == Usage()
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.close_intent("b1")


async def test_a_condemned_intent_cannot_be_closed(catalogue: Catalogue) -> None:
    await add(catalogue)
    async with catalogue.transaction() as tx:
        await tx.open_intent(Intent("b1", "run", "media", 100, 1))
        await tx.condemn_intent("b1")
    async with catalogue.transaction() as tx:
        await tx.condemn_intent("b1")
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.close_intent("b1")
    assert [intent.blob_id for intent in await catalogue.intents()] == ["b1"]
    assert await usage(catalogue) == Usage()
    async with catalogue.transaction() as tx:
        await tx.drop_intent("b1")
        await tx.drop_intent("b1")
    assert await catalogue.intents() == []
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.condemn_intent("b1")


async def test_no_intent_for_a_bucket_that_is_gone(catalogue: Catalogue) -> None:
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.open_intent(Intent("b1", "run", "absent"))
    async with catalogue.transaction() as tx:
        await tx.open_intent(Intent("b2", "run"))


async def test_a_quota_holds_against_many_at_once(catalogue: Catalogue) -> None:
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("media", 1.0, quota_bytes=100))

    async def reserve(number: int) -> bool:
        async with catalogue.transaction() as tx:
            held = await tx.usage("media")
            if held.bytes + held.reserved_bytes + 60 > 100:
                return False
            await tx.open_intent(Intent(f"b{number}", "run", "media", 60, 1))
            return True

    assert sum(await asyncio.gather(*map(reserve, range(20)))) == 1
    assert await usage(catalogue) == Usage(0, 0, 60, 1)


async def test_many_writers_all_get_their_turn(catalogue: Catalogue) -> None:
    await add(catalogue)
    await asyncio.gather(*(add(catalogue, an_asset(f"{n:03}")) for n in range(50)))
    assert len((await catalogue.assets(AssetQuery("media"))).assets) == 50
    assert await usage(catalogue) == Usage(500, 50)


async def test_a_catalogue_says_that_it_can_be_written(catalogue: Catalogue) -> None:
    await add(catalogue)
    await catalogue.check()


# Listing


def model(keys: Sequence[str], query: AssetQuery) -> list[str]:
    """All entries of a listing by the definition, in order: keys, and folders as S3 folds them."""
    entries = []
    for key in sorted(keys):
        if key.startswith(query.prefix) and key.startswith(query.key_prefix):
            at = key.find(query.delimiter, len(query.prefix)) if query.delimiter else -1
            entry = key if at < 0 else key[: at + len(query.delimiter or "")]
            if entry not in entries[-1:]:
                entries.append(entry)
    return entries


def entries_of(page: AssetPage) -> list[str]:
    return sorted([*(asset.key for asset in page.assets), *page.prefixes])


async def check_listing(catalogue: Catalogue, keys: Sequence[str], query: AssetQuery) -> None:
    found = await pages(catalogue, query)
    assert [entry for page in found for entry in entries_of(page)] == model(keys, query)
    assert all(len(entries_of(page)) == query.limit for page in found[:-1])


@pytest.mark.parametrize("delimiter", [None, "/", "%", "\U0010ffff", "//"])
@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "%", "_", "\ud7ff", "😀", "\U0010ffff", "\U0010ffff/", "no"]
)
async def test_odd_keys_list_in_order_of_their_bytes(
    catalogue: Catalogue, prefix: str, delimiter: str | None
) -> None:
    await add(catalogue, *map(an_asset, ODD_KEYS))
    for limit in (1, 2, 1000):
        await check_listing(
            catalogue, ODD_KEYS, AssetQuery("media", prefix, delimiter=delimiter, limit=limit)
        )


_texts = st.text("a/b%_\U0010ffff😀\ud7ff", max_size=6)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    keys=st.sets(_texts.filter(bool), max_size=40),
    prefix=_texts.map(lambda text: text[:2]),
    key_prefix=_texts.map(lambda text: text[:2]),
    delimiter=st.sampled_from([None, "/", "a", "%"]),
    limit=st.integers(1, 7),
)
def test_listing_agrees_with_its_definition(
    new_catalogue: Callable[[], Catalogue],
    keys: set[str],
    prefix: str,
    key_prefix: str,
    delimiter: str | None,
    limit: int,
) -> None:
    async def check() -> None:
        catalogue = new_catalogue()
        await catalogue.start()
        try:
            await add(catalogue, *map(an_asset, keys))
            await check_listing(
                catalogue, sorted(keys), AssetQuery("media", prefix, key_prefix, delimiter, limit=limit)
            )
        finally:
            await catalogue.close()

    asyncio.run(check())


async def test_folders_larger_than_a_page_are_passed_over(catalogue: Catalogue) -> None:
    keys = [f"{folder}/{n:03}" for folder in ("a", "b", "c") for n in range(150)] + ["b", "d", "e"]
    await add(catalogue, *map(an_asset, keys))
    await check_listing(catalogue, keys, AssetQuery("media", delimiter="/", limit=1))
    await check_listing(catalogue, keys, AssetQuery("media", delimiter="/"))
    await check_listing(catalogue, keys, AssetQuery("media", prefix="b/", delimiter="/", limit=7))


async def test_pages_skip_and_repeat_nothing_while_rows_come_and_go(catalogue: Catalogue) -> None:
    assets = {f"k{n:02}": an_asset(f"k{n:02}") for n in range(20)}
    await add(catalogue, *assets.values())
    seen, query = [], AssetQuery("media", limit=3)
    while True:
        page = await catalogue.assets(query)
        seen += [asset.key for asset in page.assets]
        if page.next_after is None:
            break
        query = replace(query, after=page.next_after)
        async with catalogue.transaction() as tx:  # the last one shown goes, a new one comes before it
            await tx.delete_asset(assets[seen[-1]].id)
            await tx.add_asset(an_asset(f"a{seen[-1]}"))
    assert seen == sorted(assets)


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"tag": "x"}, ["0", "1"]),
        ({"tag": "%"}, []),
        ({"tag": "ü"}, ["1"]),
        ({"media_type": "image/png"}, ["1"]),
        ({"media_type": "image/*"}, ["0", "1"]),
        ({"media_type": "image"}, []),
        ({"media_type": "imag%/*"}, []),
        ({"media_type": "image/*", "tag": "ü"}, ["1"]),
        ({"key_prefix": "2"}, ["2"]),
    ],
    ids=str,
)
async def test_filters(catalogue: Catalogue, wanted: dict[str, str], keys: list[str]) -> None:
    await add(
        catalogue,
        an_asset("0", tags=("x",)),
        an_asset("1", tags=("x", "ü"), media_type="image/png"),
        an_asset("2", media_type="imagery/png"),
    )
    assert [asset.key for asset in (await catalogue.assets(AssetQuery("media", **wanted))).assets] == keys  # type: ignore[arg-type]


@pytest.mark.parametrize("delimiter", [None, "/"])
async def test_a_filter_that_matches_few_reaches_them(catalogue: Catalogue, delimiter: str | None) -> None:
    rare = ("050", "f/150", "299")
    keys = [f"f/{n:03}" if 100 <= n < 200 else f"{n:03}" for n in range(300)]
    await add(catalogue, *(an_asset(key, tags=("rare",) if key in rare else ()) for key in keys))
    found = await pages(catalogue, AssetQuery("media", tag="rare", delimiter=delimiter, limit=1))
    expected = ["050", "299", "f/" if delimiter else "f/150"]
    assert [entry for page in found for entry in entries_of(page)] == expected


async def test_a_listed_asset_is_whole(catalogue: Catalogue) -> None:
    assets = [an_asset("a"), an_asset("b")]
    await add(catalogue, *assets)
    async with catalogue.transaction() as tx:
        await tx.save_findings(
            assets[0].id, 1, state="ready", facts={}, placeholder=None, renditions=[a_rendition("thumb")]
        )
        await tx.enqueue(NewTask("analyse", assets[1].id))
    listed = (await catalogue.assets(AssetQuery("media"))).assets
    assert listed == [await catalogue.asset(asset.id) for asset in assets]
    assert (set(listed[0].renditions), listed[1].tasks_pending) == ({"thumb"}, 1)
