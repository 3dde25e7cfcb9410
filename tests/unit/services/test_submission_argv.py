"""The arguments of sendmail, as programs really give them."""

import re
from pathlib import Path

import pytest

from postroom.cli import drop
from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import BodyType
from postroom.services import submission
from postroom.services.queue_run import BY_ITSELF, QueueSelection
from postroom.services.submission import (
    Invocation,
    Mode,
    UsageError,
    exit_code_of,
    parse_argv,
    parse_sender,
)

GOOD = {
    "plain": ("sendmail joe", Invocation(recipients=("joe",))),
    "php": ("/usr/sbin/sendmail -t -i", Invocation(from_header=True, dot_ends=False)),
    "cron": (
        "sendmail -FCronDaemon -i -odi -oem -oi -t -f root",
        Invocation(
            full_name="CronDaemon", dot_ends=False, from_header=True, sender="root"
        ),
    ),
    "mutt": (
        "sendmail -oem -oi -f betty@x.test -- joe bob",
        Invocation(dot_ends=False, sender="betty@x.test", recipients=("joe", "bob")),
    ),
    "cluster": (
        "sendmail -tiv",
        Invocation(from_header=True, dot_ends=False, verbose=True),
    ),
    "cluster with value": (
        "sendmail -vfbetty joe",
        Invocation(verbose=True, sender="betty", recipients=("joe",)),
    ),
    "value apart": (
        "sendmail -v -f betty joe",
        Invocation(verbose=True, sender="betty", recipients=("joe",)),
    ),
    "-r is -f": (
        "sendmail -r betty joe",
        Invocation(sender="betty", recipients=("joe",)),
    ),
    "same sender twice": (
        "sendmail -f a -r a joe",
        Invocation(sender="a", recipients=("joe",)),
    ),
    "options end at a recipient": (
        "sendmail joe -v",
        Invocation(recipients=("joe", "-v")),
    ),
    "options end at --": ("sendmail -- -v", Invocation(recipients=("-v",))),
    "a dash is no option": ("sendmail - joe", Invocation(recipients=("-", "joe"))),
    "-bs": ("sendmail -bs", Invocation(mode=Mode.SMTP)),
    "-ba": ("sendmail -ba joe", Invocation(recipients=("joe",))),
    "-b apart": ("sendmail -b p", Invocation(mode=Mode.MAILQ)),
    "mailq": ("/usr/bin/mailq -v", Invocation(mode=Mode.MAILQ, verbose=True)),
    "newaliases": ("newaliases", Invocation(mode=Mode.NEWALIASES)),
    "-I": ("sendmail -I", Invocation(mode=Mode.NEWALIASES)),
    "-bv": ("sendmail -bv joe", Invocation(mode=Mode.VERIFY, recipients=("joe",))),
    "-q": ("sendmail -q", Invocation(mode=Mode.RUN_QUEUE)),
    "-q -v": ("sendmail -q -v", Invocation(mode=Mode.RUN_QUEUE, verbose=True)),
    "-qf": ("sendmail -qf", Invocation(mode=Mode.RUN_QUEUE)),
    "runq": ("runq", Invocation(mode=Mode.RUN_QUEUE)),
    "-qR -qS": (
        "sendmail -qRjoe -qSbetty",
        Invocation(
            mode=Mode.RUN_QUEUE,
            selection=QueueSelection(recipients=("joe",), senders=("betty",)),
        ),
    ),
    "-odq": ("sendmail -odq joe", Invocation(queue_only=True, recipients=("joe",))),
    "-O": (
        "sendmail -OIgnoreDots -ODeliveryMode=q joe",
        Invocation(dot_ends=False, queue_only=True, recipients=("joe",)),
    ),
    "-O apart": (
        "sendmail -O ErrorMode=q joe",
        Invocation(quiet=True, recipients=("joe",)),
    ),
    "-oeq": ("sendmail -oeq joe", Invocation(quiet=True, recipients=("joe",))),
    "-em": ("sendmail -em joe", Invocation(recipients=("joe",))),
    "of no effect": (
        "sendmail -Ac -C /etc/x -d0.1 -G -h 3 -L tag -m -Mrx -n -p esmtp:h -s -T3d "
        "-X /dev/null -x -c joe",
        Invocation(recipients=("joe",)),
    ),
    "dsn": (
        "sendmail -N success,Delay -R hdrs -V a+b=c joe",
        Invocation(
            notify="SUCCESS,DELAY", ret="HDRS", envid="a+2Bb+3Dc", recipients=("joe",)
        ),
    ),
    "never": ("sendmail -N never joe", Invocation(notify="NEVER", recipients=("joe",))),
    "body": (
        "sendmail -B8bitmime -U joe",
        Invocation(body=BodyType.EIGHT_BIT, smtputf8=True, recipients=("joe",)),
    ),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD.keys())
def test_understood(case: tuple[str, Invocation]) -> None:
    line, expected = case
    assert parse_argv(line.split()) == expected


