"""The bookkeeping of leases, above all against reads of a moment ago."""

import pytest

from postroom.mail.ids import to_number
from postroom.spool.leases import LeaseBook
from postroom.spool.rows import new_leases
from postroom.spool.spool import Fenced, Lease
from postroom.testing.spool import Letters


@pytest.fixture
def book() -> LeaseBook:
    return LeaseBook(7)


@pytest.fixture
def lease() -> Lease:
    new = Letters().letter("a@whizzer.test", "b@whizzer.test")
    [found] = new_leases(new, 7, 1 << 62)
    return found


def test_what_was_given_back_during_a_claim_is_not_leased_on_its_word(
    book: LeaseBook, lease: Lease
) -> None:
    number = to_number(lease.queue_id)
    book.take(number, lease)
    watch = book.watch()
    book.begin_settle(number, lease)
    book.end_settle(number, lease)
    book.release(number, lease)
    assert not book.admit(number, lease, watch)
    book.end_watch(watch)
    later = book.watch()
    assert book.admit(number, lease, later)


def test_what_an_operator_changes_is_not_leased(book: LeaseBook, lease: Lease) -> None:
    number = to_number(lease.queue_id)
    watch = book.watch()
    assert book.lock([number, 5]) == [number, 5]
    assert book.lock([number]) == []
    assert not book.admit(number, lease, watch)
    book.unlock([number])
    assert not book.admit(number, lease, watch), "the claim saw what was before"
    assert book.admit(number, lease, book.watch())
    assert book.lock([number]) == []


def test_claims_under_way_see_what_others_chose(book: LeaseBook) -> None:
    first, second = book.watch(), book.watch()
    first.choose(5, [0, 1])
    assert second.busy(5) == {0, 1}
    book.end_watch(first)
    assert second.busy(5) == set()


def test_counts_by_place(book: LeaseBook, lease: Lease) -> None:
    number = to_number(lease.queue_id)
    book.take(number, lease)
    assert book.places() == [("whizzer.test", 0, 2)]
    assert book.held_at("whizzer.test", None) == 2
    assert book.held_at("whizzer.test", 1) == 0
    book.release(number, lease)
    assert (book.places(), len(book)) == ([], 0)


def test_a_lease_in_the_writers_hands_is_not_settled_again(
    book: LeaseBook, lease: Lease
) -> None:
    number = to_number(lease.queue_id)
    book.take(number, lease)
    book.begin_settle(number, lease)
    with pytest.raises(Fenced):
        book.begin_settle(number, lease)
    book.end_settle(number, lease)
    book.begin_settle(number, lease)
