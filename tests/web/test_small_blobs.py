"""What is kept of small blobs: the bytes that were given, no more of them than there is room for."""

from mediasvc.web.small_blobs import SmallBlobs

KIB = 1024


def test_what_is_kept_is_given_back_and_nothing_else() -> None:
    kept = SmallBlobs()
    assert kept.get("a") is None
    kept.keep("a", b"of a")
    kept.keep("b", b"of b")
    kept.keep("a", b"of a")
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (b"of a", b"of b", None)


def test_what_was_asked_for_last_stays() -> None:
    kept = SmallBlobs(room=4 * 65 * KIB)
    for name in "abcd":
        kept.keep(name, bytes(64 * KIB))
    kept.get("a")
    kept.keep("e", bytes(64 * KIB))
    assert [name for name in "abcde" if kept.get(name) is not None] == ["a", "c", "d", "e"]


def test_a_thousand_that_are_empty_take_room_as_well() -> None:
    kept = SmallBlobs(room=64 * KIB)
    for number in range(1000):
        kept.keep(str(number), b"")
    assert 64 < sum(kept.get(str(number)) is not None for number in range(1000)) <= 128


def test_what_makes_room_is_counted_once() -> None:
    kept = SmallBlobs(room=64 * KIB)
    for number in range(100):
        kept.keep(str(number), bytes(20 * KIB))
    assert [number for number in range(100) if kept.get(str(number)) is not None] == [97, 98, 99]
