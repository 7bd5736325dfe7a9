"""The order of keys, without a database."""

from hypothesis import assume, given
from hypothesis import strategies as st

from mediasvc.catalogue.listing import successor


@given(st.text("ab\ud7ff\ue000\U0010ffff", max_size=4), st.text("ab\ud7ff\ue000\U0010ffff", max_size=4))
def test_a_successor_divides_what_begins_with_the_prefix_from_what_follows(prefix: str, text: str) -> None:
    behind = successor(prefix)
    assume(text >= prefix)
    assert text.startswith(prefix) == (behind is None or text.encode() < behind.encode())


def test_nothing_lies_behind_the_last_character() -> None:
    assert successor("") is None
    assert successor("\U0010ffff") is None
    assert successor("a\U0010ffff") == "b"
    assert successor("\ud7ff") == "\ue000"
