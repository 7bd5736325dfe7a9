"""The plan of parts, to its edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediasvc.core.errors import TooLarge
from mediasvc.store.parts import LARGEST, MAX_BLOB_SIZE, MOST_PARTS, PartPlan

MIB = 1 << 20
EDGE_OF_SMALLEST = 8 * MIB * MOST_PARTS

KNOWN = {
    "nothing": (0, 8 * MIB),
    "one byte": (1, 8 * MIB),
    "as long as 10 000 smallest parts": (EDGE_OF_SMALLEST, 8 * MIB),
    "one byte more": (EDGE_OF_SMALLEST + 1, 8 * MIB + 1),
    "100 GiB": (100 << 30, 10_737_419),
    "one byte less than the largest": (MAX_BLOB_SIZE - 1, LARGEST),
    "the largest": (MAX_BLOB_SIZE, LARGEST),
}


@pytest.mark.parametrize(("length", "size"), KNOWN.values(), ids=KNOWN)
def test_a_known_length_is_cut_into_equal_parts(length: int, size: int) -> None:
    plan = PartPlan(length)
    assert {plan.size(number) for number in (1, 2, 1000, 1001, MOST_PARTS)} == {size}
    assert plan.edge == size * MOST_PARTS


UNKNOWN = [
    (1, 8), (1000, 8), (1001, 16), (2000, 16), (2001, 32), (3000, 32), (3001, 64), (4000, 64),
    (4001, 96), (5000, 96), (9999, 96), (10_000, 96),
]  # fmt: skip


@pytest.mark.parametrize(("number", "mib"), UNKNOWN)
def test_an_unknown_length_doubles_its_parts(number: int, mib: int) -> None:
    assert PartPlan(None).size(number) == mib * MIB


def test_the_edge_of_an_unknown_length_is_the_sum_of_its_parts() -> None:
    plan = PartPlan(None)
    assert plan.edge == sum(plan.size(number) for number in range(1, MOST_PARTS + 1)) == 696_000 * MIB


def test_the_largest_blob_is_10_000_of_the_largest_parts() -> None:
    assert MAX_BLOB_SIZE == 96 * MIB * 10_000


def test_what_needs_more_parts_is_refused_by_the_store() -> None:
    with pytest.raises(TooLarge) as refused:
        PartPlan(MAX_BLOB_SIZE + 1)
    assert (refused.value.limit, refused.value.limit_source) == (MAX_BLOB_SIZE, "store")


@pytest.mark.parametrize("number", [0, -1, MOST_PARTS + 1])
@pytest.mark.parametrize("length", [None, 1])
def test_there_is_no_part_beyond_the_last(length: int | None, number: int) -> None:
    with pytest.raises(ValueError, match="no multipart upload has a part"):
        PartPlan(length).size(number)


@given(st.integers(0, MAX_BLOB_SIZE))
def test_every_length_fits_into_as_few_parts_as_allowed(length: int) -> None:
    size = PartPlan(length).size(1)
    assert 8 * MIB <= size <= LARGEST
    assert size * MOST_PARTS >= length
    assert size == 8 * MIB or (size - 1) * MOST_PARTS < length
