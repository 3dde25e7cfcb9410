"""The aliases file: sendmail's syntax, and every way to get it wrong."""

from pathlib import Path

import pytest

from postroom.mail.units import Size
from postroom.tables.aliases import WARNINGS_MAX, alias_file, parse_aliases
from postroom.tables.settings import TableSettings
from postroom.tables.table import LineError
from postroom.tables.targets import split_targets

SETTINGS = TableSettings()

TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "one": ("betty", ("betty",)),
    "two": ("betty, joe@whizzer.test", ("betty", "joe@whizzer.test")),
    "spare commas": (", betty,, joe ,", ("betty", "joe")),
    "blanks": ("  betty\t,  joe ", ("betty", "joe")),
    "quoted program": (
        '"|/bin/cat >/tmp/out, more"',
        ("|/bin/cat >/tmp/out, more",),
    ),
    "bare program": ("|/bin/cat, joe", ("|/bin/cat", "joe")),
    "half quoted program": ('|"/bin/cat x"', ('|"/bin/cat x"',)),
    "quotes in a program": ('"|cat \\"a b\\""', ('|cat "a b"',)),
    "file": ("/var/mail/list", ("/var/mail/list",)),
    "quoted file": ('"/dev/null"', ("/dev/null",)),
    "include": (":include:/etc/list", (":include:/etc/list",)),
    "quoted include, upper case": ('":INCLUDE: /etc/list"', (":include:/etc/list",)),
    "user only": ("\\joe, archive", ("\\joe", "archive")),
    "phrase and brackets": ("Joe Q. User <joe@x.test>", ("joe@x.test",)),
    "quoted phrase": ('"User, Joe" <joe@x.test>', ("joe@x.test",)),
    "comment": ("joe (the boss, really)", ("joe",)),
    "quoted local part": ('"joe smith"@x.test', ('"joe smith"@x.test',)),
    "literal": ("joe@[127.0.0.1]", ("joe@[127.0.0.1]",)),
    "detail": ("joe+lists", ("joe+lists",)),
    "utf-8": ("jürgen@bücher.test", ("jürgen@bücher.test",)),
    "source route is dropped": ("@a.test:joe@b.test", ("joe@b.test",)),
    "nothing": ("", ()),
}


@pytest.mark.parametrize(("value", "expected"), TARGETS.values(), ids=TARGETS.keys())
def test_targets(value: str, expected: tuple[str, ...]) -> None:
    assert split_targets(value) == expected


BAD_TARGETS = {
    "open quote": '"joe',
    "open comment": "joe (boss",
    "closing bracket": "joe )",
    "backslash at the end": "joe\\",
    "two words": "joe smith",
    "open angle": "Joe <joe@x.test",
    "empty angle": "Joe <>",
    "no local part": "@x.test",
    "no domain": "joe@",
    "two ats": "joe@a@b",
    "dots": "a..b@x.test",
    "relative include": ":include:list",
    "bad literal": "joe@[1.2.3]",
    "long local part": "x" * 65,
    "backslash with nothing": "\\ ,joe",
    "control": "joe\x00",
    "semicolon group": "friends: joe;",
}


@pytest.mark.parametrize("value", BAD_TARGETS.values(), ids=BAD_TARGETS.keys())
def test_bad_targets(value: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        split_targets(value)


def parse(text: str) -> dict[str, tuple[str, ...]]:
    return dict(parse_aliases(text, SETTINGS).entries)


FILES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "empty": ("", {}),
    "comments and empty lines": ("# a: b\n\n   \n#\n", {}),
    "no newline at the end": ("a: b", {"a": ("b",)}),
    "CRLF": ("a: b\r\nc: d\r\n", {"a": ("b",), "c": ("d",)}),
    "continued": ("a: b,\n  c,\n\td\ne: f\n", {"a": ("b", "c", "d"), "e": ("f",)}),
    "continued after a comment": ("a: b,\n# no\n  c\n", {"a": ("b", "c")}),
    "continued by backslash": ("a: b,\\\nc\nd: e\n", {"a": ("b", "c"), "d": ("e",)}),
    "value on the next line": ("a:\n  b\n", {"a": ("b",)}),
    "upper case name": ("PostMaster: Betty", {"postmaster": ("Betty",)}),
    "quoted name": ('"a:b": c', {"a:b": ("c",)}),
    "blanks before the colon": ("a  : b", {"a": ("b",)}),
    "decomposed letters": ("Zoe\u0308: b", {"zo\u00eb": ("b",)}),
    "detail": ("a+x: b\na+*: c", {"a+x": ("b",), "a+*": ("c",)}),
    "the first of two counts": ("a: b\nA: c", {"a": ("b",)}),
}


