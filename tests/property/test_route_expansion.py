"""Any aliases file expands, in any chunks, to the same recipients, and ends."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.dns.own import OwnNames
from postroom.mail.address import Address, AddressError
from postroom.route.drive import Waiting, answer_now
from postroom.route.expansion import Expansion
from postroom.route.facts import RouteFacts, Sources
from postroom.route.router import Router
from postroom.route.routing import Relay
from postroom.route.settings import RouteSettings
from postroom.tables.aliases import parse_aliases
from postroom.tables.settings import TableSettings
from postroom.tables.table import LineError

NAMES = [f"n{number}" for number in range(8)]
ENDS = ["u1", "u2", "u1+x", "x@w.test", "X@W.test", "nosuch", "|prog", "/file", "\\n1"]
ALIASES = st.dictionaries(
    st.sampled_from(NAMES + [f"owner-{name}" for name in NAMES[:3]]),
    st.lists(st.sampled_from(NAMES + ENDS), min_size=1, max_size=6).map(tuple),
)
ROUTER = Router(RouteSettings(), "gonzo.test", OwnNames())


class Fixed:
    """A table that is a map."""

    fault = ""

    def __init__(self, entries: dict[str, tuple[str, ...]]) -> None:
        self._entries = entries

    def get(self, key: str) -> tuple[str, ...] | None:
        return self._entries.get(key)


def facts_of(aliases: dict[str, tuple[str, ...]]) -> RouteFacts:
    users = {"u1", "u2", "n3"}
    return RouteFacts(Sources({"aliases": Fixed(aliases)}, users.__contains__))


def chunks(
    aliases: dict[str, tuple[str, ...]], limit: int, *, crash: bool
) -> list[Expansion]:
    """Expand ``n0``; with ``crash`` each chunk is made by a new walk at the cursor."""
    facts, found = facts_of(aliases), list[Expansion]()
    walk = ROUTER.walk(Address("n0", ""))
    while True:
        chunk = answer_now(walk.chunk(limit), facts)
        assert isinstance(chunk, Expansion)
        found.append(chunk)
        if chunk.cursor is None:
            return found
        if crash:
            walk = ROUTER.walk(Address("n0", ""), chunk.cursor)


@given(ALIASES, st.integers(1, 5), st.booleans())
def test_chunks_and_crashes_change_nothing(
    aliases: dict[str, tuple[str, ...]], limit: int, crash: bool
) -> None:
    (whole,) = chunks(aliases, 10_000, crash=False)
    parts = chunks(aliases, limit, crash=crash)
    assert tuple(c for part in parts for c in part.children) == whole.children
    assert tuple(p for part in parts for p in part.problems) == whole.problems
    addresses = [str(child.address) for child in whole.children]
    assert len(set(addresses)) == len(addresses)


@given(ALIASES)
def test_every_alias_leads_somewhere_or_says_why(
    aliases: dict[str, tuple[str, ...]],
) -> None:
    (whole,) = chunks(aliases, 10_000, crash=False)
    assert whole.children or whole.problems


@given(st.text(alphabet='ab:,"\\|/<>()@#+ \t\n.', max_size=120))
def test_any_text_is_an_aliases_file_or_an_error_with_a_line(text: str) -> None:
    line, entries = 1, dict[str, tuple[str, ...]]()
    try:
        entries.update(parse_aliases(text, TableSettings()).entries)
    except LineError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1
    assert all(entries.values())


LOCALS = st.text(alphabet='abu1%!@"+./|:\\ \u00e9', min_size=1, max_size=20)


@given(LOCALS, st.sampled_from(["gonzo.test", "localhost", "GONZO.test", ""]))
def test_no_spelling_of_a_local_address_relays(local: str, domain: str) -> None:
    for address in (Address(local, domain), parsed_or_none(f"{local}@{domain}")):
        if address is None or address.domain_key not in ("gonzo.test", "localhost", ""):
            continue
        routing = answer_now(ROUTER.classify(address), facts_of({}))
        assert not isinstance(routing, Relay | Waiting)


def parsed_or_none(text: str) -> Address | None:
    try:
        return Address.from_text(text)
    except AddressError:
        return None
