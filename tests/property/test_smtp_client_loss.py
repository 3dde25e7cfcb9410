"""Our client against our server, cut off anywhere: no recipient is lost or made up."""

from itertools import chain

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.smtp.client import BodyWanted, ClientConnection, Greeting
from postroom.smtp.settings import ServerSettings
from postroom.smtp.transaction import Transaction, TransactionDone
from postroom.testing.pair import Pair
from postroom.testing.site import Site
from postroom.testing.transcript import at_random

SENDER = Address("a", "c.example")
GOOD, UNKNOWN, FAILING = (
    Address(name, "mx.example") for name in ("good", "unknown", "failing")
)
CONTENT = b"Subject: x\r\n\r\n.dot\r\nmore\r\n"
PLAIN = Transaction(SENDER, (GOOD,), len(CONTENT))
SEVERAL = msgspec.structs.replace(PLAIN, recipients=(UNKNOWN, GOOD, FAILING))
CHUNKED = msgspec.structs.replace(PLAIN, chunked=True)
SEVERAL_CHUNKED = msgspec.structs.replace(SEVERAL, chunked=True)
BINARY = msgspec.structs.replace(PLAIN, binary=True)
UTF8 = msgspec.structs.replace(PLAIN, recipients=(Address("jürgen", "mx.example"),))
RICH = msgspec.structs.replace(PLAIN, by="60;R", priority=3, eight_bit=True)

TALKS: dict[str, tuple[bool, tuple[str, ...], tuple[Transaction, ...]]] = {
    # LMTP?, keywords that are hidden, what is sent
    "one after another": (False, (), (PLAIN, PLAIN)),
    "lock step": (False, ("PIPELINING",), (SEVERAL, PLAIN)),
    "replies for each": (False, (), (SEVERAL, PLAIN)),
    "one reply for all": (False, ("PRDR",), (SEVERAL, PLAIN)),
    "chunks": (False, (), (CHUNKED, CHUNKED)),
    "chunks and replies for each": (False, (), (SEVERAL_CHUNKED, PLAIN)),
    "chunks and one reply": (False, ("PRDR",), (SEVERAL_CHUNKED, CHUNKED)),
    "binary": (False, (), (BINARY, PLAIN)),
    "binary refused": (False, ("BINARYMIME",), (BINARY, PLAIN)),
    "parameters": (False, (), (RICH, UTF8)),
    "too few extensions": (False, ("SMTPUTF8", "DELIVERBY"), (RICH, UTF8, PLAIN)),
    "limits": (False, (), (SEVERAL, SEVERAL)),
    "lmtp": (True, (), (SEVERAL, PLAIN)),
    "lmtp in chunks": (True, (), (SEVERAL_CHUNKED, PLAIN)),
}


def site_for(name: str) -> Site:
    lmtp, hidden, _ = TALKS[name]
    most = 2 if name == "limits" else 10
    site = Site(ServerSettings(hidden_keywords=hidden, recipients_max=most), lmtp=lmtp)
    site.unknown.add(UNKNOWN.to_text())
    site.failing.add(FAILING.to_text())
    return site


def talk(name: str, octets_max: int) -> tuple[Site, list[TransactionDone], int]:
    """Let client and server talk until so many octets have come from the server."""
    lmtp, _, transactions = TALKS[name]
    site = site_for(name)
    server, client = site.connect(), ClientConnection("c.example", lmtp=lmtp)
    done: list[TransactionDone] = []
    came = 0
    said = server.greet(site.greeting)
    while True:
        left = octets_max - came
        came += len(said[:left])
        client.receive(said[:left]) if said[:left] else None
        if len(said) >= left:
            client.receive(b"")
        while (event := client.next_event()) is not None:
            match event:
                case Greeting():
                    client.send_hello()
                    for transaction in transactions:
                        client.submit(transaction)
                case BodyWanted():
                    client.send_body(CONTENT)
                    client.end_body()
                case TransactionDone():
                    done.append(event)
        octets = client.data_to_send()
        if not octets or client.is_closed:
            return site, done, came
        server.receive(octets)
        site.serve(server)
        said = server.data_to_send()


@pytest.mark.parametrize("name", TALKS)
def test_cut_off_after_every_octet(name: str) -> None:
    transactions = TALKS[name][2]
    whole, outcomes, length = talk(name, 1 << 30)
    assert len(outcomes) == len(transactions)
    for octets_max in range(length + 1):
        site, done, _ = talk(name, octets_max)
        is_begun = len(done) > 0
        assert len(done) in (0, len(transactions))
        taken = [m.recipients for m in site.messages]
        told = []
        for over, value, full in zip(done, transactions, outcomes, strict=False):
            assert len(over.results) == len(value.recipients)
            for recipient, result, at_last in zip(
                value.recipients, over.results, full.results, strict=True
            ):
                # what is said is said; the rest is unknown, and will be tried again
                assert result is None or result == at_last
                if result is not None and result.is_positive:
                    told.append(recipient)
        assert is_begun or not told
        # a yes is only told of what the server has
        for recipient in told:
            assert recipient in chain.from_iterable(taken)
        assert len(told) <= sum(map(len, taken))
    assert len(whole.messages) <= len(transactions)


FLAGS = st.fixed_dictionaries(
    {
        "chunked": st.booleans(),
        "binary": st.booleans(),
        "eight_bit": st.booleans(),
        "priority": st.integers(-9, 9),
        "by": st.sampled_from(["", "60;R", "-3;N", "5;NT"]),
        "recipients": st.lists(
            st.sampled_from([GOOD, UNKNOWN, FAILING]), min_size=1, max_size=4
        ).map(tuple),
    }
)
CONTENTS = st.sampled_from(["", "x\r\n", ".\r\n..\r\n", "\r\n.\r\n", "large"])
LARGE = b"x" * 60_000 + b"\r\n"
HIDDEN = st.sets(
    st.sampled_from(["PIPELINING", "CHUNKING", "BINARYMIME", "PRDR", "DELIVERBY"])
)


def octets_of(content: str) -> bytes:
    return LARGE * 5 if content == "large" else content.encode("ascii")


@given(
    st.lists(st.tuples(FLAGS, CONTENTS), max_size=4),
    HIDDEN,
    st.booleans(),
    st.integers(1, 1 << 60),
)
def test_client_and_server_agree_on_what_was_taken(
    given_: list[tuple[dict[str, object], str]],
    hidden: set[str],
    lmtp: bool,
    seed: int,
) -> None:
    site = Site(ServerSettings(hidden_keywords=tuple(sorted(hidden))), lmtp=lmtp)
    site.unknown.add(UNKNOWN.to_text())
    site.failing.add(FAILING.to_text())
    pair = Pair(site, cut=at_random(seed))
    pair.greet()
    values = []
    for flags, content in given_:
        values.append(msgspec.structs.replace(PLAIN, size_octets=0, **flags))
        pair.submit(values[-1], octets_of(content))
    pair.pump()
    assert pair.client.is_idle
    assert pair.client.state is pair.server.state
    accepted = [
        tuple(
            recipient
            for recipient, reply in zip(value.recipients, over.results, strict=True)
            if reply is not None and reply.is_positive
        )
        for value, over in zip(values, pair.done(), strict=True)
    ]
    assert [r for r in accepted if r] == [m.recipients for m in site.messages]
    sent = [
        octets_of(content)
        for (_, content), recipients in zip(given_, accepted, strict=True)
        if recipients
    ]
    assert [m.content for m in site.messages] == sent
