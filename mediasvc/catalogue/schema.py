"""Whether a catalogue's file has the schema this code speaks; if not, `migrate` is asked to bring it there."""

import importlib
import sqlite3
from pathlib import Path

from mediasvc.core.errors import CatalogueUnavailable, StartupRefused

VERSIONS = Path(__file__).parent / "migrations" / "versions"
PATIENCE = 10.0  # seconds


def revisions() -> list[str]:
    """Every revision this code knows, oldest first: the names of the migrations begin with them."""
    return sorted(path.name[:4] for path in VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py"))


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


def revision(path: Path) -> str | None:
    """The revision of the file, None where there is nothing yet. Raises StartupRefused for what we do not know."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    try:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
        if "alembic_version" not in tables:
            if tables:
                raise StartupRefused(
                    f"{path} is a SQLite file of something else; set MEDIASVC_CATALOGUE_URL to another path"
                )
            return None
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    if found is not None and found[0] not in revisions():
        raise StartupRefused(
            f"{path} was written by a newer mediasvc (schema {found[0]}, this one knows {revisions()[-1]}); "
            "start that version, or restore the backup made before the upgrade"
        )
    return None if found is None else str(found[0])
