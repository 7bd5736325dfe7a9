"""The two dialects of resumable uploads behind one door: which of them a request speaks, and how it is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mediasvc.core.errors import MediasvcError
from mediasvc.core.upload import Upload
from mediasvc.ingest import draft, tus
from mediasvc.ingest.commands import Command, Limits, Reply
from mediasvc.ingest.fields import Headers


@dataclass(frozen=True, slots=True)
class Told:
    """What an error says besides its problem: headers, the problem's type, and its members."""

    headers: Mapping[str, str]
    type: str | None = None
    members: Mapping[str, Any] | None = None


class Dialect(Protocol):
    """`door` names it in the metrics. `tells_asset`: whether the answer that completes an upload is the asset.
    `length_ends`: whether an upload is complete as soon as its length is there."""

    door: ClassVar[str]
    tells_asset: ClassVar[bool]
    length_ends: ClassVar[bool]

    def read(self, method: str, *, creating: bool) -> Command: ...
    def informed(self, location: str, limits: Limits) -> Mapping[str, str] | None:
        """The headers of a 104, where this client can take one."""

    def created(self, upload: Upload, location: str, limits: Limits) -> Reply: ...
    def appended(self, upload: Upload) -> Reply: ...
    def inspected(self, upload: Upload, limits: Limits) -> Reply: ...
    def discarded(self) -> Reply: ...
    def described(self, limits: Limits) -> Reply: ...
    def completed(self, upload: Upload, location: str) -> Mapping[str, str]: ...
    def on_error(self, error: MediasvcError, limits: Limits) -> Told: ...


@dataclass(frozen=True, slots=True)
class Tus:
    """`at`: the URLs where uploads begin, as `tus.read` takes them."""

    headers: Headers
    at: Sequence[str] = ()
    door: ClassVar[str] = "tus"
    tells_asset: ClassVar[bool] = False
    length_ends: ClassVar[bool] = True

    def read(self, method: str, *, creating: bool) -> Command:
        return tus.read(method, self.headers, creating=creating, at=self.at)

    def informed(self, location: str, limits: Limits) -> Mapping[str, str] | None:
        return None

    def created(self, upload: Upload, location: str, limits: Limits) -> Reply:
        return tus.created(upload, location, limits)

    def appended(self, upload: Upload) -> Reply:
        return tus.appended(upload)

    def inspected(self, upload: Upload, limits: Limits) -> Reply:
        return tus.inspected(upload)

    def discarded(self) -> Reply:
        return tus.discarded()

    def described(self, limits: Limits) -> Reply:
        return tus.described(limits)

    def completed(self, upload: Upload, location: str) -> Mapping[str, str]:
        return {}

    def on_error(self, error: MediasvcError, limits: Limits) -> Told:
        return Told(tus.on_error(error, limits))


@dataclass(frozen=True, slots=True)
class Draft:
    headers: Headers
    door: ClassVar[str] = "draft"
    tells_asset: ClassVar[bool] = True
    length_ends: ClassVar[bool] = False

    def read(self, method: str, *, creating: bool) -> Command:
        return draft.read(method, self.headers, creating=creating)

    def informed(self, location: str, limits: Limits) -> Mapping[str, str] | None:
        return draft.informed(location, limits, self._version) if draft.may_inform(self.headers) else None

    def created(self, upload: Upload, location: str, limits: Limits) -> Reply:
        return draft.created(upload, location, limits, self._version)

    def appended(self, upload: Upload) -> Reply:
        return draft.appended(upload, self._version)

    def inspected(self, upload: Upload, limits: Limits) -> Reply:
        return draft.inspected(upload, limits, self._version)

    def discarded(self) -> Reply:
        return draft.discarded()

    def described(self, limits: Limits) -> Reply:
        return draft.described(limits, self._version)

    def completed(self, upload: Upload, location: str) -> Mapping[str, str]:
        return draft.completed(upload, self._version, location)

    def on_error(self, error: MediasvcError, limits: Limits) -> Told:
        return Told(*draft.on_error(error, self._version, limits=limits))

    @property
    def _version(self) -> int:
        return draft.version(self.headers)


def dialect_of(headers: Headers, at: Sequence[str] = ()) -> Dialect:
    """tus for whoever says so; everybody else is answered in the words of the draft, which are plain HTTP."""
    return Tus(headers, at) if tus.spoken(headers) else Draft(headers)
