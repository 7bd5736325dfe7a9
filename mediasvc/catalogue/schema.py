"""Bring a catalogue's file to the schema this code speaks, under a lock: any number of processes may start at once."""

import fcntl
import importlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mediasvc.catalogue.revisions import PATIENCE, revision, revisions
from mediasvc.catalogue.sqlite_connections import connect
from mediasvc.catalogue.tables import metadata
from mediasvc.core.errors import CatalogueUnavailable, StartupRefused

_VERSION = sa.Table(  # as Alembic makes it: what it looks at when the next migration comes
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def bring_up_to_date(path: Path) -> None:
    """Make the catalogue, or migrate it, unless it is current; a death half-way leaves it as it was. Blocks.

    Raises StartupRefused where the file is not ours, or newer than this code; CatalogueUnavailable where
    another process holds it.
    """
    try:
        if revision(path) == revisions()[-1]:
            return
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".lock")):
            # Made by us and not by SQLite, so that nobody else can read it; its log takes over the mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            _bring(path)
            # The name too must survive a power cut, and that of the directory where it is new.
            for directory in (path.parent, path.parent.parent):
                _sync(directory)
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


def _bring(path: Path) -> None:
    """What stands there is looked at once more: another process may have done it before we had the lock."""
    found, newest = revision(path), revisions()[-1]
    if found == newest:
        return
    with one_transaction(path) as connection:
        if found is None:
            metadata.create_all(connection)
            _VERSION.create(connection)
            connection.execute(_VERSION.insert().values(version_num=newest))
        else:
            # Alembic takes 0.2 s and 10 MB: it is loaded only by the start that has something to migrate.
            importlib.import_module("mediasvc.catalogue.migrate").upgrade(connection)


@contextmanager
def one_transaction(path: Path) -> Iterator[sa.Connection]:
    """The file, locked for writing; all that is done to it happens, or nothing. Raises sqlite3.Error."""
    engine = sa.create_engine(
        "sqlite://", creator=partial(connect, path, timeout=PATIENCE), poolclass=NullPool
    )
    # sqlite3 would commit before each CREATE; a transaction of our own holds them all together.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        engine.dispose()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
