import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.ids import (
    QUEUE_ID_LENGTH,
    QueueIds,
    birth_shard,
    from_number,
    parse_queue_id,
    to_number,
)

NOW_US = 1_795_000_000_000_000


@given(st.integers(0, (1 << 63) - 1))
def test_number_and_text_are_the_same_thing(number: int) -> None:
    text = from_number(number)
    assert to_number(text) == number
    assert parse_queue_id(text) == text
    assert len(text) == QUEUE_ID_LENGTH


@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=2, max_size=2))
def test_texts_sort_as_numbers_do(pair: list[int]) -> None:
    a, b = pair
    assert (from_number(a) < from_number(b)) == (a < b)


@given(st.lists(st.integers(NOW_US - 10**9, NOW_US + 10**9), min_size=2))
def test_ids_increase_whatever_the_clock_does(times: list[int]) -> None:
    ids = QueueIds(7)
    made = [ids.next(time) for time in times]
    assert made == sorted(set(made))
    assert {birth_shard(queue_id) for queue_id in made} == {7}


def test_ids_go_on_after_the_last_one_in_the_spool() -> None:
    last = to_number(QueueIds(3).next(NOW_US + 10**12))
    assert to_number(QueueIds(3, last).next(NOW_US)) > last


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "0123456789",
        "0123456789AB",
        "0123456789-",
        "zzzzzzzzzzz",
        "0123456789é",
    ],
)
def test_what_is_no_queue_id(text: str) -> None:
    with pytest.raises(ValueError, match="is no queue id"):
        parse_queue_id(text)
