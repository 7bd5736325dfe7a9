"""The schema, once. Times are seconds since the epoch; sizes are bytes.

Names of assets compare as bytes, as S3's do: SQLite does so by itself, PostgreSQL is told to.
"""

import sqlalchemy as sa

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Size = sa.BigInteger()
Time: sa.Double[float] = sa.Double()
Json = sa.JSON(none_as_null=True)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

bucket = sa.Table(
    "bucket",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("max_asset_size", Size),
    sa.Column("allowed_types", Json, nullable=False),
    sa.Column("default_ttl", Time),
    sa.Column("quota_bytes", Size),
    sa.Column("quota_assets", Size),
    sa.Column("cors_origins", Json, nullable=False, server_default="[]"),
    sa.Column("download_rate", Size),
    # Counted in the transaction that changes the assets: a quota must not cost a scan.
    sa.Column("used_bytes", Size, nullable=False, default=0),
    sa.Column("used_assets", Size, nullable=False, default=0),
)

asset = sa.Table(
    "asset",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("bucket", Name, nullable=False),
    sa.Column("key", Name, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("modified_at", Size, nullable=False),
    sa.Column("expires_at", Time, index=True),
    sa.Column("tags", Json, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("facts", Json, nullable=False),
    sa.Column("placeholder", Json),
    # A plain link is signed with the epoch it was made in: raising it ends them all.
    sa.Column("link_epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("downloads", Size, nullable=False, server_default="0"),
    sa.Column("downloaded_bytes", Size, nullable=False, server_default="0"),
    sa.UniqueConstraint("bucket", "key"),
    sa.Index(None, "bucket", "id"),  # the newest first
)

blob = sa.Table(
    "blob",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("asset_id", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("preset", sa.Text, nullable=False),  # "" is the original
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("size", Size, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("crc32", Size, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("doomed", sa.Boolean, nullable=False, default=False),
    sa.Index(None, "sha256", "size"),
)

living = blob.c.doomed == sa.false()
doomed = blob.c.doomed == sa.true()
# Among the living only: what is doomed waits for its purge beside the blob that took its place.
sa.Index(
    "uq_blob_living",
    blob.c.asset_id,
    blob.c.version,
    blob.c.preset,
    unique=True,
    sqlite_where=living,
    postgresql_where=living,
)
sa.Index("ix_blob_doomed", blob.c.asset_id, sqlite_where=doomed, postgresql_where=doomed)

key = sa.Table(
    "key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("secret_sha256", sa.Text, nullable=False, unique=True),
    sa.Column("hint", sa.Text, nullable=False),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("bucket", Name),
    sa.Column("prefix", Name, nullable=False),
    sa.Column("expires_at", Time),
    sa.Column("max_asset_size", Size),
    sa.Column("revoked_at", Time),
)

task = sa.Table(
    "task",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("asset_id", sa.Text, nullable=False, index=True),
    sa.Column("payload", Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("not_before", Time, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("started_at", Time),
    sa.Column("finished_at", Time),
    sa.Column("run", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, default=""),
    sa.Index(None, "state", "not_before"),
)

# Links that have to be counted; plain ones have no row.
link = sa.Table(
    "link",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("asset_id", sa.Text, nullable=False, index=True),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("expires_at", Time, nullable=False, index=True),
    sa.Column("url", sa.Text, nullable=False),  # path and query: what was signed
    sa.Column("max_downloads", Size, nullable=False),
    sa.Column("begun", Size, nullable=False, server_default="0"),  # counts against max_downloads
    sa.Column("downloads", Size, nullable=False, server_default="0"),
    sa.Column("downloaded_bytes", Size, nullable=False, server_default="0"),
)

archive = sa.Table(
    "archive",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("expires_at", Time, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # making, ready, ended
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("listing_start", Size, nullable=False),
    sa.Column("tail_start", Size, nullable=False),
)

# Found by offset, so that an answer from the middle of a large archive costs no more than one of a small archive.
archive_entry = sa.Table(
    "archive_entry",
    metadata,
    sa.Column("archive_id", sa.Text, primary_key=True),
    sa.Column("start", Size, primary_key=True),
    sa.Column("listed", Size, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", Size, nullable=False),
    sa.Column("crc32", Size, nullable=False),
    sa.Column("modified_at", Size, nullable=False),
    sa.Column("asset_id", sa.Text, nullable=False, index=True),
    sa.Column("blob_id", sa.Text, nullable=False),
    sa.Index(None, "archive_id", "listed"),
    sqlite_with_rowid=False,
)

intent = sa.Table(
    "intent",
    metadata,
    sa.Column("blob_id", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, nullable=False, index=True),
    sa.Column("bucket", Name, index=True),
    sa.Column("reserved_bytes", Size, nullable=False),
    sa.Column("reserved_assets", Size, nullable=False),
    sa.Column("condemned", sa.Boolean, nullable=False, default=False),
)

# The columns are the fields of the value, in their order.
upload = sa.Table(
    "upload",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("expires_at", Time, nullable=False, index=True),
    sa.Column("blob_id", sa.Text, nullable=False, unique=True),
    sa.Column("asset_id", sa.Text, nullable=False, index=True),
    sa.Column("bucket", Name, nullable=False),  # "" for a partial
    sa.Column("key", Name, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("wanted", Json, nullable=False),
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("concat", sa.Text, nullable=False),
    sa.Column("parts", Json, nullable=False),
    sa.Column("length", Size),
    sa.Column("limit", Size),
    sa.Column("limit_source", sa.Text, nullable=False),
    sa.Column("offset", Size, nullable=False),
    sa.Column("notes", Json, nullable=False),
    sa.Column("unverified", sa.Boolean, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created", sa.Boolean, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index(None, "owner", "state"),
    sa.Index(None, "bucket", "state"),
    sa.Index(None, "state", "id"),
)
# Not ended. Written out, so that a statement can be compiled before it is asked.
under_way = upload.c.state.in_([sa.literal_column("'open'"), sa.literal_column("'completing'")])

upload_token = sa.Table(
    "upload_token",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("secret_sha256", sa.Text, nullable=False, unique=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("bucket", Name, nullable=False),
    sa.Column("prefix", Name, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("expires_at", Time, nullable=False, index=True),
    sa.Column("max_size", Size),
    sa.Column("max_count", Size),
    sa.Column("allowed_types", Json, nullable=False),
    sa.Column("used", Size, nullable=False),
)