BAD = {
    "unknown mode": ("sendmail -bY", "Invalid operation mode Y"),
    "-bq": ("sendmail -bq", "Invalid operation mode q"),
    "control in mode": ("sendmail -b\x1b", "Invalid operation mode \\x1b"),
    "unknown option": ("sendmail -Z", "sendmail: illegal option -- Z"),
    "no value": ("sendmail -f", "sendmail: option requires an argument -- f"),
    "two senders": ("sendmail -f a -f b", 'More than one "from" person'),
    "-bd": (
        "sendmail -bd -q30m",
        "Operation mode d is not done by sendmail: to start the server: postroom serve",
    ),
    "smtpd": (
        "smtpd",
        "Operation mode d is not done by sendmail: to start the server: postroom serve",
    ),
    "notify": ("sendmail -N never,success", "Invalid -N argument"),
    "ret": ("sendmail -R x", "Invalid -R value"),
    "body": ("sendmail -B x", "Illegal body type x"),
    "envid": ("sendmail -V é", "Invalid syntax in -V argument"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_refused(case: tuple[str, str]) -> None:
    line, expected = case
    with pytest.raises(UsageError) as caught:
        parse_argv(line.split(" "))
    assert str(caught.value) == expected
    assert caught.value.exit_code == 64


SELECTIONS: dict[str, tuple[str, QueueSelection]] = {
    "all": ("-q", QueueSelection()),
    "in front": ("-qf", QueueSelection()),
    "id": ("-qI4k", QueueSelection(id_parts=("4k",))),
    "either": ("-qRjoe -qRbetty", QueueSelection(recipients=("joe", "betty"))),
    "others": ("-q!Sspam -qRjoe", QueueSelection((), ("joe",), ("!spam",))),
    "a mark as it stands": ("-qS!x", QueueSelection(senders=("*!x*",))),
    "quarantined": ("-qQ", QueueSelection(quarantined=True)),
    "for a reason": ("-qQvirus", QueueSelection(reasons=("virus",), quarantined=True)),
    "put aside": ("-qL", QueueSelection(shunted=True)),
    "let go": ("-qQ -Q", QueueSelection(quarantined=True, quarantine="")),
    "quarantine": ("-qSx -Qodd", QueueSelection(senders=("x",), quarantine="odd")),
    "interval": ("-q30m", QueueSelection(note=BY_ITSELF.format("30m"))),
    "long interval": ("-q1h30m", QueueSelection(note=BY_ITSELF.format("1h30m"))),
    "runner": ("-qp1m", QueueSelection(note=BY_ITSELF.format("p1m"))),
}


@pytest.mark.parametrize("case", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_what_is_chosen_from_the_queue(case: tuple[str, QueueSelection]) -> None:
    words, selection = case
    invocation = parse_argv(["sendmail", *words.split()])
    assert (invocation.mode, invocation.selection) == (Mode.RUN_QUEUE, selection)
    listed = parse_argv(["mailq", *(w for w in words.split() if w[:2] == "-q")])
    assert listed.mode is Mode.MAILQ


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("-qGmain", "-qGmain is not supported"),
        ("-qR", "needs a text"),
        ("-q!", "is not supported"),
        ("-q!L", "is not supported"),
        ("-qx", "is not supported"),
        ("-Qodd", "Cannot use -Q without -q"),
        ("-bp -qQ -Q", "Cannot use -Q without -q"),
        ("-qQ -Qa\x07b", "one line"),
        (" ".join(["-qRx"] * 101), "more than 100"),
    ],
)
def test_what_cannot_be_chosen(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_argv(["sendmail", *words.split()])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", NULL_SENDER),
        ("<>", NULL_SENDER),
        ("betty", Address("betty", "gonzo.test")),
        ("<betty@x.test>", Address("betty", "x.test")),
        ("Betty <betty>", Address("betty", "gonzo.test")),
    ],
)
def test_sender(text: str, address: Address) -> None:
    assert parse_sender(text, "gonzo.test") == address


@pytest.mark.parametrize(
    "text", ["a b", "a, b", "a@", "<", "a\r\nBcc: x@y", "a@x\x00", "\udcff@x", "a;b"]
)
def test_no_sender(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_sender(text, "gonzo.test")
    assert caught.value.exit_code == 64
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("status", "exit_code"),
    {
        "5.1.1": 67,
        "5.1.2": 68,
        "5.7.1": 77,
        "4.2.2": 75,
        "5.6.0": 65,
        "5.3.4": 65,
        "5.3.0": 70,
        "5.5.1": 69,
        "": 69,
    }.items(),
)
def test_exit_codes(status: str, exit_code: int) -> None:
    assert exit_code_of(status) == exit_code


def test_the_courier_knows_which_options_have_values() -> None:
    assert set(drop.WITH_VALUE) == submission._WITH_VALUE
    assert set(drop.WITH_ATTACHED_VALUE) == submission._WITH_ATTACHED_VALUE


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD.keys())
def test_the_courier_sees_the_same_mode_and_recipients(
    case: tuple[str, Invocation],
) -> None:
    line, expected = case
    mode, options, recipients = drop.read(line.split())
    assert mode == expected.mode.value
    assert tuple(recipients) == expected.recipients
    assert ("t" in options) == expected.from_header
    assert ("v" in options) == expected.verbose


def test_every_flag_is_described() -> None:
    text = (Path(__file__).parents[3] / "docs" / "sendmail.md").read_text()
    letters = (
        submission._WITH_VALUE
        | submission._WITH_ATTACHED_VALUE
        | submission._WITHOUT_VALUE
    )
    for letter in sorted(letters - {"b"}):
        assert re.search(rf"`-{letter}(?![a-z]{{2}})", text), letter
    for letter in submission._MODES_ELSEWHERE:
        assert f"`-b{letter}`" in text
    for mode in Mode:
        if mode is not Mode.RUN_QUEUE:
            assert f"`-b{mode.value}`" in text
