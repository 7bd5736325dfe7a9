"""The door to derivers: blocking code that runs in a decoder process, never in the server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mediasvc.core.recipe import Preset


class Undecodable(Exception):
    """The bytes cannot be decoded, or a limit forbids it: final for them, with the reason."""


@dataclass(frozen=True, slots=True)
class Output:
    """A rendition in a file of the workspace."""

    preset: str
    path: Path
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What one decode gave. `problem` says why the asset counts as damaged, if it does."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    placeholder: Mapping[str, str] | None = None
    outputs: Sequence[Output] = ()
    problem: str | None = None


class Deriver(Protocol):
    """Makes facts and renditions of some media types."""

    def accepts(self, media_type: str) -> bool:
        """Whether this deriver, with what is installed, can look at the type. Cheap; imports no decoder."""

    def derive(self, source: Path, media_type: str, presets: Sequence[Preset], workspace: Path) -> Findings:
        """Decode `source` once, strictly, else leniently (then `problem` is set), and write into `workspace`.

        Raises Undecodable when not even the lenient try gives a picture.
        """
