"""What is kept of small blobs: what is asked for often, for a second, as much as there is room for."""

import pytest

from mediasvc.web import small_blobs
from mediasvc.web.small_blobs import OFTEN, SmallBlobs


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(kept: SmallBlobs, blob_id: str, times: int = OFTEN + 1) -> bool:
    return [kept.ask(blob_id) for _ in range(times)][-1]


def test_only_what_is_asked_for_often_is_kept(clock: Clock) -> None:
    kept = SmallBlobs(clock)
    assert not ask(kept, "a", OFTEN)
    kept.keep("a", b"of a")
    assert kept.get("a") is None
    assert ask(kept, "a", 1)
    kept.keep("a", b"of a")
    assert (kept.get("a"), kept.get("b")) == (b"of a", None)
    kept.keep("b", b"of b")
    assert kept.get("b") is None, "nobody asked for that"


def test_every_second_begins_anew(clock: Clock) -> None:
    kept = SmallBlobs(clock)
    ask(kept, "a")
    kept.keep("a", b"of a")
    clock.now += 0.9
    assert ask(kept, "a", 1)
    assert kept.get("a") == b"of a"
    clock.now += 0.2
    assert not ask(kept, "b", 1)
    assert kept.get("a") is None
    assert not ask(kept, "a", OFTEN)


def test_there_is_so_much_room_for_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_blobs, "ROOM", 100)
    kept = SmallBlobs(clock)
    for second in range(2):
        for name, size in (("a", 60), ("b", 60), ("c", 40), ("d", 1)):
            ask(kept, f"{name}{second}")
            kept.keep(f"{name}{second}", bytes(size))
        assert [name for name in "abcd" if kept.get(f"{name}{second}") is not None] == ["a", "c"]
        clock.now += 1
