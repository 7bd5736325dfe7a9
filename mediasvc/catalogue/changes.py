"""The door for everything that changes: `Transaction`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from mediasvc.catalogue.values import Intent
from mediasvc.core.access import Key
from mediasvc.core.archive import Archive, Member
from mediasvc.core.asset import Asset, Rendition, State
from mediasvc.core.bucket import Bucket, Usage
from mediasvc.core.link import Link
from mediasvc.core.tally import Tally
from mediasvc.core.task import NewTask
from mediasvc.core.upload import Upload, UploadToken


class Transaction(Protocol):
    """All of it happens, or none. Keep it short: writers wait for one another."""

    async def open_intent(self, intent: Intent) -> None:
        """Record that a blob is about to be written."""

    async def close_intent(self, blob_id: str) -> None:
        """Delete the intent, open and not condemned: exactly one row, else Gone."""

    async def condemn_intent(self, blob_id: str) -> None:
        """Mark the intent, so that nobody can close it any more; Gone where there is none. May be repeated."""

    async def drop_intent(self, blob_id: str) -> None:
        """Delete an intent, condemned or not, once its bytes are gone. None there: no error."""

    async def bucket(self, name: str) -> Bucket | None: ...
    async def usage(self, bucket: str) -> Usage:
        """Bytes and assets held (what has expired counts until it is swept), and reserved by open intents and by
        uploads that are open or completing: the length, or what is there of one whose length is not known, and an
        asset unless the promised one exists."""

    async def add_bucket(self, bucket: Bucket) -> None:
        """Raises Conflict where the name is taken."""

    async def save_bucket(self, bucket: Bucket) -> None:
        """Replace the policy of an existing bucket. Raises Gone."""

    async def delete_bucket(self, name: str) -> None:
        """Its upload tokens go with it. Raises Conflict while it holds assets or uploads under way (open or
        completing ones count until they are swept), Gone where there is none."""

    async def asset(self, asset_id: str) -> Asset | None:
        """The asset, expired or not."""

    async def asset_at(self, bucket: str, key: str) -> Asset | None:
        """The asset under this key, expired or not."""

    async def add_asset(self, asset: Asset) -> None:
        """Insert the asset and its original's blob row. Raises Conflict where the key is taken, Gone where
        the bucket is no more."""

    async def replace_asset(self, asset: Asset) -> None:
        """Give an asset its next version: `asset.version` is one more than the row's, else Gone.

        The blobs of the version before are doomed (renditions too), its waiting tasks cancelled.
        """

    async def save_asset(self, asset: Asset) -> None:
        """Write name, tags, metadata and expires_at of an asset (`PATCH`). Raises Gone."""

    async def save_findings(
        self,
        asset_id: str,
        version: int,
        *,
        state: State,
        facts: Mapping[str, Any],
        placeholder: Mapping[str, str] | None,
        renditions: Sequence[Rendition],
    ) -> None:
        """What a deriver found out about this version. Raises Gone where the version is not current any more."""

    async def delete_asset(self, asset_id: str) -> None:
        """Gone from every answer at once: the row goes, its tasks are cancelled and dropped, its blobs are
        doomed and a `purge` task is queued for them. Raises Gone."""

    async def doom_blob(self, blob_id: str) -> None: ...
    async def forget_blobs(self, blob_ids: Sequence[str]) -> None:
        """Delete the rows of doomed blobs whose bytes are gone."""

    async def set_asset_state(self, asset_id: str, state: State) -> None: ...

    async def enqueue(self, task: NewTask) -> str:
        """Queue work in the same transaction as what makes it necessary; gives the task's id."""

    async def add_link(self, link: Link) -> None:
        """Raises Gone where the asset is no more."""

    async def begin_download(self, link_id: str) -> None:
        """Count one download against the link's `max_downloads`. Raises Gone where it is used up, over or revoked."""

    async def drop_links(self, link_ids: Sequence[str]) -> int:
        """Delete links; gives how many there were."""

    async def end_links(self, asset_id: str) -> None:
        """End every link to the asset, with a row or without (`link_epoch` rises), and every archive that holds
        it. Raises Gone."""

    async def count_downloads(self, assets: Mapping[str, Tally], links: Mapping[str, Tally]) -> int:
        """Add to the counters of assets and links, by id; what was `returned` a link may be used once more. Gives how
        many of them are not there any more."""

    async def add_archive(self, archive: Archive) -> None:
        """Begin to make one. It ends by itself with the first of its assets that is deleted or replaced, and
        lives no longer than any of them."""

    async def add_members(self, archive_id: str, members: Sequence[Member]) -> None:
        """Some of its entries. Raises Gone where an asset is not as it was, or ends before the archive."""

    async def finish_archive(self, archive_id: str) -> None:
        """All entries are there: it may be read. Raises Gone where it ended meanwhile."""

    async def drop_archive(self, archive_id: str, limit: int) -> bool:
        """Delete at most `limit` entries of an archive that is over; True once all of it is gone."""

    async def add_upload(self, upload: Upload) -> None:
        """Raises Gone where the bucket it names is no more, Conflict where its id or its blob's is taken."""

    async def upload(self, upload_id: str) -> Upload | None:
        """The upload, over or not."""

    async def claim_upload(self, upload_id: str, *, run: str, epoch: int) -> Upload:
        """Take it over, for this `run`: its epoch rises by one, and whoever had it before changes nothing any more.
        Gives it as it is now. Raises Gone where it is over, or not at `epoch` any more: of two that claim, one wins."""

    async def save_upload(self, upload: Upload, *, at_offset: int, epoch: int) -> None:
        """Write offset, length, notes, unverified, expires_at, state, detail, created and wanted of an upload that
        is open or completing.

        `at_offset` and `epoch` are what its row has to have. Raises Superseded where the epoch is another,
        OffsetMismatch where the offset is, Gone where it is over or not there, ValueError where the offset would
        get smaller.
        """

    async def end_upload(
        self,
        upload_id: str,
        *,
        epoch: int,
        state: Literal["complete", "failed"],
        detail: str = "",
        created: bool = True,
        expires_at: float,
    ) -> None:
        """End one that is open or completing; until `expires_at` it can be asked after. Raises Superseded where the
        epoch is another, Gone where it is over already or not there."""

    async def drop_uploads(self, upload_ids: Sequence[str]) -> int:
        """Delete uploads, whatever their state; gives how many there were."""

    async def open_upload_count(self, owner: str) -> int:
        """How many of the owner's uploads are open or completing."""

    async def add_upload_token(self, token: UploadToken) -> None:
        """Raises Gone where its bucket is no more, Conflict where its id or secret is taken."""

    async def use_upload_token(self, token_id: str, now: float) -> None:
        """Count one upload against its `max_count`. Raises Gone where it is used up, over or not there."""

    async def drop_upload_tokens(self, token_ids: Sequence[str]) -> int:
        """Delete tokens; gives how many there were."""

    async def add_key(self, key: Key) -> None: ...
    async def revoke_key(self, key_id: str, now: float) -> None:
        """Raises Gone where there is no such live key."""
