"""Limits against a plain model: the bound is never passed, the books agree."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.limits.gcra import Allowed, Rate, decide
from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.limits.windows import FeedbackWindow
from postroom.mail.units import Duration

STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("abcdefghij"), st.integers(-2, 3)),
    max_size=80,
)


@given(STEPS, st.integers(0, 6))
def test_counters_agree_with_a_dictionary(
    steps: list[tuple[int, str, int]], bound: int
) -> None:
    buffer = bytearray(map_octets(3, 32))
    prepare_map(buffer)
    rows = [SharedCounters(buffer, 3, row) for row in range(3)]
    model: dict[tuple[int, str], int] = {}
    for row, key, change in steps:
        mine = model.get((row, key), 0)
        total = sum(model.get((r, key), 0) for r in range(3))
        if change > 0:
            added = rows[row].add(key, change, bound)
            assert added == (total + change <= bound)
            model[row, key] = mine + change * added
        elif mine + change >= 0 and (row, key) in model:
            rows[row].release(key, -change)
            model[row, key] = mine + change
        for other in rows:
            expected = sum(model.get((r, key), 0) for r in range(3))
            assert other.count(key) == expected


@given(
    st.lists(st.integers(0, 3_000_000), max_size=60),
    st.integers(1, 20),
    st.integers(1, 8),
)
def test_a_rate_is_never_passed(gaps: list[int], count: int, burst: int) -> None:
    rate = Rate(count, Duration(10_000_000), burst)
    now_us, tat_us, times = 10**12, 0, []
    for gap in gaps:
        now_us += gap
        verdict = decide(tat_us, now_us, rate)
        if isinstance(verdict, Allowed):
            tat_us = verdict.tat_us
            times.append(now_us)
    for i, start in enumerate(times):
        for j, end in enumerate(times[i:], start=1):
            assert (j - burst) * rate.interval_us <= end - start


@given(st.lists(st.sampled_from(["succeeded", "failed", "close"]), max_size=60))
def test_a_window_stays_within_its_bounds(steps: list[str]) -> None:
    window = FeedbackWindow(3, 9)
    for step in steps:
        getattr(window, step)()
        assert 1 <= window.limit <= 9
