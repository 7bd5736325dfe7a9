"""A span: the half-open interval of bytes that code speaks of; *range* is the HTTP header."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` (included) to `stop` (excluded)."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a span: {self.start}..{self.stop}")

    @property
    def length(self) -> int:
        return self.stop - self.start
