"""What every part of a transaction writes rows with."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mediasvc.catalogue.interface import Gone
from mediasvc.catalogue.statements import Writer
from mediasvc.core.errors import Conflict


class Writes:
    """Over a transaction under way."""

    _writer: Writer

    async def _insert(self, table: sa.Table, values: Mapping[str, Any], taken: str) -> None:
        try:
            await self._writer.change(sa.insert(table).values(**values))
        except IntegrityError as error:
            raise Conflict(taken) from error

    async def _exactly_one(self, statement: sa.Executable, what: str) -> None:
        if await self._writer.change(statement) != 1:
            raise Gone(f"{what} is gone, or not as it was")
