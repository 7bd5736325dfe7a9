"""What every catalogue promises about an upload: one holds it, its offset only grows, and it ends once."""

import asyncio
from dataclasses import fields, replace
from typing import Any

import pytest

from mediasvc.catalogue.interface import Catalogue, Gone, Intent
from mediasvc.core.errors import Conflict, OffsetMismatch, Superseded
from mediasvc.core.ids import new_asset_id, new_blob_id, new_upload_id
from mediasvc.core.upload import Upload, UploadState
from tests.contracts.uploads import ENDED, NOW, UNDER_WAY, add, added, an_upload, claim, end, save

pytestmark = pytest.mark.anyio

# As it was said


async def test_an_upload_comes_back_as_it_was_added(catalogue: Catalogue) -> None:
    upload = Upload(
        id=new_upload_id(),
        owner="key_a",
        created_at=1.25,
        expires_at=NOW + 0.5,
        blob_id=new_blob_id(),
        asset_id=new_asset_id(),
        bucket="media",
        key="a/😀.jpg",
        name="😀.jpg",
        wanted={"media_type": "image/*", "tags": ["ü"], "metadata": {"a": None}},
        said="filename 8J+YgA==,relativePath",
        concat="final;/v1/uploads/a /v1/uploads/b",
        parts=(new_upload_id(), new_upload_id()),
        length=2**52,
        limit=2**53,
        limit_source="bucket:media",
        offset=2**40,
        notes={"upload_id": "x", "parts": [[1, "etag"]]},
        unverified=True,
        epoch=3,
        run="run_a",
        state="completing",
        created=False,
        detail="why",
    )
    assert not [field.name for field in fields(upload) if getattr(upload, field.name) == field.default]
    await add(catalogue, upload)
    assert await catalogue.upload(upload.id) == upload
    assert await catalogue.uploads(None) == [upload]
    async with catalogue.transaction() as tx:
        assert await tx.upload(upload.id) == upload
        assert await tx.upload(new_upload_id()) is None
    assert await catalogue.upload(new_upload_id()) is None


async def test_a_partial_belongs_to_no_bucket_and_may_have_no_length(catalogue: Catalogue) -> None:
    upload = await added(catalogue, bucket="", key="", asset_id="", concat="partial", length=None)
    assert await catalogue.upload(upload.id) == upload


async def test_no_upload_into_a_bucket_that_is_gone(catalogue: Catalogue) -> None:
    upload = an_upload(bucket="absent")
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.add_upload(upload)
    assert await catalogue.upload(upload.id) is None


async def test_an_upload_and_its_blob_are_taken_once(catalogue: Catalogue) -> None:
    upload = await added(catalogue)
    for taken in (an_upload(blob_id=upload.blob_id), replace(an_upload(), id=upload.id)):
        with pytest.raises(Conflict):
            await add(catalogue, taken)
    assert await catalogue.uploads(None) == [upload]


# Who holds it


async def test_a_claim_raises_the_epoch_and_names_the_run(catalogue: Catalogue, beside: Catalogue) -> None:
    upload = await added(catalogue, offset=7)
    assert await claim(catalogue, upload) == replace(upload, epoch=1, run="run_a")
    following = await claim(beside, replace(upload, epoch=1), "run_b")
    assert following == replace(upload, epoch=2, run="run_b") == await catalogue.upload(upload.id)


async def test_one_that_is_completing_can_be_claimed(catalogue: Catalogue) -> None:
    upload = await added(catalogue, state="completing")
    assert await claim(catalogue, upload) == replace(upload, epoch=1, run="run_a")


@pytest.mark.parametrize("state", ENDED)
async def test_what_is_over_cannot_be_claimed(catalogue: Catalogue, state: UploadState) -> None:
    upload = await added(catalogue, state=state)
    for absent in (upload, an_upload()):
        with pytest.raises(Gone):
            await claim(catalogue, absent)
    assert await catalogue.upload(upload.id) == upload


