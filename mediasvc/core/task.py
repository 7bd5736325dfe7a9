"""One piece of background work for one asset, and when to try it again."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TaskState = Literal["waiting", "running", "done", "failed", "cancelled"]
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class NewTask:
    """Work to be done: `kind` is `analyse`, `purge` or `join`; `payload` is small JSON.

    `state` is `done` for what was decided on the spot, so that the timeline can say why nothing was made.
    """

    kind: str
    asset_id: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    state: TaskState = "waiting"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the outbox; times are seconds since the epoch. `detail` says what came of it, or why not."""

    id: str
    kind: str
    asset_id: str
    payload: Mapping[str, Any]
    state: TaskState
    attempts: int
    not_before: float
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    run: str | None = None
    detail: str = ""


def delay_before(attempt: int) -> float:
    """Seconds to wait before the attempt after number `attempt`: 1, 4, 16, 64, with jitter."""
    return float(4 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing
