"""Alembic, asked to run what a catalogue has missed since its revision."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mediasvc.catalogue.revisions import VERSIONS


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Run the missing migrations on a connection whose transaction its caller ends. Blocks."""
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
