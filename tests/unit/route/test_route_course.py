"""What an alias turns out to be, chunk by chunk (RFC 3461 §5.2.7)."""

import pytest

from postroom.mail.address import Address
from postroom.mail.redirection import Redirection
from postroom.mail.reported import ReportKind
from postroom.mail.route import Route
from postroom.route.expansion import Child, Course, Expansion, Problem
from postroom.route.routing import Relay

OWNER = Address("owner-list", "gonzo.test")
RELAY = Relay(Route("smtp", "far.test"))
ONE, MANY = Redirection.ALIAS, Redirection.ALIASES
EXPANDED, DELIVERED = ReportKind.EXPANDED, ReportKind.DELIVERED


def chunk(
    own: int = 0,
    owned: int = 0,
    problems: int = 0,
    *,
    more: bool = False,
    owner: Address | None = None,
) -> Expansion:
    children = [Child(Address(f"a{i}", "far.test"), RELAY) for i in range(own)]
    children += [
        Child(Address(f"b{i}", "far.test"), RELAY, OWNER) for i in range(owned)
    ]
    found = [Problem("x", "list", "5.1.1", "no") for _ in range(problems)]
    return Expansion(tuple(children), owner, tuple(found), (), 7 if more else None)


@pytest.mark.parametrize(
    ("cursor", "chunks", "of_members", "report"),
    [
        pytest.param(0, [chunk(1)], ONE, None, id="one"),
        pytest.param(0, [chunk(2)], MANY, EXPANDED, id="two"),
        pytest.param(0, [chunk(1, problems=1)], MANY, EXPANDED, id="one-of-two"),
        pytest.param(0, [chunk(1, 1)], MANY, EXPANDED, id="one-and-a-list"),
        pytest.param(
            0, [chunk(250, more=True), chunk(1)], MANY, EXPANDED, id="one-more"
        ),
        pytest.param(
            0, [chunk(1, more=True), chunk(0)], MANY, EXPANDED, id="perhaps-more"
        ),
        pytest.param(7, [chunk(1)], MANY, EXPANDED, id="after-a-crash"),
        pytest.param(0, [chunk(0, 1)], MANY, DELIVERED, id="a-list-alone"),
        pytest.param(0, [chunk(0, 3, owner=OWNER)], MANY, DELIVERED, id="a-list"),
        pytest.param(
            7, [chunk(0, 3, owner=OWNER)], MANY, DELIVERED, id="a-list-after-a-crash"
        ),
        pytest.param(0, [chunk(problems=2)], MANY, None, id="nobody"),
        pytest.param(0, [chunk()], MANY, None, id="nothing"),
    ],
)
def test_course(
    cursor: int,
    chunks: list[Expansion],
    of_members: Redirection,
    report: ReportKind | None,
) -> None:
    course = Course(cursor)
    for each in chunks:
        course.take(each)
    assert course.of_members is of_members
    assert course.to_report is report
