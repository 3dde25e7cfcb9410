"""Loading a site's module: fresh each time, and clear about what is wrong with it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom import (
    MessageSubject,
    Session,
    Verdict,
    accept,
    add_recipient,
    hook,
    quarantine,
    reject,
    remove_header,
    replace_body,
    replace_header,
)
from postroom.mail.verdict import Reject
from postroom.policy.hooks import HookError
from postroom.policy.loader import Site, SiteError, load_site
from postroom.testing.policy import HookTrouble, PolicyTest, make_session

GOOD = """
from postroom import hook, reject

@hook.rcpt
def first(session, rcpt):
    return reject("5.7.1", "ONE")

@hook.mail
def second(session, mail): ...
"""

numbers = iter(range(1_000_000, 2_000_000))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "policy.py"
    for name in [one for one in sys.modules if one.startswith("postroom_site_1")]:
        del sys.modules[name]


def load(path: Path) -> Site:
    return load_site(str(path), next(numbers))


def answer_of(site: Site) -> str:
    verdict = site.hooks[0].function(make_session(), None)
    assert isinstance(verdict, Reject)
    return verdict.reply.text


def test_hooks_in_the_order_they_are_written(site: Path) -> None:
    site.write_text(GOOD)
    loaded = load(site)
    assert [(one.phase, one.name) for one in loaded.hooks] == [
        ("rcpt", "first"),
        ("mail", "second"),
    ]


def test_a_new_generation_is_fresh_and_the_old_one_lives_on(site: Path) -> None:
    site.write_text(GOOD)
    before = os.stat(site)
    old = load(site)
    site.write_text(GOOD.replace("ONE", "TWO"))
    # Same size and time: what fools byte code caches.
    os.utime(site, ns=(before.st_atime_ns, before.st_mtime_ns))
    new = load(site)
    assert (answer_of(old), answer_of(new)) == ("ONE", "TWO")
    assert not (site.parent / "__pycache__").exists()
    old.forget()
    assert old.module not in sys.modules
    assert answer_of(old) == "ONE"


def test_a_directory_with_files_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import traps\n")
    (folder / "words.py").write_text('WORD = "ONE"\n')
    (folder / "traps.py").write_text(
        "from postroom import hook, reject\nfrom .words import WORD\n"
        "@hook.rcpt\ndef trap(session, rcpt):\n    return reject('5.7.1', WORD)\n"
    )
    old = load(folder)
    (folder / "words.py").write_text('WORD = "TWO"\n')
    new = load(folder)
    assert (answer_of(old), answer_of(new)) == ("ONE", "TWO")
    new.forget()
    assert not any(name.startswith(new.module) for name in sys.modules)


def test_hooks_from_an_installed_package(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared_hooks.py").write_text(GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    site.write_text("from shared_hooks import first\n")
    try:
        assert [one.name for one in load(site).hooks] == ["first"]
        assert [one.name for one in load(site).hooks] == ["first"]
    finally:
        del sys.modules["shared_hooks"]


def test_odd_objects_in_a_module_do_no_harm(site: Path) -> None:
    site.write_text(
        "from unittest.mock import MagicMock\nfrom postroom import *\n"
        "from postroom import hook\nmock = MagicMock()\n"
    )
    assert load(site).hooks == ()


BAD = {
    "syntax": ("x = 1\ndef f(:\n", 2, "SyntaxError: "),
    "unfinished": ("x = (\n", 1, "SyntaxError: "),
    "name": ("x = 1\n\nx = y\n", 3, "NameError: name 'y' is not defined"),
    "import": ("import no_such_module\n", 1, "ModuleNotFoundError: "),
    "exit": ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
    "NUL": ("x = '\0'\n", 0, "null bytes"),
    "deep": ("def f():\n    raise ValueError('no')\nf()\n", 2, "ValueError: no"),
    "parameters": (
        "from postroom import hook\n@hook.rcpt\ndef f(session): ...\n",
        2,
        "HookError: f: a hook takes two parameters",
    ),
    "phase": (
        "from postroom import hook\n@hook.data\ndef f(s, d): ...\n",
        2,
        "no phase",
    ),
    "twice": (
        GOOD + "\n@hook.rcpt\ndef first(session, rcpt): ...\n",
        11,
        'two hooks are called "first"',
    ),
    "objects of one class": (
        "from postroom import hook\nclass A:\n    def __call__(self, s, r): ...\n"
        "a, b = hook.rcpt(A()), hook.rcpt(A())\n",
        0,
        'two hooks are called "A"',
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_loaded(name: str, site: Path) -> None:
    text, line, reason = BAD[name]
    site.write_text(text)
    before = set(sys.modules)
    with pytest.raises(SiteError) as caught:
        load(site)
    assert reason in caught.value.reason
    assert (caught.value.path, caught.value.line) == (str(site), line)
    assert str(caught.value).startswith(f"{site}:{line}: " if line else f"{site}: ")
    added = set(sys.modules) - before
    assert not any(module.startswith("postroom_site_") for module in added)


def test_an_error_in_another_file_of_the_site(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("from .other import x\n")
    (tmp_path / "other.py").write_text("\nx = 1 / 0\n")
    with pytest.raises(SiteError) as caught:
        load(tmp_path)
    assert (caught.value.path, caught.value.line) == (str(tmp_path / "other.py"), 2)


@pytest.mark.parametrize("name", ["none.py", "empty"])
def test_no_such_module(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SiteError, match="cannot be read: No such file"):
        load(tmp_path / name)


def test_the_kit_shows_a_hooks_failure_instead_of_451(site: Path) -> None:
    site.write_text(GOOD.replace('"5.7.1"', '"4.7.1"'))
    policy = PolicyTest(str(site))
    with pytest.raises(
        HookTrouble, match=r"first \(rcpt\): ValueError: .*policy\.py:6"
    ):
        policy.rcpt("joe@whizzer.test")


@hook.rcpt
def refuse(session: object, rcpt: object) -> object:
    return reject("5.7.1", "ONE")


async def test_the_kit_works_in_async_tests_too() -> None:
    policy = PolicyTest([refuse])
    said = policy.rcpt("joe@whizzer.test")
    assert said == "550 5.7.1 ONE"
    assert said != "550 5.7.1 TWO"
    assert said.rule == "refuse"
    assert policy.rcpt("joe@whizzer.test") == said


def test_the_kit_takes_a_path_and_functions_that_are_hooks_only(site: Path) -> None:
    site.write_text("")
    assert PolicyTest(site).rcpt("joe@whizzer.test") == "accept"
    with pytest.raises(HookError, match=r"is no hook: mark it with @hook\.rcpt"):
        PolicyTest([print])


def test_the_kit_shows_the_message_as_it_would_leave() -> None:
    @hook.message
    def change(session: Session, message: MessageSubject) -> Verdict:
        old = message.header("subject")
        assert message.headers("X-A") == ["1", "2 3"]
        assert message.header("X-None") == ""
        return accept(
            replace_header("Subject", f"[list] {old}"),
            remove_header("X-A"),
            replace_body("new\n"),
            add_recipient("archive@whizzer.test", silent=True),
        )

    @hook.message
    async def hold(session: Session, message: MessageSubject) -> Verdict:
        return accept(quarantine((await message.body(3)).decode()))

    said = PolicyTest([change, hold]).message(
        "Subject: gr\u00fc\u00dfe\nX-A: 1\nx-a: 2\n 3\n\nold body\n"
    )
    assert said.content == b"Subject: [list] =?UTF-8?B?Z3LDvMOfZQ==?=\r\n\r\nnew\r\n"
    assert said.held == "old"
    assert PolicyTest([change, hold]).rcpt("joe@whizzer.test") == "accept"


@pytest.mark.parametrize(
    ("text", "header", "body"),
    [
        pytest.param("A: b\n\nhi\n", b"A: b\r\n", b"hi\r\n", id="usual"),
        pytest.param("A: b\n\n", b"A: b\r\n", b"", id="no-body"),
        pytest.param("A: b\n", b"A: b\r\n", b"", id="header-only"),
        pytest.param("no header\n\nA: b\n", b"", b"no header\r\n\r\nA: b\r\n",
            id="no-header"),
        pytest.param("A: b\ntext\n\nC: d\n", b"A: b\r\n",
            b"text\r\n\r\nC: d\r\n", id="broken-off"),
        pytest.param("\nhi\n", b"", b"hi\r\n", id="empty-header"),
    ],
)  # fmt: skip
def test_the_kit_parts_a_message_as_the_server_does(
    text: str, header: bytes, body: bytes
) -> None:
    seen: list[bytes] = []

    @hook.message
    async def look(session: Session, message: MessageSubject) -> None:
        seen.extend((message.message.header, await message.body()))

    said = PolicyTest([look]).message(text)
    assert seen == [header, body]
    assert said.content == text.replace("\n", "\r\n").encode()
