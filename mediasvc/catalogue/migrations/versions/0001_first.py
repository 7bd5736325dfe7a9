"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# A migration keeps its own copy of the types: it must make the same tables when `tables` has moved on.
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_doomed = sa.column("doomed", sa.Boolean)
DOOMED = _doomed == sa.true()
LIVING = _doomed == sa.false()


def upgrade() -> None:
    op.create_table(
        "asset",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("bucket", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("placeholder", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asset")),
        sa.UniqueConstraint("bucket", "key", name=op.f("uq_asset_bucket_key")),
    )
    op.create_index(op.f("ix_asset_expires_at"), "asset", ["expires_at"], unique=False)
    op.create_table(
        "blob",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("preset", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("doomed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
    )
    op.create_index(
        "ix_blob_doomed", "blob", ["asset_id"], unique=False, sqlite_where=DOOMED, postgresql_where=DOOMED
    )
    op.create_index(op.f("ix_blob_sha256_size"), "blob", ["sha256", "size"], unique=False)
    op.create_index(
        "uq_blob_living",
        "blob",
        ["asset_id", "version", "preset"],
        unique=True,
        sqlite_where=LIVING,
        postgresql_where=LIVING,
    )
    op.create_table(
        "bucket",
        sa.Column("name", NAME, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("max_asset_size", sa.BigInteger(), nullable=True),
        sa.Column("allowed_types", sa.JSON(), nullable=False),
        sa.Column("default_ttl", sa.Double(), nullable=True),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=True),
        sa.Column("quota_assets", sa.BigInteger(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("used_assets", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_bucket")),
    )
    op.create_table(
        "intent",
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("bucket", NAME, nullable=True),
        sa.Column("reserved_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reserved_assets", sa.BigInteger(), nullable=False),
        sa.Column("condemned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("blob_id", name=op.f("pk_intent")),
    )
    op.create_index(op.f("ix_intent_bucket"), "intent", ["bucket"], unique=False)
    op.create_index(op.f("ix_intent_run"), "intent", ["run"], unique=False)
    op.create_table(
        "key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bucket", NAME, nullable=True),
        sa.Column("prefix", NAME, nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("max_asset_size", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_key_secret_sha256")),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
    )
    op.create_index(op.f("ix_task_asset_id"), "task", ["asset_id"], unique=False)
    op.create_index(op.f("ix_task_state_not_before"), "task", ["state", "not_before"], unique=False)
