"""Adapters behind each door; a new one is one line here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from mediasvc.catalogue.interface import Catalogue
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.ids import new_asset_id, new_blob_id


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
def catalogue_in(request: pytest.FixtureRequest, clock: Clock) -> Callable[[Path], Catalogue]:
    """Makes the catalogue of a directory, not yet started."""

    def make(directory: Path) -> Catalogue:
        directory.mkdir(exist_ok=True)
        made: Catalogue = request.param(directory, clock)
        return made

    return make


@pytest.fixture
def new_catalogue(catalogue_in: Callable[[Path], Catalogue], tmp_path: Path) -> Callable[[], Catalogue]:
    """Makes empty catalogues, not yet started."""
    numbers = count()
    return lambda: catalogue_in(tmp_path / f"catalogue-{next(numbers)}")


@pytest.fixture
async def catalogue(catalogue_in: Callable[[Path], Catalogue], tmp_path: Path) -> AsyncIterator[Catalogue]:
    made = catalogue_in(tmp_path / "catalogue")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def beside(
    catalogue: Catalogue, catalogue_in: Callable[[Path], Catalogue], tmp_path: Path
) -> AsyncIterator[Catalogue]:
    """The same catalogue, opened once more, as another process has it open."""
    made = catalogue_in(tmp_path / "catalogue")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def add_asset(catalogue: Catalogue) -> Callable[[], Awaitable[Asset]]:
    """Adds another small asset to the bucket `media`, which it makes where there is none."""

    async def add() -> Asset:
        blob = Blob(new_blob_id(), 10, "ab" * 32, 7)
        asset = Asset(new_asset_id(), "media", new_blob_id(), "name", blob, "text/plain", "ready", 1.5, 2)
        async with catalogue.transaction() as tx:
            if await tx.bucket("media") is None:
                await tx.add_bucket(Bucket("media", 1.0))
            await tx.add_asset(asset)
        return asset

    return add
