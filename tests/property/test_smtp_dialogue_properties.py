"""Server, client and table stay in step, whatever is said and however it is cut."""

from itertools import product

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.mail.reply import Reply
from postroom.smtp import replies
from postroom.smtp.client import (
    BodyWanted,
    ClientConnection,
    LostConnection,
)
from postroom.smtp.dialogue import (
    ALLOWED,
    COMMANDS,
    HELLOS,
    TABLE,
    WORDLESS,
    State,
    Verb,
    next_state,
)
from postroom.smtp.server import ServerConnection
from postroom.smtp.settings import ServerSettings
from postroom.smtp.transaction import Transaction, TransactionDone
from postroom.testing.pair import Pair
from postroom.testing.site import Site
from postroom.testing.transcript import at_random, whole

SETTINGS = ServerSettings(
    errors_max=1000,
    starttls=True,
    auth_mechanisms=("PLAIN", "LOGIN"),
    etrn=True,
    verb=True,
    xclient_networks=("192.0.2.9",),
)
NAMES = ("good", "other", "unknown", "later", "failing")


def test_the_table_is_whole() -> None:
    for state, verb in product(State, Verb):
        for digit, after in TABLE[state].get(verb, {}).items():
            assert digit in (2, 3, 4, 5)
            refused = digit in (4, 5) and verb in COMMANDS and verb is not Verb.QUIT
            assert not refused or after is state, (state, verb)
    assert not TABLE[State.CLOSED]
    for state in set(State) - {State.CLOSED}:
        assert ALLOWED[state], state
        reached = {
            s for moves in TABLE.values() for r in moves.values() for s in r.values()
        }
        assert state in reached or state is State.CONNECTED
    assert ALLOWED[State.START] >= HELLOS
    assert set(COMMANDS).isdisjoint(WORDLESS)


def test_421_closes_from_anywhere() -> None:
    for state, verb in product(set(State) - {State.CLOSED}, Verb):
        assert next_state(state, verb, 421) is State.CLOSED
    assert next_state(State.CLOSED, Verb.NOOP, 421) is None


def site() -> Site:
    made = Site(SETTINGS)
    made.unknown.add("unknown@mx.example")
    made.later.add("later@mx.example")
    made.failing.add("failing@mx.example")
    made.proxy = True
    made.not_from.add("unknown@mx.example")
    return made


LINES = st.sampled_from(
    [b"EHLO c.example", b"HELO c.example", b"EHLO", b"LHLO c.example", b"RSET"]
    + [b"NOOP", b"VRFY x", b"EXPN x", b"HELP", b"DATA", b"DATA", b"FOO", b"", b"AUTH"]
    + [b"MAIL FROM:<%s@mx.example>" % name.encode() for name in NAMES[:3]]
    + [b"RCPT TO:<%s@mx.example>" % name.encode() for name in NAMES]
    + [b"AUTH PLAIN AAA=", b"AUTH PLAIN AHgAc2VjcmV0", b"AUTH LOGIN", b"*", b"eA=="]
    + [b"BDAT 3", b"BDAT 0", b"BDAT 3 LAST", b"BDAT 0 LAST", b"BDAT 3 FIRST"]
    + [b"MAIL FROM:<good@mx.example> BODY=BINARYMIME PRDR", b"VERB", b"ETRN x.example"]
    + [b"XCLIENT ADDR=192.0.2.1", b"XCLIENT ADDR=x", b"VERB x", b"ETRN"]
    + [b"x", b".", b"..", b"x\ny", b"\xff", b"MAIL FROM:<> SIZE=99999999999", b"QUIT"]
)
VERBS = {verb.value.encode(): verb for verb in COMMANDS}


