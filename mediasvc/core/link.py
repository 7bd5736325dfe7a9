"""A link that has to be counted, and so has a row; plain links are nothing but their signed URL."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """Opens one asset until it ends or is used up. Times are seconds since the epoch.

    `url` is path and query as they were signed. `begun` counts against `max_downloads`; `downloads` and
    `downloaded_bytes` are what was seen to be delivered.
    """

    id: str
    asset_id: str
    created_at: float
    expires_at: float
    url: str
    max_downloads: int
    begun: int = 0
    downloads: int = 0
    downloaded_bytes: int = 0

    @property
    def used_up(self) -> bool:
        return self.begun >= self.max_downloads
