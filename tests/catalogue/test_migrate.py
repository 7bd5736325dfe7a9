"""How a catalogue's file comes to be, and to the newest schema."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mediasvc.catalogue.migrate import upgrade
from mediasvc.catalogue.revisions import VERSIONS, revision, revisions
from mediasvc.catalogue.schema import bring_up_to_date, one_transaction
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.catalogue.tables import metadata
from mediasvc.core.errors import CatalogueUnavailable, StartupRefused

_START = """
import asyncio, sys
from pathlib import Path
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.bucket import Bucket

async def main():
    catalogue = SqliteCatalogue(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    await catalogue.start()
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket(sys.argv[2], 1.0))
    await catalogue.close()

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "catalogue.db"


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    finally:
        connection.close()


def old(path: Path, revision: str) -> None:
    """A catalogue as a mediasvc of that revision left it."""
    path.parent.mkdir()
    with one_transaction(path) as connection:
        upgrade(connection, revision)


def schema(path: Path) -> dict[tuple[str, str], list[str]]:
    """What each thing was made with, piece by piece: a column added later stands elsewhere."""
    connection = sqlite3.connect(path)
    try:
        made = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    finally:
        connection.close()
    return {
        (kind, name): sorted(piece.strip() for piece in (sql or "").split(",")) for kind, name, sql in made
    }


@pytest.mark.parametrize("since", revisions()[:-1])
def test_the_migrations_make_what_a_first_start_makes(path: Path, tmp_path: Path, since: str) -> None:
    old(path, since)
    assert revision(path) == since
    bring_up_to_date(path)
    first = tmp_path / "first" / "catalogue.db"
    bring_up_to_date(first)
    assert schema(path) == schema(first)
    assert revision(path) == revision(first) == revisions()[-1]


def test_the_schema_is_that_of_the_tables(path: Path) -> None:
    bring_up_to_date(path)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []


def test_the_revisions_are_those_of_alembic() -> None:
    script = ScriptDirectory(str(VERSIONS.parent))
    assert [step.revision for step in script.walk_revisions()][::-1] == revisions()


def test_nobody_else_can_read_the_files(path: Path) -> None:
    async def use() -> set[int]:
        catalogue = SqliteCatalogue(path)
        await catalogue.start()
        await catalogue.check()
        modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        await catalogue.close()
        return modes

    old = os.umask(0)
    try:
        assert asyncio.run(use()) == {0o600}
    finally:
        os.umask(old)


@pytest.mark.parametrize("start", ["first", "second"])
def test_a_start_with_nothing_to_migrate_does_not_load_alembic(path: Path, start: str) -> None:
    if start == "second":
        bring_up_to_date(path)
    code = (
        "import sys; from pathlib import Path; import mediasvc.catalogue.sqlite as s;"
        "s.bring_up_to_date(Path(sys.argv[1])); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_six_processes_that_start_at_once_all_come_up(path: Path) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", _START, str(path), f"bucket-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for n in range(6)
    ]
    for start in starts:
        assert start.stdout is not None
        assert start.stdout.readline() == b"ready\n"
    for start in starts:
        assert start.stdin is not None
        start.stdin.write(b"go\n")
        start.stdin.flush()
    failures = [start.communicate(timeout=60)[1].decode() for start in starts]
    assert [start.returncode for start in starts] == [0] * 6, failures

    async def names() -> list[str]:
        catalogue = SqliteCatalogue(path)
        await catalogue.start()
        found = [bucket.name for bucket in await catalogue.buckets()]
        await catalogue.close()
        return found

    assert asyncio.run(names()) == [f"bucket-{n}" for n in range(6)]


@pytest.mark.parametrize(
    ("since", "statement"),
    [
        (None, "CREATE TABLE upload "),
        (None, "INTO alembic_version "),
        *((since, "CREATE TABLE upload ") for since in revisions()[:-1]),
        *((since, "UPDATE alembic_version ") for since in revisions()[:-1]),
    ],
)
def test_a_start_killed_half_way_leaves_the_old_schema(path: Path, since: str | None, statement: str) -> None:
    if since is not None:
        old(path, since)
    before = tables(path) if since else set()
    code = (
        "import os, sys, sqlalchemy as sa; from pathlib import Path; import mediasvc.catalogue.sqlite as s\n"
        "def kill(connection, cursor, statement, *rest):\n"
        f"    if {statement!r} in statement: os.kill(os.getpid(), 9)\n"
        "sa.event.listen(sa.Engine, 'after_cursor_execute', kill)\n"
        "s.bring_up_to_date(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert tables(path) == before
    assert revision(path) == since
    bring_up_to_date(path)
    assert revision(path) == revisions()[-1]
    assert tables(path) >= set(metadata.tables)


def test_an_empty_file_of_a_start_that_was_killed_is_used(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o600)
    bring_up_to_date(path)
    assert tables(path) >= set(metadata.tables)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "newer mediasvc"),
        ("DELETE FROM alembic_version", "no schema version"),
    ],
)
def test_a_catalogue_of_a_version_we_do_not_know_is_refused(path: Path, change: str, told: str) -> None:
    bring_up_to_date(path)
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(StartupRefused, match=told):
        bring_up_to_date(path)


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(StartupRefused, match="not a catalogue"):
        bring_up_to_date(path)
    assert path.read_bytes() == b"dear diary, " * 1000


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE diary (entry)")
    connection.close()
    with pytest.raises(StartupRefused, match="something else"):
        bring_up_to_date(path)
    assert tables(path) == {"diary"}


@pytest.mark.parametrize("inside", ["a directory", "a file"])
def test_a_path_that_cannot_be_a_catalogue_is_refused(path: Path, inside: str) -> None:
    if inside == "a directory":
        path.mkdir(parents=True)
    else:
        path.parent.write_bytes(b"")
    with pytest.raises(StartupRefused, match=r"catalogue\.db"):
        bring_up_to_date(path)


def test_a_locked_catalogue_is_away_not_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_up_to_date(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("mediasvc.catalogue.revisions.PATIENCE", 0.01)
    try:
        with pytest.raises(CatalogueUnavailable):
            bring_up_to_date(path)
    finally:
        holder.close()
