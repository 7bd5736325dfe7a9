"""What every catalogue promises about upload tokens."""

import asyncio
from dataclasses import fields, replace
from secrets import token_hex
from typing import Any

import pytest

from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import Conflict
from mediasvc.core.upload import UploadToken

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0  # as the clock of these catalogues has it


@pytest.fixture
async def catalogue(catalogue: Catalogue) -> Catalogue:
    """One with a bucket `media`."""
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("media", 1.0))
    return catalogue


def a_token(**values: Any) -> UploadToken:
    given = {"expires_at": NOW + 60, "bucket": "media", "prefix": "", **values}
    return UploadToken(f"tok_{token_hex(8)}", token_hex(32), "key_a", created_at=1.5, **given)


async def added(catalogue: Catalogue, **values: Any) -> UploadToken:
    token = a_token(**values)
    async with catalogue.transaction() as tx:
        await tx.add_upload_token(token)
    return token


async def use(catalogue: Catalogue, token: UploadToken, now: float = NOW) -> bool:
    try:
        async with catalogue.transaction() as tx:
            await tx.use_upload_token(token.id, now)
    except Gone:
        return False
    return True


async def test_a_token_comes_back_as_it_was_added(catalogue: Catalogue) -> None:
    limits = {"max_size": 2**41, "max_count": 2**40, "allowed_types": ("image/*", "video/mp4")}
    token = await added(catalogue, prefix="a/😀", used=2, **limits)
    assert not [field.name for field in fields(token) if getattr(token, field.name) == field.default]
    plain = await added(catalogue)
    for one in (token, plain):
        assert await catalogue.upload_token_by_secret(one.secret_sha256) == one
    assert await catalogue.upload_token_by_secret("0" * 64) is None


async def test_no_token_for_a_bucket_that_is_gone(catalogue: Catalogue) -> None:
    token = a_token(bucket="absent")
    with pytest.raises(Gone):
        async with catalogue.transaction() as tx:
            await tx.add_upload_token(token)
    assert await catalogue.upload_token_by_secret(token.secret_sha256) is None


async def test_a_token_and_its_secret_are_taken_once(catalogue: Catalogue) -> None:
    token = await added(catalogue)
    for taken in (replace(a_token(), id=token.id), replace(token, id="tok_other")):
        with pytest.raises(Conflict):
            async with catalogue.transaction() as tx:
                await tx.add_upload_token(taken)
    assert await catalogue.upload_token_by_secret(token.secret_sha256) == token


async def test_a_token_is_used_up_once_by_however_many(catalogue: Catalogue, beside: Catalogue) -> None:
    token, other = await added(catalogue, max_count=3), await added(catalogue, max_count=3)
    uses = (use(which, token) for which in [catalogue, beside] * 4)
    assert sorted(await asyncio.gather(*uses)) == [False] * 5 + [True] * 3
    assert await catalogue.upload_token_by_secret(token.secret_sha256) == replace(token, used=3)
    assert await catalogue.upload_token_by_secret(other.secret_sha256) == other


async def test_a_token_without_a_limit_counts_on(catalogue: Catalogue) -> None:
    token = await added(catalogue)
    assert [await use(catalogue, token) for _ in range(5)] == [True] * 5
    assert await catalogue.upload_token_by_secret(token.secret_sha256) == replace(token, used=5)


async def test_a_use_that_is_rolled_back_does_not_count(catalogue: Catalogue) -> None:
    token = await added(catalogue, max_count=1)

    async def break_off() -> None:
        async with catalogue.transaction() as tx:
            await tx.use_upload_token(token.id, NOW)
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        await break_off()
    assert await use(catalogue, token)
    assert not await use(catalogue, token)


async def test_what_is_over_or_dropped_opens_nothing(catalogue: Catalogue, clock: Any) -> None:
    over, dropped = await added(catalogue), await added(catalogue, expires_at=NOW + 90)
    async with catalogue.transaction() as tx:
        assert await tx.drop_upload_tokens([dropped.id, "tok_absent"]) == 1
        assert await tx.drop_upload_tokens([dropped.id]) == 0
    assert await catalogue.upload_token_by_secret(dropped.secret_sha256) is None
    assert not await use(catalogue, dropped)
    assert await catalogue.upload_tokens_over(clock.now, 9) == []
    clock.now = over.expires_at
    assert await catalogue.upload_token_by_secret(over.secret_sha256) is None
    assert not await use(catalogue, over, clock.now)
    assert await catalogue.upload_tokens_over(clock.now, 9) == [over.id]


async def test_tokens_whose_time_is_over_are_found_oldest_first(catalogue: Catalogue) -> None:
    tokens = [await added(catalogue, expires_at=NOW - n) for n in range(3)]
    stale = [token.id for token in reversed(tokens)]
    assert await catalogue.upload_tokens_over(NOW, 9) == stale
    assert await catalogue.upload_tokens_over(NOW, 2) == stale[:2]


async def test_a_bucket_made_anew_is_not_open_to_the_tokens_of_the_old_one(catalogue: Catalogue) -> None:
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("other", 1.0))
    token, kept = await added(catalogue), await added(catalogue, bucket="other")
    async with catalogue.transaction() as tx:
        await tx.delete_bucket("media")
        await tx.add_bucket(Bucket("media", 2.0))
    assert await catalogue.upload_token_by_secret(token.secret_sha256) is None
    assert await catalogue.upload_token_by_secret(kept.secret_sha256) == kept