@pytest.mark.parametrize(("text", "expected"), FILES.values(), ids=FILES.keys())
def test_file(text: str, expected: dict[str, tuple[str, ...]]) -> None:
    assert parse(text) == expected


BAD_FILES = {
    "no colon": ("a: b\nfriends betty\n", 2, 'no ":" after "friends betty"'),
    "no name": (": b", 1, "is no alias name"),
    "no value": ("a: b\n\nc:\nd: e", 3, 'alias "c" has no value'),
    "blank in the name": ("a b: c", 1, "is no alias name"),
    "white space first": ("  a: b", 1, "cannot begin with white space"),
    "name with a domain": ("joe@x.test: b", 1, "cannot alias non-local names"),
    "open quote in the name": ('"a: b', 1, "quoted name"),
    "quote and no colon": ('"a" b', 1, "quoted name"),
    "bad target, line of its entry": ("a: b,\n c,\n d e\n", 1, "a: "),
    "bad target": ("# x\na: b\nc: d@\n", 3, "c: "),
}


@pytest.mark.parametrize(
    ("text", "line", "error"), BAD_FILES.values(), ids=BAD_FILES.keys()
)
def test_bad_file_names_the_line(text: str, line: int, error: str) -> None:
    with pytest.raises(LineError) as caught:
        parse(text)
    assert caught.value.line == line
    assert error in caught.value.error


BOUNDS = {
    "targets": (TableSettings(entries_max=2), "a: b, c\nd: e", "too many targets"),
    "entry": (TableSettings(line_octets_max=Size(9)), "a: b,\n c,\n d", "too long"),
}


@pytest.mark.parametrize(
    ("settings", "text", "error"), BOUNDS.values(), ids=BOUNDS.keys()
)
def test_bounds(settings: TableSettings, text: str, error: str) -> None:
    with pytest.raises(LineError, match=error):
        parse_aliases(text, settings)


def test_what_will_not_work_is_warned_of() -> None:
    text = 'a: "|prog"\nb: /file\nc: :include:/x\na: d\nn: /dev/null\n'
    warned = parse_aliases(text, SETTINGS).warnings
    assert [w.line for w in warned] == [1, 2, 3, 4]
    assert "programs is not supported" in warned[0].error
    assert "files is not supported" in warned[1].error
    assert "setting includes" in warned[2].error
    assert "duplicate" in warned[3].error
    warned = parse_aliases(text, SETTINGS, includes=True).warnings
    assert [w.line for w in warned] == [1, 2, 4]
    many = "".join(f"a{n}: /f\n" for n in range(2 * WARNINGS_MAX))
    assert len(parse_aliases(many, SETTINGS).warnings) == WARNINGS_MAX


SENDMAIL_S_FILE = """\
postmaster: betty
friends: betty, joe@whizzer.test
owner-friends: postmaster
loop: loop2
loop2: loop
toprog: "|/bin/cat >/tmp/12345678.out"
tofile: /tmp/12345678.out
"""


def test_newaliases_line_as_sendmail_prints_it(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    path.write_text(SENDMAIL_S_FILE)
    aliases = alias_file(str(path), SETTINGS)
    aliases.reload()
    assert aliases.stats_line() == (
        f"{path}: 7 aliases, longest 30 bytes, 145 bytes total"
    )
