"""Finds regular expressions that could take more than linear time. Pure.

Python's engine tries one way after another. That is slow only where the same text can
be matched in several ways: a repetition whose next round, or what follows it, may begin
with the octets that it takes itself. Expressions are walked as the engine parses them,
sets of characters are compared, and what overlaps is told. It errs on the safe side:
what it names need not be slow, what it does not name is linear.
"""

import re
from collections.abc import Iterator, Sequence
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

_TOP = 0x300
"""Characters from here on count as one: no expression of ours parts them."""
_ALL = frozenset(range(_TOP + 1))
_MANY = 64
"""Repetitions up to so often are bounded, not repetitions in this sense."""
_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)
_NEWLINE = 10

Chars = frozenset[int]
Node = tuple[Any, Any]
_NONE: Chars = frozenset()


class _After(NamedTuple):
    """What may follow: at all, and as the first round of another loop."""

    chars: Chars = _NONE
    loops: Chars = _NONE


class _First(NamedTuple):
    """What may come first, and whether nothing may come at all."""

    chars: Chars
    is_nullable: bool


def ambiguities(pattern: "re.Pattern[str] | re.Pattern[bytes]") -> list[str]:
    """Return what in an expression can match the same text in more ways than one."""
    parsed = sre_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    walk = _Walk(pattern.flags)
    return [*walk.sequence(list(parsed), _After(), looped=False)]


def begins_with_a_loop(pattern: "re.Pattern[str] | re.Pattern[bytes]") -> bool:
    """Whether a search for it may begin anew at each character of one long run."""
    walk = _Walk(pattern.flags)
    nodes = list(sre_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
    while nodes and nodes[0][0] is sre.SUBPATTERN:
        nodes = [*nodes[0][1][3], *nodes[1:]]
    if not nodes or nodes[0][0] not in (*_REPEATS, sre.POSSESSIVE_REPEAT):
        return False
    return nodes[0][1][1] > _MANY and not walk.first(nodes[1:]).is_nullable


class _Walk:
    def __init__(self, flags: int) -> None:
        self._dot_all = bool(flags & re.DOTALL)

    def sequence(
        self, nodes: Sequence[Node], after: _After, *, looped: bool
    ) -> Iterator[str]:
        """Walk nodes in a row; ``after`` is what may follow the last of them."""
        for place, node in enumerate(nodes):
            following = nodes[place + 1 :]
            rest, loops = self.first(following), self._next_loop(following)
            follow = _After(rest.chars, loops)
            if rest.is_nullable:
                follow = _After(rest.chars | after.chars, loops | after.loops)
            yield from self._node(node, follow, looped)

    def _node(self, node: Node, follow: _After, looped: bool) -> Iterator[str]:
        kind, what = node
        if kind in _REPEATS:
            yield from self._repeat(what, follow, looped)
        elif kind is sre.SUBPATTERN:
            yield from self.sequence(list(what[3]), follow, looped=looped)
        elif kind is sre.BRANCH:
            yield from self._branches(what[1], follow, looped)
        elif kind in (sre.ASSERT, sre.ASSERT_NOT):
            yield from self.sequence(list(what[1]), _After(_ALL, _ALL), looped=looped)

    def _branches(
        self, branches: Sequence[Any], follow: _After, looped: bool
    ) -> Iterator[str]:
        taken = _First(_NONE, False)
        for branch in branches:
            yield from self.sequence(list(branch), follow, looped=looped)
            chars, is_nullable = self.first(list(branch))
            if looped and taken.chars & chars:
                shown = _shown(taken.chars & chars)
                yield f"alternatives in a loop begin alike: {shown}"
            if looped and taken.is_nullable and is_nullable:
                yield "alternatives in a loop are the same"
            taken = _First(taken.chars | chars, taken.is_nullable or is_nullable)

    def _repeat(self, what: Any, follow: _After, looped: bool) -> Iterator[str]:
        _, most, body = what
        nodes = list(body)
        if most <= _MANY:
            yield from self.sequence(nodes, follow, looped=looped)
            return
        begin = self.first(nodes)
        if begin.is_nullable:
            yield "a loop whose round may be empty"
        again = _After(follow.chars | begin.chars, follow.loops)
        yield from self.sequence(nodes, again, looped=True)
        if looped and (alike := begin.chars & follow.chars):
            shown = _shown(alike)
            yield f"a loop within a loop, and what follows begins alike: {shown}"
        if beside := begin.chars & follow.loops:
            yield f"two loops beside each other take the same: {_shown(beside)}"

    def _next_loop(self, rest: Sequence[Node]) -> Chars:
        """What a loop takes that may begin right here, or behind what may be empty."""
        found: Chars = _NONE
        for kind, what in rest:
            if kind in _REPEATS and what[1] > _MANY:
                found |= self.first(list(what[2])).chars
            elif kind in (*_REPEATS, sre.SUBPATTERN):
                inner = what[2] if kind in _REPEATS else what[3]
                found |= self._next_loop(list(inner))
            elif kind is sre.BRANCH:
                for branch in what[1]:
                    found |= self._next_loop(list(branch))
            if not self.first([(kind, what)]).is_nullable:
                break
        return found

    def first(self, nodes: Sequence[Node]) -> _First:
        """Return what a row of nodes may begin with."""
        chars: Chars = _NONE
        for node in nodes:
            one = self._first(node)
            chars |= one.chars
            if not one.is_nullable:
                return _First(chars, False)
        return _First(chars, True)

    def _first(self, node: Node) -> _First:
        kind, what = node
        if kind is sre.LITERAL:
            return _First(self._cased(frozenset({min(what, _TOP)})), False)
        if kind is sre.NOT_LITERAL:
            return _First(_ALL - {what}, False)
        if kind is sre.ANY:
            return _First(_ALL if self._dot_all else _ALL - {_NEWLINE}, False)
        if kind is sre.IN:
            return _First(self._cased(_members(what)), False)
        if kind in (*_REPEATS, sre.POSSESSIVE_REPEAT):
            begin = self.first(list(what[2]))
            return _First(begin.chars, begin.is_nullable or what[0] == 0)
        if kind is sre.SUBPATTERN:
            return self.first(list(what[3]))
        if kind is sre.ATOMIC_GROUP:
            return self.first(list(what))
        if kind is sre.BRANCH:
            firsts = [self.first(list(branch)) for branch in what[1]]
            return _First(
                _NONE.union(*(one.chars for one in firsts)),
                any(one.is_nullable for one in firsts),
            )
        if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return _First(_NONE, True)
        return _First(_ALL, True)  # a group that is referred to, and what is to come

    def _cased(self, chars: Chars) -> Chars:
        """Take letters in both cases, whether or not the flags say so."""
        swapped = {
            ord(chr(c).swapcase()) for c in chars if chr(c).isalpha() and c < 128
        }
        return chars | swapped


def _members(items: Sequence[Node]) -> Chars:
    found: set[int] = set()
    for kind, what in items:
        if kind is sre.LITERAL:
            found.add(min(what, _TOP))
        elif kind is sre.RANGE:
            found.update(range(min(what[0], _TOP), min(what[1], _TOP) + 1))
        elif kind is sre.CATEGORY:
            found.update(_category(what))
    if items and items[0][0] is sre.NEGATE:
        return _ALL - found
    return frozenset(found)


def _category(what: Any) -> Chars:
    texts = {
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
        sre.CATEGORY_SPACE: r"\s",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
    }
    one = re.compile(texts[what])
    return frozenset(c for c in _ALL if one.fullmatch(chr(c)))


def _shown(chars: Chars) -> str:
    return repr("".join(map(chr, sorted(chars)[:6])))