@given(st.lists(LINES, max_size=30))
def test_a_bystander_with_the_table_knows_the_state(lines: list[bytes]) -> None:
    """Who sees only the commands and the replies is always where the server is."""
    here = site()
    server = here.connect()
    server.greet(here.greeting)
    state = next_state(State.CONNECTED, Verb.GREETING, 220)
    for line in lines:
        if server.is_closed:
            break
        assert state is not None
        chunked = line.startswith(b"BDAT 3") and state not in (State.DATA, State.AUTH)
        server.receive(line + b"\r\n" + b"QUI" * chunked)  # content, not a command
        here.serve(server)
        answer = server.data_to_send()
        if state is State.DATA:
            verb: Verb | None = Verb.CONTENT if line == b"." else None
        elif state is State.AUTH:
            verb = Verb.RESPONSE
        else:
            last = line.startswith(b"BDAT") and line.endswith(b"LAST")
            verb = Verb.BDAT_LAST if last else VERBS.get(line.partition(b" ")[0])
        if verb is None:
            assert state is State.DATA or answer[:1] == b"5"
        else:
            state = _after(state, verb, answer)
        assert state is server.state


def _after(state: State, verb: Verb, answer: bytes) -> State | None:
    lines = answer.split(b"\r\n")[:-1]
    codes = [int(line[:3]) for line in lines if line[3:4] == b" "]
    after = next_state(state, verb, codes[0])
    for code in codes[1:-1]:
        assert after is State.PRDR
        after = next_state(after, Verb.VERDICT, code)
    if codes[1:]:
        assert after is State.PRDR
        after = next_state(after, Verb.CONTENT, codes[-1])
    return after


TRANSACTIONS = st.lists(
    st.tuples(
        st.sampled_from(NAMES[:3]),
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=5),
        st.sampled_from([b"", b"x\r\n", b".\r\n..\r\n", b"a\nb", b"\r\r\n\n.\r\n."]),
    ),
    max_size=5,
)


@given(
    TRANSACTIONS, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 1 << 60)
)
def test_client_and_server_are_mirrors(
    transactions: list[tuple[str, list[str], bytes]],
    lmtp: bool,
    prdr: bool,
    one_by_one: bool,
    seed: int,
) -> None:
    here = site()
    here.lmtp = lmtp
    here.settings = msgspec.structs.replace(here.settings, prdr=prdr)
    pair = Pair(here, cut=at_random(seed) if seed else whole)
    pair.greet()
    for sender, names, content in transactions:
        recipients = tuple(Address(name, "mx.example") for name in names)
        pair.submit(Transaction(Address(sender, "mx.example"), recipients), content)
        if one_by_one:
            pair.pump()
            assert pair.client.is_idle
            assert pair.client.state is pair.server.state
    pair.pump()
    assert pair.client.is_idle
    assert pair.client.state is pair.server.state
    taken = iter(here.messages)
    for done, (sender, names, content) in zip(pair.done(), transactions, strict=True):
        codes = [reply.code if reply else 0 for reply in done.results]
        assert codes == _expected(sender, names, each=lmtp or prdr)
        good = [n for n, code in zip(names, codes, strict=True) if code == 250]
        if good:
            message = next(taken)
            assert [r.local for r in message.recipients] == good
            fixed = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            fixed = fixed.replace(b"\n", b"\r\n")
            if fixed and not fixed.endswith(b"\r\n"):
                fixed += b"\r\n"
            assert message.content == fixed
    assert next(taken, None) is None
    pair.client.quit()
    pair.pump()
    assert pair.client.is_closed
    assert pair.server.is_closed


def _expected(sender: str, names: list[str], *, each: bool) -> list[int]:
    if sender == "unknown":
        return [550] * len(names)
    early = {"unknown": 550, "later": 451}
    failing = "failing" in names
    return [
        early.get(name) or (554 if (name == "failing" if each else failing) else 250)
        for name in names
    ]


PIECES = (
    b"EHLO |x.example|MAIL FROM:<a@b>|RCPT TO:<c@d>|DATA|\r\n|\r\n|\r\n.\r\n|\r|\n|."
    b"|BDAT |0|5|12| LAST| BODY=BINARYMIME| PRDR| SMTPUTF8|\xc3\xa4|ETRN |XCLIENT ADDR="
    b"|\0|\xff| SIZE=1|<>|AUTH LOGIN|STARTTLS|QUIT|NOOP|GET / HTTP/1.1"
)
OCTETS = st.lists(
    st.sampled_from([*PIECES.split(b"|"), b"x" * 3000]) | st.binary(max_size=5),
    max_size=30,
).map(b"".join)


