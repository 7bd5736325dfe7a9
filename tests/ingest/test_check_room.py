"""What does not fit is known from its announced length, and asking reserves nothing."""

import os

import pytest

from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import QuotaExceeded, StoreFull
from mediasvc.ingest.admission import Admission, Wanted
from mediasvc.ingest.receive import Receiver
from tests.ingest.conftest import Place, body

pytestmark = pytest.mark.anyio

LIMITS = {"bytes": {"quota_bytes": 100}, "assets": {"quota_assets": 1}}


def admission(bucket: Bucket, length: int | None, key: str = "x") -> Admission:
    return Admission(Wanted(bucket.name, key, key, replace=True, length=length), bucket, None)


def receiver(place: Place) -> Receiver:
    keeper = place.keeper()
    return Receiver(
        place.catalogue, keeper, clock=place.clock, derives=lambda _: False, why_not=lambda _: "no need"
    )


async def bucket(place: Place, **policy: int) -> Bucket:
    made = Bucket("limited", place.now, **policy)
    async with place.catalogue.transaction() as tx:
        await tx.add_bucket(made)
    return made


async def test_what_is_longer_than_the_quota_has_room_for_is_refused(place: Place) -> None:
    limited = await bucket(place, quota_bytes=100)
    await receiver(place).receive(admission(limited, 60, "there"), body(b"x" * 60))
    await receiver(place).check_room(admission(limited, 40))
    await receiver(place).check_room(admission(limited, 100, "there"))  # what it replaces is free again
    with pytest.raises(QuotaExceeded):
        await receiver(place).check_room(admission(limited, 41))


async def test_one_asset_too_many_is_refused_whatever_its_length(place: Place) -> None:
    limited = await bucket(place, quota_assets=0)
    with pytest.raises(QuotaExceeded):
        await receiver(place).check_room(admission(limited, None))


@pytest.mark.parametrize("policy", LIMITS.values(), ids=LIMITS)
async def test_asking_reserves_nothing(place: Place, policy: dict[str, int]) -> None:
    limited = await bucket(place, **policy)
    for _ in range(3):
        await receiver(place).check_room(admission(limited, 100))
    assert await place.catalogue.intents() == []
    await receiver(place).receive(admission(limited, 100), body(b"x" * 100))


@pytest.mark.parametrize("policy", [{}, {"quota_bytes": 1 << 60}], ids=["no quota", "quota"])
async def test_what_the_disk_cannot_hold_is_refused(place: Place, policy: dict[str, int]) -> None:
    limited = await bucket(place, **policy)
    disk = os.statvfs(place.folder)
    await receiver(place).check_room(admission(limited, disk.f_bavail * disk.f_frsize // 2))
    too_long = admission(limited, disk.f_blocks * disk.f_frsize + 1)
    with pytest.raises(StoreFull):
        await receiver(place).check_room(too_long)
    with pytest.raises(StoreFull):
        await receiver(place).receive(too_long, body(b"never read"))
    assert await place.catalogue.intents() == []
