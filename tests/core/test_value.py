"""Values that are made for every download."""

import pytest

from mediasvc.core.value import value


@value
class Point:
    x: int
    y: int = 0


def test_values_are_compared_by_their_fields() -> None:
    assert Point(1) == Point(1, 0) != Point(1, 2)


def test_a_value_has_no_room_for_anything_else() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 3  # type: ignore[attr-defined]
