"""How a blob is cut into the parts of an S3 multipart upload."""

from dataclasses import dataclass

from mediasvc.core.errors import TooLarge

MIB = 1 << 20
SMALLEST = 8 * MIB
LARGEST = 96 * MIB  # what memory allows, not S3
MOST_PARTS = 10_000  # S3's limit
DOUBLED_EVERY = 1000  # parts, where the length is not known

MAX_BLOB_SIZE = LARGEST * MOST_PARTS  # bytes (937.5 GiB), reached only by a body whose length is declared


@dataclass(frozen=True, slots=True)
class PartPlan:
    """The size of each part of a body whose declared length is `length`, or is not known.

    A declared length is a hint: a shorter body has fewer parts, a longer one more of the same size.
    """

    length: int | None

    def __post_init__(self) -> None:
        if self.length is not None and self.length > MAX_BLOB_SIZE:
            raise too_large(MAX_BLOB_SIZE)

    def size(self, number: int) -> int:
        """Bytes of the part of that number (from 1); the last part may be shorter."""
        if not 1 <= number <= MOST_PARTS:
            raise ValueError(f"no multipart upload has a part {number}")
        if self.length is not None:
            return max(SMALLEST, -(-self.length // MOST_PARTS))
        return min(SMALLEST << ((number - 1) // DOUBLED_EVERY), LARGEST)

    @property
    def edge(self) -> int:
        """The largest body that fits, in bytes: 679.7 GiB where the length is not known."""
        if self.length is not None:
            return self.size(1) * MOST_PARTS
        return sum(self.size(first) * DOUBLED_EVERY for first in range(1, MOST_PARTS + 1, DOUBLED_EVERY))


@dataclass(frozen=True, slots=True)
class Sequel:
    """The parts that follow `count` others of `size` bytes together, the last of which has `last` bytes.

    What is known of the whole `length` may have changed since. Parts stay equal, as some stores want them, as long
    as all of it fits.
    """

    count: int
    size: int
    last: int
    length: int | None

    @property
    def next_size(self) -> int:
        """Bytes of the next part; the last of all may be shorter."""
        if self.length is None:
            return max(self.last, PartPlan(None).size(self.count + 1))
        left = MOST_PARTS - self.count
        if not left:
            raise ValueError(f"no multipart upload has a part {self.count + 1}")
        return min(max(SMALLEST, self.last, -(-(self.length - self.size) // left)), LARGEST)

    @property
    def edge(self) -> int:
        """The largest blob that fits, in bytes."""
        if self.count == MOST_PARTS:
            return self.size
        if self.length is not None:
            return self.size + self.next_size * (MOST_PARTS - self.count)
        plan, edge = PartPlan(None), self.size
        for first in range(1, MOST_PARTS, DOUBLED_EVERY):
            count = min(max(first + DOUBLED_EVERY - 1 - self.count, 0), DOUBLED_EVERY)
            edge += count * max(self.last, plan.size(first))
        return edge


def too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the store keeps at most {limit} bytes of a body like this one", limit=limit, limit_source="store"
    )
