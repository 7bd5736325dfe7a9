"""What counts as a download, and how downloads are counted.

An answer that held the first byte of an asset counts one, once anything of it was sent: a 200, or ranges that
begin at 0. So a player that fetches a film in a hundred pieces, and a client that resumes, count once. Bytes
always add up. HEAD, 304 and errors count nothing; what nginx could not send is given back to its link. Renditions
are pictures on a page and no downloads of the asset: they count for their link alone.
"""

from dataclasses import dataclass

from mediasvc.core.value import value


@dataclass(slots=True)
class Tally:
    """How often something was downloaded, and how many bytes of it went out. `returned`: downloads that were begun and
    came to nothing; a link may be used that much longer."""

    count: int = 0
    bytes: int = 0
    returned: int = 0

    def add(self, more: "Tally") -> None:
        self.count += more.count
        self.bytes += more.bytes
        self.returned += more.returned


@value
class Delivery:
    """One answer on its way out, and what it counts for.

    `link_id` is "" unless a link with a row opened the asset; `from_start`: the answer holds byte 0.
    """

    asset_id: str
    link_id: str
    original: bool
    from_start: bool

    def tally(self, sent: int, *, complete: bool) -> Tally:
        """What it adds once `sent` bytes of its body went out; an empty asset is delivered by an empty answer."""
        return Tally(int(self.from_start and (sent > 0 or complete)), sent)
