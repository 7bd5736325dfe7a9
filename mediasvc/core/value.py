"""Values that are made for every download."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots, as the type checker sees it: it refuses every assignment to a field.

    At run time nothing does. That makes a value in a third of the time, which adds up to 3 % of a small download
    (measured); everywhere else `@dataclass(frozen=True, slots=True)` is right.
    """
    return dataclass(slots=True)(cls)
