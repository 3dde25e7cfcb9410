"""Declaring hooks, and the words they answer in."""

from collections.abc import AsyncIterator, Callable, Iterator
from email.header import decode_header, make_header
from functools import partial
from typing import Any

import pytest

from postroom import accept, add_header, defer, discard, hook, reject
from postroom.mail.message import Add, Prepend, Remove, Replace
from postroom.mail.units import Duration
from postroom.mail.verdict import (
    Accept,
    Defer,
    Discard,
    Quarantine,
    Reject,
    ReplaceBody,
)
from postroom.policy import changes
from postroom.policy.hooks import MARK, HookError, Kind


def test_the_decorator_hands_the_function_back() -> None:
    def own(session: object, rcpt: object) -> None:
        return None

    assert hook.rcpt(own) is own
    (declared,) = getattr(own, MARK)
    assert (declared.phase, declared.name, declared.kind) == ("rcpt", "own", Kind.PLAIN)


def test_one_function_may_serve_two_phases() -> None:
    @hook.mail
    @hook.rcpt
    def both(session: object, subject: object) -> None: ...

    assert [one.phase for one in getattr(both, MARK)] == ["rcpt", "mail"]


def test_kinds_and_time_outs() -> None:
    @hook.mail(timeout="3s")
    async def waits(session: object, mail: object) -> None: ...

    @hook.mail(blocking=True, timeout=Duration.from_text("1m"))
    def blocks(session: object, mail: object) -> None: ...

    (one,), (two,) = getattr(waits, MARK), getattr(blocks, MARK)
    assert (one.kind, one.timeout) == (Kind.ASYNC, 3_000_000)
    assert (two.kind, two.timeout) == (Kind.BLOCKING, 60_000_000)


async def _async(session: object, subject: object) -> None: ...


class _Checker:
    def __call__(self, session: object, subject: object) -> None: ...

    def check(self, session: object, subject: object) -> None: ...


def _yields(session: object, subject: object) -> Iterator[None]:
    yield None


async def _waits_and_yields(session: object, subject: object) -> AsyncIterator[None]:
    yield None


def _judge(session: object, subject: object, words: frozenset[str]) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (_Checker(), "_Checker"),
        (partial(_judge, words=frozenset()), "_judge"),
        (lambda session, subject: None, "<lambda>"),
    ],
)
def test_what_logs_call_a_hook(function: Callable[..., Any], name: str) -> None:
    (one,) = getattr(hook.rcpt(function), MARK)
    assert one.name == name


BAD_DECLARATIONS: dict[str, tuple[Callable[[], object], str]] = {
    "too few parameters": (lambda: hook.rcpt(lambda session: None), "two parameters"),
    "too many parameters": (lambda: hook.rcpt(lambda a, b, c: None), "two parameters"),
    "a time-out on a plain hook": (
        lambda: hook.rcpt(timeout="5s")(lambda a, b: None),
        "cannot be stopped",
    ),
    "blocking async": (lambda: hook.rcpt(blocking=True)(_async), "cannot be blocking"),
    "a bad time-out": (lambda: hook.rcpt(timeout="5")(_async), "no duration"),
    "a time-out without a unit": (
        lambda: hook.rcpt(timeout=5)(_async),  # type: ignore[call-overload]
        'write the timeout as "5s"',
    ),
    "a time-out of nothing": (
        lambda: hook.rcpt(timeout="0s")(_async),
        'write the timeout as "5s"',
    ),
    "an unknown phase": (lambda: hook.data, "no phase"),
    "no phase": (lambda: hook(_async), "name the phase"),
    "no phase, but options": (lambda: hook(blocking=True), "name the phase"),
    "a method": (lambda: hook.rcpt(_Checker().check), "check: a method cannot be"),
    "a generator": (lambda: hook.rcpt(_yields), "_yields: .* does not yield"),
    "an async generator": (lambda: hook.rcpt(_waits_and_yields), "does not yield"),
}


@pytest.mark.parametrize("name", BAD_DECLARATIONS)
def test_what_cannot_be_a_hook(name: str) -> None:
    declare, reason = BAD_DECLARATIONS[name]
    with pytest.raises(HookError, match=reason):
        declare()


REPLIES: dict[str, tuple[Reject | Defer, str]] = {
    "policy": (reject("5.7.1", "no"), "550 5.7.1 no"),
    "too large": (reject("5.3.4", "no"), "552 5.3.4 no"),
    "own code": (reject("5.7.1", "no", 554), "554 5.7.1 no"),
    "later": (defer("4.7.1", "later"), "450 4.7.1 later"),
    "trouble": (defer("4.3.0", "later"), "451 4.3.0 later"),
    "full": (defer("4.3.1", "later"), "452 4.3.1 later"),
}


@pytest.mark.parametrize("name", REPLIES)
def test_the_usual_code_of_a_status(name: str) -> None:
    verdict, reply = REPLIES[name]
    assert str(verdict.reply) == reply