@given(OCTETS, st.integers(0, 1 << 60), st.booleans())
def test_any_octets_give_the_same_however_cut(
    octets: bytes, seed: int, lmtp: bool
) -> None:
    said = []
    for cut in (whole, at_random(seed)):
        here = site()
        here.settings = ServerSettings(auth_mechanisms=("LOGIN",))
        here.lmtp = lmtp
        server = here.connect()
        out = [server.greet(here.greeting)]
        for piece in cut(octets):
            server.receive(piece)
            here.serve(server)
            out.append(server.data_to_send())
        server.receive(b"")
        here.serve(server)
        out.append(server.data_to_send())
        said.append((b"".join(out), here.messages))
        assert server.is_closed
    assert said[0] == said[1]


REPLY_PIECES = (
    b"220 hi\r\n|250 ok\r\n|250-mx\r\n|250 PIPELINING\r\n|\r\n|354 go\r\n|450 later\r\n"
    b"|550 5.1.1 no\r\n|421 bye\r\n|25|\0|\xff|-|x\r\n|503 no\r\n|250 a\r\n250 b\r\n"
)
REPLY_OCTETS = st.lists(
    st.sampled_from(REPLY_PIECES.split(b"|")) | st.binary(max_size=3), max_size=25
)


@given(REPLY_OCTETS, st.booleans())
def test_any_server_leaves_a_result_for_each(said: list[bytes], lmtp: bool) -> None:
    client = ClientConnection("c.example", lmtp=lmtp, narrate=True)
    recipients = (Address("x", "mx.example"), Address("y", "mx.example"))
    transactions = [Transaction(Address("a", "b"), recipients[:n]) for n in (2, 1, 2)]
    numbers = [client.submit(t) for t in transactions]
    client.receive(b"220 hi\r\n")
    client.send_hello()
    events = []
    for piece in [b"250-mx\r\n250 PIPELINING\r\n", *said, b""]:
        client.receive(piece)
        while (event := client.next_event()) is not None:
            events.append(event)
            if isinstance(event, BodyWanted):
                client.send_body(b"x")
                client.end_body()
        client.data_to_send()
    done = [e for e in events if isinstance(e, TransactionDone)]
    assert [d.number for d in done] == numbers
    for one, transaction in zip(done, transactions, strict=True):
        assert len(one.results) == len(transaction.recipients)
        for reply, verb in zip(one.results, one.verbs, strict=True):
            assert (reply is None) == (verb is None)
            assert reply is None or reply.code // 100 in (2, 4, 5)
            assert reply is None or reply.code // 100 != 2 or verb is Verb.CONTENT
    assert isinstance(events[-1], LostConnection)
    assert sum(isinstance(e, LostConnection) for e in events) == 1


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(200, 599))
def test_replies_go_round(lines: list[str], code: int) -> None:
    reader = replies.ReplyReader(10)
    status = f"{code // 100}.1.2" if code >= 400 or code < 300 else ""
    clean = [replies.text_of(line.encode("utf-8", "replace")) for line in lines]
    got: Reply | str | None = None
    for line in Reply(code, status, tuple(clean)).to_wire().split(b"\r\n")[:-1]:
        assert got is None
        got = reader.read(line)
    assert isinstance(got, Reply)
    assert (got.code, got.status) == (code, status) or not status
    assert [t.strip() for t in got.lines] == [t.strip() for t in clean] or not status


def test_a_session_is_cheap_to_make() -> None:
    """Nothing is built per session that could be built once."""
    first = ServerConnection(SETTINGS, "mx.example")
    second = ServerConnection(SETTINGS, "mx.example")
    assert first._parse is second._parse
