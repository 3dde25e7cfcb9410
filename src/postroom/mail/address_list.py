"""Address lists as people write them in header fields and on command lines.

RFC 5322 §3.4 with its obsolete forms: names, comments, groups, quoted strings, source
routes, empty items. As sendmail does, blanks alone may part addresses where no comma
stands. One pass over the text, no recursion; what cannot be understood is a
``problem`` in words, never a guess.
"""

import re
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

Kind = Literal["word", "special"]
_BLANKS = re.compile(r"[ \t\r\n]++")
# RFC 5322 §3.2.4: quoted-string, with any character within.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
# RFC 5322 §3.4.1: domain-literal.
_LITERAL = re.compile(r"\[[^\[\]\\\"(),;<>@ \t\r\n]*+\]")
_ATOM = re.compile(r'[^ \t\r\n"(),;:<>@\[\]]++')
_COMMENT_PART = re.compile(r"[^()\\]++|\\.|[()]", re.DOTALL)


class Mailbox(msgspec.Struct, frozen=True, gc=False):
    """One address of a list.

    ``text`` is the address without name, comments and blanks; ``start`` and ``end``
    say where it stands. ``is_bare`` says that it is a name without a domain.
    ``needs_comma`` says that only blanks part it from the one before.
    """

    text: str
    start: int
    end: int
    is_bare: bool = False
    needs_comma: bool = False


class AddressList(msgspec.Struct, frozen=True):
    """The addresses of a list, up to the first thing that makes no sense."""

    mailboxes: tuple[Mailbox, ...]
    problem: str = ""


def parse_address_list(text: str) -> AddressList:
    """Read a list of addresses, such as the value of ``To``."""
    parser = _Parser()
    try:
        for token in _tokens(text):
            parser.take(token)
        parser.finish()
    except _Nonsense as nonsense:
        return AddressList(tuple(parser.found), str(nonsense))
    return AddressList(tuple(parser.found))


class _Nonsense(Exception):
    """The text is no address list; never leaves this module."""


class _Token(NamedTuple):
    kind: Kind
    text: str
    start: int
    end: int
    after_gap: bool


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, after_gap = 0, False
    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            blanks = _BLANKS.match(text, at)
            assert blanks
            at, after_gap = blanks.end(), True
            continue
        if char == "(":
            at, after_gap = _comment_end(text, at), True
            continue
        kind: Kind = "special" if char in ",;:<>@" else "word"
        end = at + 1 if kind == "special" else _word_end(text, at)
        tokens.append(_Token(kind, text[at:end], at, end, after_gap))
        at, after_gap = end, False
    return tokens


def _word_end(text: str, at: int) -> int:
    match = _QUOTED.match(text, at) or _LITERAL.match(text, at) or _ATOM.match(text, at)
    if match:
        return match.end()
    if text[at] in '")':
        raise _Nonsense(f"Unbalanced '{text[at]}'")
    return at + 1  # a bracket by itself; harmless in a name


def _comment_end(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        part = _COMMENT_PART.match(text, at)
        if not part:  # a backslash at the very end
            break
        at = part.end()
        depth += {"(": 1, ")": -1}.get(part[0], 0)
        if depth == 0:
            return at
    raise _Nonsense("Unbalanced '('")


class _Parser:
    """Gathers the tokens of one item at a time, and turns them into mailboxes."""

    def __init__(self) -> None:
        self.found: list[Mailbox] = []
        self._plain: list[_Token] = []
        self._angle: list[_Token] | None = None
        self._angle_open = False
        self._in_group = False
        self._seen_comma = False

    def take(self, token: _Token) -> None:
        if token.kind == "word" or token.text == "@":
            self._word(token)
            return
        match token.text:
            case "<":
                self._open()
            case ">":
                if not self._angle_open:
                    raise _Nonsense("Unbalanced '>'")
                self._angle_open = False
            case ",":
                self._comma(token)
            case ":":
                self._colon(token)
            case ";":
                if not self._in_group:
                    raise _Nonsense("';' outside of a group")
                self._end_item()
                self._in_group = False

    def finish(self) -> None:
        self._end_item()  # a group that was not closed ends with the text

    def _word(self, token: _Token) -> None:
        if self._angle_open and self._angle is not None:
            self._angle.append(token)
        elif self._angle is not None:
            raise _Nonsense("Text after '>'")
        else:
            self._plain.append(token)

    def _open(self) -> None:
        if self._angle is not None:
            raise _Nonsense("Unbalanced '<'")
        self._angle, self._angle_open = [], True

    def _comma(self, token: _Token) -> None:
        if self._angle_open and self._angle and self._angle[0].text == "@":
            self._angle.append(token)  # RFC 5322 §4.4: obs-route
            return
        self._seen_comma = True
        self._end_item()

    def _colon(self, token: _Token) -> None:
        if self._angle_open and self._angle is not None:
            self._angle.append(token)
            return
        name = self._plain
        if self._in_group or not name or any(t.kind == "special" for t in name):
            raise _Nonsense("':' in an address")
        self._in_group, self._plain = True, []  # RFC 5322 §3.4: group

    def _end_item(self) -> None:
        if self._angle_open:
            raise _Nonsense("Unbalanced '<'")
        if self._angle is not None:
            self.found.append(_mailbox(self._angle))
        elif self._plain:
            self._end_plain()
        self._plain, self._angle = [], None

    def _end_plain(self) -> None:
        runs = _runs(self._plain)
        if len(runs) > 1 and self._seen_comma and not all(map(_is_whole, runs)):
            raise _Nonsense("Blank within an address")
        for number, run in enumerate(runs):
            self.found.append(_mailbox(run, needs_comma=number > 0))


def _runs(tokens: list[_Token]) -> list[list[_Token]]:
    """Part tokens where blanks stand, but not around ``@`` and dots."""
    runs = [[tokens[0]]]
    for before, token in pairwise(tokens):
        joins = before.text.endswith(("@", ".")) or token.text.startswith(("@", "."))
        if token.after_gap and not joins:
            runs.append([])
        runs[-1].append(token)
    return runs


def _is_whole(run: list[_Token]) -> bool:
    return any(token.text == "@" for token in run)


def _mailbox(tokens: list[_Token], *, needs_comma: bool = False) -> Mailbox:
    if not tokens:
        return Mailbox("", 0, 0)
    text = "".join(token.text for token in tokens)
    is_bare = "!" not in text and all(token.kind == "word" for token in tokens)
    return Mailbox(text, tokens[0].start, tokens[-1].end, is_bare, needs_comma)