def test_a_long_text_is_cut_into_lines() -> None:
    reply = reject("5.7.1", "first\n" + "word " * 300).reply
    assert reply.lines[0] == "first"
    assert all(len(line) < 500 for line in reply.to_wire().split(b"\r\n"))


BAD_REPLIES: dict[str, Callable[[], object]] = {
    "class 4 to reject": lambda: reject("4.7.1", "no"),
    "class 5 to defer": lambda: defer("5.7.1", "no"),
    "class 2": lambda: reject("2.0.0", "ok"),
    "no status": lambda: reject("no", "5.7.1"),
    "no text": lambda: reject("5.7.1", ""),
    "only line ends": lambda: reject("5.7.1", "\r\n"),
    "code of another class": lambda: reject("5.7.1", "no", 250),
    "code that is a text": lambda: reject("5.7.1", "no", "550"),  # type: ignore[arg-type]
    "two replies in one status": lambda: reject("5.7.1\r\n250 ok", "no"),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_refusals_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"class|empty"):
        BAD_REPLIES[name]()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Unerw\u00fcnscht: \u00c5ngstr\u00f6m", "Unerwunscht: Angstrom"),
        ("\u65e5\u672c \u20ac", "?? ?"),
        ("\ud800", "?"),
        ("a\u2028b", "a b"),
    ],
)
def test_a_text_is_told_in_ascii(text: str, said: str) -> None:
    reply = reject("5.7.1", text).reply
    assert reply.text == said
    assert reply.to_wire().isascii()


def test_a_text_cannot_forge_a_second_reply() -> None:
    wire = reject("5.7.1", "no\r\n250 ok").reply.to_wire()
    assert wire == b"550-5.7.1 no\r\n550 5.7.1 250 ok\r\n"


def test_accept_and_discard() -> None:
    assert accept() == Accept()
    assert accept(add_header("A", "b")) == Accept((Add(b"A: b\r\n"),))
    assert discard("a virus") == Discard("a virus")


CHANGES = {
    "add": (changes.add_header("X-A", "b"), Add(b"X-A: b\r\n")),
    "prepend": (changes.prepend_header("X-A", " b "), Prepend(b"X-A: b\r\n")),
    "replace": (changes.replace_header("X-A", "b"), Replace("X-A", b"X-A: b\r\n")),
    "remove": (changes.remove_header("X-A"), Remove("X-A")),
    "folded": (
        changes.add_header("X-A", "b\nc\r\n\r\nd"),
        Add(b"X-A: b\r\n\tc\r\n\td\r\n"),
    ),
    "utf-8": (changes.add_header("X-A", "ä"), Add(b"X-A: =?UTF-8?B?w6Q=?=\r\n")),
    "utf-8 amid": (
        changes.add_header("X-A", "a ä =?utf-8?q?b?="),
        Add(b"X-A: a =?UTF-8?B?w6Qg?= =?utf-8?q?b?=\r\n"),
    ),
    "utf-8 in a grammar": (
        changes.add_header("To", "ä@b.example"),
        Add(b"To: \xc3\xa4@b.example\r\n"),
    ),
    "body": (changes.replace_body("a\nb\r\nc\rd"), ReplaceBody(b"a\r\nb\r\nc\r\nd")),
    "hold": (changes.quarantine("why"), Quarantine("why")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_in_words(name: str) -> None:
    made, expected = CHANGES[name]
    assert made == expected


@pytest.mark.parametrize(
    "text",
    [
        "Grüße",
        "[extern] Grüße an alle",
        "ä b ö",
        "日本語のとても長い件名" * 20,
        "eine Zeile ä\nund noch eine",
        "=?utf-8?q?a?= ä",
        "ä =?utf-8?q?a?=",
        "\U0001f4ec post",
    ],
)
def test_a_value_reads_as_it_was_written(text: str) -> None:
    field = changes.replace_header("Subject", text).field
    assert field.isascii()
    assert max(map(len, field.split(b"\r\n"))) <= 100
    value = field.decode().partition(": ")[2]
    read = str(make_header(decode_header(value.replace("\r\n", ""))))
    plain = text.replace("=?utf-8?q?a?=", "a").replace("\n", " ")
    assert read.replace("\t", " ").strip() == plain


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\r\nb", "x" * 78])
def test_header_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="no header name"):
        changes.add_header(name, "b")


def test_header_values_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="NUL"):
        changes.add_header("A", "b\0c")
    with pytest.raises(ValueError, match="longer"):
        changes.add_header("A", "b" * 70_000)


def test_recipients_are_checked() -> None:
    assert str(changes.add_recipient("joe@whizzer.test").address) == "joe@whizzer.test"
    with pytest.raises(ValueError, match="quotes"):
        changes.remove_recipient("joe whizzer.test")
    for text in ("", "joe"):  # it would be nobody, or match nobody
        with pytest.raises(ValueError, match="has no domain"):
            changes.remove_recipient(text)


@pytest.mark.parametrize("reason", ["", " ", "\r\n"])
def test_a_quarantine_says_why(reason: str) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        changes.quarantine(reason)
