"""Address lists, more broken than whole."""

import pytest

from postroom.mail.address_list import parse_address_list

GOOD = {
    "one": ("joe@x.test", ["joe@x.test"]),
    "none": ("", []),
    "blanks": (" \r\n\t", []),
    "bare": ("joe", ["joe"]),
    "two": ("joe@x.test, bob@x.test", ["joe@x.test", "bob@x.test"]),
    "empty items": (",joe@x.test,, bob,", ["joe@x.test", "bob"]),
    "by blanks": ("joe@x.test bob@x.test", ["joe@x.test", "bob@x.test"]),
    "bare by blanks": ("a b c", ["a", "b", "c"]),
    "whole by blanks and comma": ("a@x b@x, c", ["a@x", "b@x", "c"]),
    "name": ("Joe Q. Public <joe@x.test>", ["joe@x.test"]),
    "quoted name": ('"Public, Joe" <joe@x.test>', ["joe@x.test"]),
    "comment": ("joe@x.test (Joe, (the) Q.), bob@x.test", ["joe@x.test", "bob@x.test"]),
    "quoted pair in comment": (r"joe@x.test (a \) b)", ["joe@x.test"]),
    "brackets in name": ("Foo [bar] <j@x.test>", ["j@x.test"]),
    "lone bracket in name": ("Foo [bar <j@x.test>", ["j@x.test"]),
    "group": ("Team: a@x.test, Bob <b@x.test>;", ["a@x.test", "b@x.test"]),
    "group between": ("z, T: a, b;, c", ["z", "a", "b", "c"]),
    "empty group": ("undisclosed-recipients:;", []),
    "open group": ("Dept: Sales <j@x.test>", ["j@x.test"]),
    "route": ("<@a.test,@b.test:joe@x.test>", ["@a.test,@b.test:joe@x.test"]),
    "quoted local": ('"joe b"@x.test', ['"joe b"@x.test']),
    "literal": ("joe@[127.0.0.1]", ["joe@[127.0.0.1]"]),
    "v6 literal": ("joe@[IPv6:::1]", ["joe@[IPv6:::1]"]),
    "blanks around at": ("joe @ x.test", ["joe@x.test"]),
    "folded": ("joe@x.test,\r\n\tbob@x.test", ["joe@x.test", "bob@x.test"]),
    "empty angle": ("<>", [""]),
    "unquoted comma": ("Public, John <j@x.test>", ["Public", "j@x.test"]),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD.keys())
def test_understood(case: tuple[str, list[str]]) -> None:
    text, expected = case
    parsed = parse_address_list(text)
    assert parsed.problem == ""
    assert [mailbox.text for mailbox in parsed.mailboxes] == expected


BAD = {
    "semicolon": ("a@x.test; b@x.test", "';' outside of a group", 0),
    "open quote": ('a, "Foo bar <j@x.test>', "Unbalanced '\"'", 0),
    "open comment": ("Foo (bar <j@x.test>", "Unbalanced '('", 0),
    "backslash in comment": ("a (b\\", "Unbalanced '('", 0),
    "closed comment": ("a) b", "Unbalanced ')'", 0),
    "open angle": ("a, <j@x.test, b", "Unbalanced '<'", 1),
    "open angle at end": ("<j@x.test", "Unbalanced '<'", 0),
    "double angle": ("<<j@x.test>>", "Unbalanced '<'", 0),
    "two angles": ("<a@x> <b@x>", "Unbalanced '<'", 0),
    "closed angle": ("j@x.test>", "Unbalanced '>'", 0),
    "text behind angle": ("<a@x> b", "Text after '>'", 0),
    "include": (":include:/etc/passwd", "':' in an address", 0),
    "decnet": ("node::user", "':' in an address", 0),
    "group in group": ("a: b: c;;", "':' in an address", 0),
    "blank within": ("john smith, joe", "Blank within an address", 0),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_not_understood(case: tuple[str, str, int]) -> None:
    text, problem, before = case
    parsed = parse_address_list(text)
    assert parsed.problem == problem
    assert len(parsed.mailboxes) == before


def test_where_an_address_stands() -> None:
    text = 'Joe <joe> , "A B" (x) bob @ x.test'
    spans = [text[m.start : m.end] for m in parse_address_list(text).mailboxes]
    assert spans[0] == "joe"
    bare = parse_address_list("a!b!c, joe, joe@x, <joe>").mailboxes
    assert [mailbox.is_bare for mailbox in bare] == [False, True, False, True]


def test_deep_and_long_lists_take_linear_time() -> None:
    assert parse_address_list("(" * 100_000).problem == "Unbalanced '('"
    assert parse_address_list('"' + "\\" * 100_001).problem == "Unbalanced '\"'"
    assert len(parse_address_list("a," * 50_000).mailboxes) == 50_000
