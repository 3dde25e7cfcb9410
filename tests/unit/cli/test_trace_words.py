"""What happened to a message, in words for people."""

import pytest

from postroom.cli.trace_text import story_lines
from postroom.mail.address import Address
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.observe.events import AttemptDone

HOUR_US = 3_600_000_000
LATE = Deferred("4.4.1", "Connection refused by x.\x1b[2J")


@pytest.mark.parametrize(
    ("outcome", "next_us", "expected"),
    [
        pytest.param(
            Delivered("2.0.0", "Ok", "mx [192.0.2.1]"),
            0,
            "delivered (2.0.0 Ok) by mx [192.0.2.1], try 9, 5d after it came",
            id="delivered",
        ),
        pytest.param(
            Failed("5.1.1", "No"), 0, "failed (5.1.1 No), try 9, 5d after it came",
            id="failed",
        ),
        pytest.param(
            LATE, 0, "given up (4.4.1 Connection refused by x.?[2J), try 9, 5d after"
            " it came", id="expired",
        ),
        pytest.param(
            LATE, 130 * HOUR_US, "deferred (4.4.1 Connection refused by x.?[2J), try 9,"
            " 5d after it came, next 1970-01-0", id="deferred",
        ),
    ],
)  # fmt: skip
def test_an_attempt(outcome: Outcome, next_us: int, expected: str) -> None:
    joe = Address("joe", "whizzer.test")
    event = AttemptDone(
        0, QueueId("0Abcdefghij"), joe, outcome, "smtp", 9, 120 * HOUR_US, 0, next_us
    )
    (line,) = story_lines([event])
    assert f"  to <joe@whizzer.test>: {expected}" in line
