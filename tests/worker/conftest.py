"""The same place as for what comes in."""

from tests.ingest.conftest import place

__all__ = ["place"]
