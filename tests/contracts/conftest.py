"""Adapters behind each door; a new one is one line here."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from mediasvc.catalogue.interface import Catalogue
from mediasvc.catalogue.sqlite import SqliteCatalogue


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def _sqlite(directory: Path, clock: Clock) -> Catalogue:
    return SqliteCatalogue(directory / "catalogue.db", clock=clock)


CATALOGUES = {"sqlite": _sqlite}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=CATALOGUES.values(), ids=CATALOGUES)
def new_catalogue(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Callable[[], Catalogue]:
    """Makes empty catalogues, not yet started."""
    numbers = count()

    def make() -> Catalogue:
        directory = tmp_path / f"catalogue-{next(numbers)}"
        directory.mkdir()
        made: Catalogue = request.param(directory, clock)
        return made

    return make


@pytest.fixture
async def catalogue(new_catalogue: Callable[[], Catalogue]) -> AsyncIterator[Catalogue]:
    made = new_catalogue()
    await made.start()
    yield made
    await made.close()
