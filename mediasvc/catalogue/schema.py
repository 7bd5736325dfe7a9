"""Whether a catalogue's file has the schema this code speaks; if not, `migrate` is asked to bring it there."""

import importlib
import sqlite3
from pathlib import Path

from mediasvc.catalogue.revisions import revision, revisions
from mediasvc.core.errors import CatalogueUnavailable, StartupRefused


def bring_up_to_date(path: Path) -> None:
    """Make the catalogue, or migrate it, unless it is current. Blocks.

    Raises StartupRefused where the file is not ours, or newer than this code; CatalogueUnavailable where
    another process holds it.
    """
    try:
        if revision(path) == revisions()[-1]:
            return
        # Alembic takes 0.2 s and 10 MB: it is loaded only by the start that has something to migrate.
        importlib.import_module("mediasvc.catalogue.migrate").upgrade(path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise CatalogueUnavailable(f"{path} is locked by another process") from error
        raise StartupRefused(f"{path} cannot be opened as the catalogue: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StartupRefused(
            f"{path} is not a catalogue ({error}); move it away or set MEDIASVC_CATALOGUE_URL"
        ) from error
    except OSError as error:
        raise StartupRefused(f"{path} cannot be opened as the catalogue: {error.strerror}") from error
