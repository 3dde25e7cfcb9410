import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.units import Duration, Size


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("0s", 0),
        ("250us", 250),
        ("1ms", 1_000),
        ("90s", 90_000_000),
        ("1h30m", 5_400_000_000),
        ("5d", 432_000_000_000),
        ("2w", 1_209_600_000_000),
    ],
)
def test_durations(text: str, microseconds: int) -> None:
    assert Duration.from_text(text) == microseconds


@pytest.mark.parametrize(
    "text", ["", "5", "d", "-5d", "5 d", "5D", "1.5h", "5d3", "١s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        Duration.from_text(text)


@given(st.integers(0, 10**15))
def test_durations_are_written_as_they_are_read(microseconds: int) -> None:
    assert Duration.from_text(Duration(microseconds).to_text()) == microseconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [("0", 0), ("512", 512), ("512B", 512), ("64KiB", 65536), ("10 MB", 10_000_000)],
)
def test_sizes(text: str, octets: int) -> None:
    assert Size.from_text(text) == octets


@pytest.mark.parametrize("text", ["", "KiB", "-1", "64kib", "1.5MiB", "1e9", "64 KiB "])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        Size.from_text(text)


@given(st.integers(0, 10**13))
def test_sizes_are_written_as_they_are_read(octets: int) -> None:
    assert Size.from_text(Size(octets).to_text()) == octets
