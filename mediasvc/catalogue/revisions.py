"""Which schema a catalogue's file has, and which ones this code knows; read with plain sqlite3, for speed."""

import sqlite3
from pathlib import Path

from mediasvc.core.errors import StartupRefused

VERSIONS = Path(__file__).parent / "migrations" / "versions"
PATIENCE = 10.0  # seconds


def revisions() -> list[str]:
    """Every revision this code knows, oldest first: the names of the migrations begin with them."""
    return sorted(path.name[:4] for path in VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py"))


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
    if found is None:
        raise StartupRefused(f"{path} has no schema version any more; restore a backup of it")
    if found[0] not in revisions():
        raise StartupRefused(
            f"{path} was written by a newer mediasvc (schema {found[0]}, this one knows {revisions()[-1]}); "
            "start that version, or restore the backup made before the upgrade"
        )
    return str(found[0])
