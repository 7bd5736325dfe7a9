"""What happened to an asset: told to whoever follows the live feed, once it is committed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """An asset was made, replaced or changed, or (`deleted`) is gone. What it is like now the catalogue knows."""

    asset_id: str
    bucket: str
    key: str
    deleted: bool = False
