"""Lists of clients in the DNS: how they are written, asked and understood."""

import pytest

from postroom.dns.lists import DnsList, Meaning, reversed_address

LISTED, NOTHING, TROUBLE = Meaning.LISTED, Meaning.NOTHING, Meaning.TROUBLE


@pytest.mark.parametrize(
    ("text", "zone", "weight", "narrow"),
    [
        ("zen.spamhaus.org", "zen.spamhaus.org", 1, False),
        ("ZEN.Spamhaus.ORG.", "zen.spamhaus.org", 1, False),
        ("list.dnswl.org*-5", "list.dnswl.org", -5, False),
        ("zen.spamhaus.org=127.0.0.2", "zen.spamhaus.org", 1, True),
        ("zen.spamhaus.org=127.0.0.[2..11]*3", "zen.spamhaus.org", 3, True),
        ("key.zen.dq.test=127.0.[0;1].[2;4..7]*10", "key.zen.dq.test", 10, True),
    ],
)
def test_lists_are_written_as_postfix_writes_them(
    text: str, zone: str, weight: int, narrow: bool
) -> None:
    one = DnsList.from_text(text)
    assert (one.zone, one.weight, one.answers is not None) == (zone, weight, narrow)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no DNS list"),
        ("localhost", "is no DNS list"),
        ("two words.test", "is no DNS list"),
        ("a..b.test", "is no DNS list"),
        ("zen.test*", "is no DNS list"),
        ("zen.test*1.5", "is no DNS list"),
        ("zen.test*0", "a weight is a number"),
        ("zen.test*1001", "a weight is a number"),
        ("zen.test=127.0.0", "an answer has four parts"),
        ("zen.test=127.0.0.1.2", "an answer has four parts"),
        ("zen.test=127.0.0.x", "is no part of an address"),
        ("zen.test=127.0.0.[1..]", "is no part of an address"),
        ("zen.test=127.0.0.[]", "is no part of an address"),
        ("zen.test=127.0.0.[2..11", "is no part of an address"),
        ("zen.test=127.0.0.[9..2]", "is no range"),
        ("zen.test=127.0.0.256", "is no range"),
        ("zen.test=10.0.0.1", "lists answer in 127"),
        ("zen.test=#0.0.0.1", "is no"),
    ],
)
def test_what_is_no_list_is_explained(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DnsList.from_text(text)


@pytest.mark.parametrize(
    ("ip", "backwards"),
    [
        ("192.0.2.99", "99.2.0.192"),
        ("::ffff:192.0.2.99", "99.2.0.192"),
        (
            "2001:db8:1:2:3:4:567:89ab",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2",
        ),
    ],
)
def test_addresses_backwards(ip: str, backwards: str) -> None:
    assert reversed_address(ip) == backwards
    question = DnsList.from_text("l.test").question(ip)
    assert question == f"{backwards}.l.test"


@pytest.mark.parametrize(
    ("text", "answer", "meaning"),
    [
        ("l.test", "127.0.0.2", LISTED),
        ("l.test", "127.9.9.9", LISTED),
        ("l.test=127.0.0.[2..11]", "127.0.0.2", LISTED),
        ("l.test=127.0.0.[2..11]", "127.0.0.11", LISTED),
        ("l.test=127.0.0.[2..11]", "127.0.0.12", NOTHING),
        ("l.test=127.0.0.[2..11]", "127.0.1.2", NOTHING),
        ("l.test=127.0.[0;5].[2;4..7]", "127.0.5.6", LISTED),
        ("l.test=127.0.[0;5].[2;4..7]", "127.0.5.3", NOTHING),
        # A wildcard of a parked domain lists nobody.
        ("l.test", "203.0.113.7", TROUBLE),
        ("l.test", "0.0.0.0", TROUBLE),
        ("l.test", "10.0.0.2", TROUBLE),
        # A list that has ended lists the world so.
        ("l.test", "127.0.0.1", TROUBLE),
        # Spamhaus: wrong zone, public resolver, too many questions.
        ("l.test", "127.255.255.252", TROUBLE),
        ("l.test", "127.255.255.254", TROUBLE),
        ("l.test", "127.255.255.255", TROUBLE),
        ("l.test=127.[0..255].[0..255].[0..255]", "127.255.255.254", TROUBLE),
        ("l.test", "nonsense", NOTHING),
        ("l.test", "127.0.0", TROUBLE),
    ],
)
def test_what_an_answer_means(text: str, answer: str, meaning: Meaning) -> None:
    assert DnsList.from_text(text).meaning(answer) is meaning
