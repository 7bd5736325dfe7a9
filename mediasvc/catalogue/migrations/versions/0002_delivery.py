"""Links, archives, what was downloaded, and what a bucket says about delivery."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("bucket", sa.Column("cors_origins", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("bucket", sa.Column("download_rate", sa.BigInteger(), nullable=True))
    op.add_column("asset", sa.Column("link_epoch", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("asset", sa.Column("downloads", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("asset", sa.Column("downloaded_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "link",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("max_downloads", sa.BigInteger(), nullable=False),
        sa.Column("begun", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("downloads", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("downloaded_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link")),
    )
    op.create_index(op.f("ix_link_asset_id"), "link", ["asset_id"], unique=False)
    op.create_index(op.f("ix_link_expires_at"), "link", ["expires_at"], unique=False)
    op.create_table(
        "archive",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("listing_start", sa.BigInteger(), nullable=False),
        sa.Column("tail_start", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive")),
    )
    op.create_index(op.f("ix_archive_expires_at"), "archive", ["expires_at"], unique=False)
    op.create_table(
        "archive_entry",
        sa.Column("archive_id", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("listed", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("asset_id", sa.Text(), nullable=False),
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("archive_id", "start", name=op.f("pk_archive_entry")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_archive_entry_archive_id_listed"), "archive_entry", ["archive_id", "listed"], unique=False
    )
    op.create_index(op.f("ix_archive_entry_asset_id"), "archive_entry", ["asset_id"], unique=False)
