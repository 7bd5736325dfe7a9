"""Puts the rooms together; the only module that knows which adapter stands behind which door."""

import hashlib
import importlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mediasvc.catalogue.interface import Catalogue, Runs
from mediasvc.catalogue.runs import FileRuns
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.access import ADMIN_SCOPES, Key
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import Conflict, StartupRefused, Unavailable
from mediasvc.core.ids import new_key_id, new_key_secret
from mediasvc.core.signing import Signer, secrets_in
from mediasvc.deliver.receipts import Receipts
from mediasvc.deliver.ways import Ways
from mediasvc.derive import registry
from mediasvc.derive.sandbox import Sandbox
from mediasvc.feed import Feed
from mediasvc.ingest.admission import Doorkeeper
from mediasvc.ingest.keep import Keeper
from mediasvc.ingest.receive import Receiver
from mediasvc.ingest.resume import Resumer
from mediasvc.installation import find_catalogue, make_data_dir
from mediasvc.logs import log
from mediasvc.settings import Settings
from mediasvc.store.disk import sync_folder
from mediasvc.store.interface import BlobStore
from mediasvc.store.local import LocalStore
from mediasvc.store.url import parse_s3_url

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Records:
    """What every command needs: where bytes rest, what we know, and who is alive."""

    settings: Settings
    clock: Clock
    store: BlobStore
    catalogue: Catalogue
    runs: Runs
    feed: Feed


@dataclass(frozen=True, slots=True)
class House:
    """One running server, put together. `admin_secret` is the fixed admin key, where the settings give one."""

    records: Records
    run: str
    keeper: Keeper
    doorkeeper: Doorkeeper
    receiver: Receiver
    resumer: Resumer
    sandbox: Sandbox
    scratch: Path
    signer: Signer
    receipts: Receipts
    ways: Ways

    @property
    def settings(self) -> Settings:
        return self.records.settings

    @property
    def store(self) -> BlobStore:
        return self.records.store

    @property
    def catalogue(self) -> Catalogue:
        return self.records.catalogue

    @property
    def feed(self) -> Feed:
        return self.records.feed

    @property
    def admin_secret(self) -> str | None:
        key = self.settings.admin_key
        return key.get_secret_value() if key else None


def make_store(settings: Settings, *, found: bool = False) -> BlobStore:
    """The adapter that MEDIASVC_STORE_URL names. `found`: its folder must be there. Raises StartupRefused."""
    scheme, _, rest = settings.store.partition(":")
    match scheme:
        case "file" if rest:
            return LocalStore(Path(rest.removeprefix("//")).expanduser().absolute(), found=found)
        case "s3":
            # The SDK costs a third of a second and 30 MB: only who uses it pays.
            s3 = importlib.import_module("mediasvc.store.s3")
            store: BlobStore = s3.S3Store(parse_s3_url(settings.store))
            return store
    raise StartupRefused(
        f"MEDIASVC_STORE_URL must be file:PATH or s3://store-bucket?endpoint=http://host:port, not {settings.store!r}"
    )


@asynccontextmanager
async def open_records(
    settings: Settings, *, clock: Clock = time.time, need_store: bool = True, found: bool = False
) -> AsyncIterator[Records]:
    """Store and catalogue, ready to use. Raises StartupRefused; a store that is merely away is no obstacle.

    `found`: they must be there already, and nothing is made where they are not. A mistyped data directory would be
    an empty catalogue, in whose eyes every blob of a store that is elsewhere belongs to nobody.
    """
    if found:
        find_catalogue(settings)
    else:
        make_data_dir(settings.data_dir)
    runs = FileRuns(settings.beside_catalogue("runs"))
    store, feed = make_store(settings, found=found), Feed()
    catalogue = SqliteCatalogue(settings.catalogue_path, clock=clock, announce=feed.announce)
    try:
        await catalogue.start()
        try:
            if need_store:
                await store.start()
        except Unavailable as away:
            log.warning("store_away", store=settings.store.partition("?")[0], reason=away.detail)
        yield Records(settings, clock, store, catalogue, runs, feed)
    finally:
        await store.close()
        await catalogue.close()


