"""The window that learns."""

from postroom.limits.windows import FeedbackWindow


def test_it_opens_quickly_until_the_first_failure() -> None:
    window = FeedbackWindow(2, 5)
    for expected in (3, 4, 5, 5):
        window.succeeded()
        assert window.limit == expected


def test_it_opens_slowly_after_a_failure() -> None:
    window = FeedbackWindow(4, 10)
    window.failed()
    assert window.limit == 3
    window.succeeded()
    window.succeeded()
    assert window.limit == 3
    window.succeeded()
    assert window.limit == 4


def test_it_never_closes_below_one() -> None:
    window = FeedbackWindow(2, 10)
    for _ in range(5):
        window.failed()
    assert window.limit == 1
    assert not window.proven


def test_after_closing_it_opens_quickly_again() -> None:
    window = FeedbackWindow(5, 10)
    window.failed()
    window.close()
    window.succeeded()
    window.succeeded()
    assert window.limit == 3
    assert window.proven
