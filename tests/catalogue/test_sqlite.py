"""What only the embedded catalogue can go through: other processes, a lock, a full disk, a failing sync."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite

from mediasvc.catalogue import sqlite_connections
from mediasvc.catalogue.interface import AssetQuery, Intent
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.catalogue.statements import USAGE
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import CatalogueUnavailable, StoreFull

pytestmark = pytest.mark.anyio

_WRITE = """
import asyncio, os, sys
from pathlib import Path
from mediasvc.catalogue.interface import Intent
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.access import Key

async def main():
    catalogue = SqliteCatalogue(Path(sys.argv[1]))
    await catalogue.start()
    name, number, end = sys.argv[2], int(sys.argv[3]), sys.argv[4]
    for n in range(number):
        async with catalogue.transaction() as tx:
            await tx.add_key(Key(f"key_{name}{n:03}", f"{name}{n:03}", "", frozenset(), 1.0))
            await tx.open_intent(Intent(f"{name}{n:03}", "run"))
            if end == "inside" and n == number - 1:
                os.kill(os.getpid(), 9)
        print(n, flush=True)
    os.kill(os.getpid(), 9) if end == "after" else await catalogue.close()

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


@pytest.fixture
async def catalogue(path: Path) -> AsyncIterator[SqliteCatalogue]:
    made = SqliteCatalogue(path)
    await made.start()
    yield made
    await made.close()


def writing(path: Path, name: str, number: int, end: str = "close") -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", _WRITE, str(path), name, str(number), end]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


async def open_intents(catalogue: SqliteCatalogue, *blob_ids: str) -> None:
    async with catalogue.transaction() as tx:
        for blob_id in blob_ids:
            await tx.open_intent(Intent(blob_id, "run"))


async def test_processes_write_side_by_side_and_see_one_another(
    catalogue: SqliteCatalogue, path: Path
) -> None:
    others = [writing(path, name, 30) for name in ("a", "b")]
    await asyncio.gather(*(open_intents(catalogue, f"own{n:03}") for n in range(60)))
    for other in others:
        await asyncio.to_thread(other.communicate)
        assert other.returncode == 0
    assert len(await catalogue.intents()) == 120
    assert len(await catalogue.keys()) == 60
    assert await catalogue.key_by_secret("a029") is not None


@pytest.mark.parametrize(("end", "kept"), [("inside", 4), ("after", 5)])
async def test_a_process_killed_leaves_whole_transactions(
    catalogue: SqliteCatalogue, path: Path, end: str, kept: int
) -> None:
    killed = writing(path, "a", 5, end)
    out, _ = await asyncio.to_thread(killed.communicate)
    assert killed.returncode == -signal.SIGKILL
    assert len(out.split()) == kept
    assert len(await catalogue.keys()) == len(await catalogue.intents()) == kept
    await open_intents(catalogue, "next")


async def test_a_restart_after_a_kill_finds_what_was_committed(path: Path) -> None:
    killed = writing(path, "a", 5, "after")
    await asyncio.to_thread(killed.communicate)
    catalogue = SqliteCatalogue(path)
    await catalogue.start()
    assert len(await catalogue.intents()) == 5
    await catalogue.close()


async def test_a_writer_waits_for_another_process(catalogue: SqliteCatalogue, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(open_intents(catalogue, "b1"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert await catalogue.bucket("absent") is None  # reads go on
    other.execute("ROLLBACK")
    other.close()
    await waiting


async def test_a_lock_held_too_long_is_a_catalogue_that_is_away(
    catalogue: SqliteCatalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "PATIENCE", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in (open_intents(catalogue, "b1"), catalogue.check()):
        with pytest.raises(CatalogueUnavailable):
            await call
    other.execute("ROLLBACK")
    other.close()
    await open_intents(catalogue, "b1")
    await catalogue.check()


async def test_a_writer_that_gives_up_waiting_does_so_at_once(catalogue: SqliteCatalogue, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(open_intents(catalogue, "b1"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=5)
    assert done
    other.execute("ROLLBACK")
    other.close()
    await open_intents(catalogue, "b2")
    assert [intent.blob_id for intent in await catalogue.intents()] == ["b2"]


async def test_a_full_disk_is_told_and_later_writes_go_on(catalogue: SqliteCatalogue) -> None:
    await limit_pages(catalogue, 1)  # SQLite takes the pages there are
    with pytest.raises(StoreFull):
        await open_intents(catalogue, *(f"{n:032}" * 10 for n in range(100)))
    await limit_pages(catalogue, 2**30)
    await open_intents(catalogue, "b1")
    assert [intent.blob_id for intent in await catalogue.intents()] == ["b1"]


async def limit_pages(catalogue: SqliteCatalogue, pages: int) -> None:
    """As a full disk: SQLite answers both with SQLITE_FULL."""
    connection = catalogue._writer._connection()
    await catalogue._writer._run(lambda: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").close())


async def test_a_catalogue_that_is_not_open_says_so(path: Path) -> None:
    with pytest.raises(CatalogueUnavailable):
        await SqliteCatalogue(path).bucket("media")


async def test_a_top_level_is_listed_in_few_statements(
    catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("media", 1.0))
        for n in range(2000):
            blob = Blob(f"{n:032}", 1, "ab" * 32, 0)
            key = f"folder/{n:05}" if n else "zebra"
            await tx.add_asset(Asset(f"ast_{n}", "media", key, key, blob, "text/plain", "ready", 1.0, 1))
    asked = 0
    rows = catalogue._readers.rows

    async def counted(statement: object) -> object:
        nonlocal asked
        asked += 1
        return await rows(statement)  # type: ignore[arg-type]

    monkeypatch.setattr(catalogue._readers, "rows", counted)
    page = await catalogue.assets(AssetQuery("media", delimiter="/"))
    assert (list(page.prefixes), [asset.key for asset in page.assets]) == (["folder/"], ["zebra"])
    assert asked <= 3


LOOKED_UP = {
    "_SOURCE": "asset",
    "_SOURCE_AT": "asset",
    "_KEY_BY_SECRET": "key",
    "_ASSET": "asset",
    "_ASSET_AT": "asset",
    "_TASKS_OF": "task",
    "_UPLOAD": "upload",
    "_UPLOAD_OF_BLOB": "upload",
    "_PROMISED": "upload",
    "_UPLOAD_TOKEN_BY_SECRET": "upload_token",
}


@pytest.mark.parametrize("statement", LOOKED_UP)
async def test_what_is_asked_on_the_loop_is_looked_up_by_index(
    catalogue: SqliteCatalogue, path: Path, statement: str
) -> None:
    question = getattr(sys.modules[SqliteCatalogue.__module__], statement)
    plan = planned(path, question._sql)
    assert any(step.startswith(f"SEARCH {LOOKED_UP[statement]} USING") for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") and "CONSTANT" not in step], plan


async def test_what_a_bucket_holds_costs_no_scan(catalogue: SqliteCatalogue, path: Path) -> None:
    plan = planned(path, str(USAGE.compile(dialect=sqlite.dialect(paramstyle="named"))))
    assert any("ix_upload_bucket_state (bucket=? AND state=?)" in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN")], plan


def planned(path: Path, statement: str) -> list[str]:
    """How SQLite goes about it, step by step."""
    values: dict[str, None] = defaultdict(lambda: None)
    connection = sqlite3.connect(path)
    try:
        return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values)]
    finally:
        connection.close()
