"""Bring a catalogue's file to the newest schema, under a lock: any number of processes may start at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mediasvc.catalogue.revisions import VERSIONS, revision, revisions


def upgrade(path: Path) -> None:
    """Run the missing migrations in one transaction: a death half-way leaves the old schema. Blocks.

    Raises OSError, sqlite3.Error and StartupRefused.
    """
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _locked(path.with_name(path.name + ".lock")):
        # Made by us and not by SQLite, so that nobody else can read it; its log takes over the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if revision(path) != revisions()[-1]:
            _migrate(path)
        # The name too must survive a power cut, and that of the directory where it is new.
        for directory in (path.parent, path.parent.parent):
            _sync(directory)


def _migrate(path: Path) -> None:
    engine = sa.create_engine(
        f"sqlite:///{path}", connect_args={"isolation_level": None, "timeout": 10}, poolclass=NullPool
    )
    sa.event.listen(engine, "connect", _prepare)
    # sqlite3 would commit before each CREATE; a transaction of our own holds them all together.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        engine.dispose()


def _prepare(connection: sa.PoolProxiedConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


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