@asynccontextmanager
async def open_house(settings: Settings, *, clock: Clock = time.time) -> AsyncIterator[House]:
    """Everything a server needs; closing it leaves nothing running. The data directory and the catalogue must be
    locked (`installation.server_lock`): one server each."""
    async with open_records(settings, clock=clock) as records:
        ways = _ways(records)
        await _first_things(records)
        signer = Signer(_link_secrets(settings))
        scratch = settings.data_dir / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        run = records.runs.begin()
        keeper = Keeper(records.store, records.catalogue, run)
        doorkeeper = Doorkeeper(
            records.catalogue,
            server_limit=settings.max_upload_size,
            store_limit=records.store.max_blob_size,
        )
        receiver = Receiver(
            records.catalogue, keeper, clock=clock, derives=registry.accepts, why_not=registry.why_not
        )
        resumer = Resumer(
            records.catalogue,
            records.store,
            doorkeeper,
            receiver,
            run,
            clock=clock,
            lifetime=settings.upload_expires,
            max_open=settings.max_open_uploads,
            durability=settings.durability,
        )
        sandbox = Sandbox(scratch)
        try:
            yield House(
                records=records,
                run=run,
                keeper=keeper,
                doorkeeper=doorkeeper,
                receiver=receiver,
                resumer=resumer,
                sandbox=sandbox,
                scratch=scratch,
                signer=signer,
                receipts=Receipts(records.catalogue, heard=settings.receipts_address is not None),
                ways=ways,
            )
        finally:
            await resumer.close()
            await sandbox.close()
            if not keeper.live:
                records.runs.end(run)


async def _first_things(records: Records) -> None:
    """The two buckets everybody starts with, made once and never again, and the admin key."""
    catalogue, now = records.catalogue, records.clock()
    marker = records.settings.data_dir / "initialised"
    if not marker.exists():
        for bucket in (Bucket("media", now), Bucket("public", now, public=True)):
            try:
                async with catalogue.transaction() as tx:
                    await tx.add_bucket(bucket)
            except Conflict:  # a start that was cut off here before
                continue
        marker.touch(mode=0o600)
    if records.settings.admin_key is None:
        await _ensure_admin_key(records)


async def _ensure_admin_key(records: Records) -> None:
    """A working admin key stands in `<data-dir>/admin.key` (0600), whatever was cut off or revoked before."""
    path, catalogue, now = records.settings.admin_key_file, records.catalogue, records.clock()
    secret = path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else ""
    if secret and await catalogue.key_by_secret(sha256_of(secret)):
        return
    secret = new_key_secret()
    temporary = path.with_suffix(".new")
    _write_secret(temporary, secret)
    # The row first: a file that is there always holds a key that works.
    async with catalogue.transaction() as tx:
        await tx.add_key(make_key(secret, name="admin", scopes=ADMIN_SCOPES, now=now))
    temporary.rename(path)
    sync_folder(path.parent)


def _ways(records: Records) -> Ways:
    settings = records.settings
    if settings.delivery == "nginx" and not settings.proxy_networks:
        log.warning("no_hand_over", reason="MEDIASVC_DELIVERY=nginx needs nginx in MEDIASVC_TRUSTED_PROXIES")
    return Ways(settings.delivery, records.store)


def _link_secrets(settings: Settings) -> list[str]:
    """What signs links: the setting's, else what `<data-dir>/secret.key` (0600) holds, made where there is none.

    Raises StartupRefused for a file that cannot be read or is not whole: a new one would end every link.
    """
    if settings.secret_key is not None:
        return secrets_in(settings.secret_key.get_secret_value())
    path = settings.secret_key_file
    try:
        if not path.exists():
            temporary = path.with_suffix(".new")
            _write_secret(temporary, secrets.token_urlsafe(32))
            temporary.rename(path)
            sync_folder(path.parent)
        return secrets_in(path.read_text(encoding="ascii", errors="replace"))
    except OSError as error:
        raise StartupRefused(f"{path} cannot be read or made: {error.strerror}") from error
    except ValueError as error:
        raise StartupRefused(
            f"{path} {error}; restore it, or delete it for a new one, which ends all links"
        ) from None


def _write_secret(path: Path, secret: str) -> None:
    """For the owner's eyes alone, and on disk when this returns."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())


def sha256_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def make_key(secret: str, *, name: str, scopes: frozenset[str], now: float) -> Key:
    return Key(new_key_id(), sha256_of(secret), secret[:8], scopes, now, name)