async def test_of_many_claims_at_once_one_wins(catalogue: Catalogue, beside: Catalogue) -> None:
    upload = await added(catalogue)
    claims = [claim(which, upload, f"run_{n}") for n in range(4) for which in (catalogue, beside)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    (won,) = [result for result in results if isinstance(result, Upload)]
    assert [type(result) for result in results].count(Gone) == 7
    assert await catalogue.upload(upload.id) == won == replace(upload, epoch=1, run=won.run)


async def test_a_writer_that_was_overtaken_changes_nothing(catalogue: Catalogue, beside: Catalogue) -> None:
    old = await claim(catalogue, await added(catalogue), "run_a")
    new = await claim(beside, old, "run_b")
    for refused in (
        save(catalogue, replace(old, offset=10), 0),
        save(catalogue, replace(old, offset=10), 5),
        end(catalogue, old),
        end(catalogue, old, state="failed", detail="no"),
    ):
        with pytest.raises(Superseded):
            await refused
    assert await catalogue.upload(old.id) == new == await beside.upload(old.id)
    await save(beside, replace(new, offset=4), 0)
    await end(beside, new)
    for refused in (save(catalogue, replace(old, offset=10), 4), end(catalogue, old)):
        with pytest.raises(Superseded):
            await refused
    ended = await catalogue.upload(old.id)
    assert ended is not None
    assert (ended.offset, ended.state, ended.run) == (4, "complete", "run_b")


async def test_a_transaction_of_one_who_was_overtaken_leaves_nothing(
    catalogue: Catalogue, beside: Catalogue
) -> None:
    old = await claim(catalogue, await added(catalogue))
    await claim(beside, old)

    async def complete() -> None:
        async with catalogue.transaction() as tx:
            await tx.open_intent(Intent("b1", "run"))
            await tx.end_upload(old.id, epoch=old.epoch, state="complete", expires_at=NOW)

    with pytest.raises(Superseded):
        await complete()
    assert await catalogue.intents() == []


# How far it has come


@pytest.mark.parametrize("state", UNDER_WAY)
async def test_what_was_saved_comes_back_and_nothing_else_changes(
    catalogue: Catalogue, beside: Catalogue, state: UploadState
) -> None:
    upload = await added(catalogue, state=state, length=None)
    saved = replace(
        upload,
        offset=2**40,
        length=2**41,
        notes={"parts": [1]},
        unverified=True,
        expires_at=NOW + 9,
        state="completing",
        detail="joining",
        created=False,
        wanted={"sha256": "ab"},
    )
    other = replace(
        saved, owner="key_b", bucket="other", key="x", asset_id="a", blob_id="b", run="run_x", limit=1
    )
    await save(catalogue, other, 0)
    assert await catalogue.upload(upload.id) == saved == await beside.upload(upload.id)


async def test_an_offset_is_taken_up_where_it_is(catalogue: Catalogue) -> None:
    upload = await added(catalogue, offset=10)
    for at_offset in (0, 9, 11):
        with pytest.raises(OffsetMismatch) as raised:
            await save(catalogue, replace(upload, offset=20), at_offset)
        assert (raised.value.offset, raised.value.provided) == (10, at_offset)
    assert await catalogue.upload(upload.id) == upload
    await save(catalogue, replace(upload, offset=20), 10)
    await save(catalogue, replace(upload, offset=20, notes={"n": 1}), 20)
    assert await catalogue.upload(upload.id) == replace(upload, offset=20, notes={"n": 1})


async def test_an_offset_never_gets_smaller(catalogue: Catalogue) -> None:
    upload = await added(catalogue, offset=10)
    with pytest.raises(ValueError, match="cannot go back"):
        await save(catalogue, replace(upload, offset=9), 10)
    assert await catalogue.upload(upload.id) == upload


async def test_of_two_that_write_on_from_one_offset_one_wins(catalogue: Catalogue, beside: Catalogue) -> None:
    upload = await added(catalogue)
    writes = [
        save(which, replace(upload, offset=n + 1), 0) for n in range(4) for which in (catalogue, beside)
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert results.count(None) == 1
    assert [type(result) for result in results].count(OffsetMismatch) == 7
    assert (await catalogue.upload(upload.id)).offset == results.index(None) // 2 + 1  # type: ignore[union-attr]


async def test_another_process_sees_each_offset_at_once(catalogue: Catalogue, beside: Catalogue) -> None:
    upload = await added(catalogue)
    for offset in range(1, 30):
        await save(catalogue, replace(upload, offset=offset), offset - 1)
        assert await beside.upload(upload.id) == replace(upload, offset=offset)


# How it ends


@pytest.mark.parametrize("state", UNDER_WAY)
@pytest.mark.parametrize(
    "ending",
    [{"state": "complete", "created": False}, {"state": "complete"}, {"state": "failed", "detail": "no"}],
    ids=["replaced", "created", "failed"],
)
async def test_an_upload_ends_once(catalogue: Catalogue, state: UploadState, ending: dict[str, Any]) -> None:
    upload, other = await added(catalogue, state=state), await added(catalogue)
    await end(catalogue, upload, expires_at=NOW + 86400, **ending)
    ended = replace(upload, expires_at=NOW + 86400, **ending)
    assert await catalogue.upload(upload.id) == ended
    for refused in (
        end(catalogue, upload, state="failed"),
        save(catalogue, replace(upload, offset=1), 0),
        claim(catalogue, upload),
    ):
        with pytest.raises(Gone):
            await refused
    assert await catalogue.upload(upload.id) == ended
    assert await catalogue.upload(other.id) == other


async def test_what_is_not_there_cannot_be_written(catalogue: Catalogue) -> None:
    absent = an_upload()
    for refused in (end(catalogue, absent), save(catalogue, absent, 0)):
        with pytest.raises(Gone):
            await refused


async def test_uploads_are_dropped_whatever_their_state(catalogue: Catalogue) -> None:
    kept = await added(catalogue)
    going = [(await added(catalogue, state=state)).id for state in (*UNDER_WAY, *ENDED)]
    async with catalogue.transaction() as tx:
        assert await tx.drop_uploads([*going, new_upload_id()]) == 4
        assert await tx.drop_uploads(going) == 0
    assert await catalogue.uploads(None) == [kept]
