"""LIST and UIDL of a second login open no message file, however many there are."""

import os
import sys
from pathlib import Path

import pytest

from postroom.mailbox.index import open_index
from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.maildir_session import INDEX_NAME, MaildirSession
from postroom.mailbox.name import MailboxName, Place
from postroom.mailbox.settings import MailboxSettings

JOE = MailboxName("joe")
OURS = 50_000
FOREIGN = 40
_opened: list[str] = []
_watched = ""


def _watch(event: str, args: tuple[object, ...]) -> None:
    # Sees every open of this process, by whatever function.
    if _watched and event == "open" and "M" in str(args[0]):
        _opened.append(str(args[0]))


sys.addaudithook(_watch)


@pytest.fixture
def store(tmp_path: Path) -> Maildirs:
    return Maildirs(MailboxSettings(path=f"{tmp_path}/{{user}}"), "mx.test")


def opens_of_login(store: Maildirs) -> tuple[MaildirSession, list[str]]:
    global _watched
    _opened.clear()
    _watched = "yes"
    session = store.open(JOE)
    _watched = ""
    assert isinstance(session, MaildirSession)
    session.close()
    return session, list(_opened)


def make(folder: Path, name: str, content: bytes = b"") -> None:
    handle = os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(handle, content)
    os.close(handle)


def test_fifty_thousand_messages(store: Maildirs, tmp_path: Path) -> None:
    opens_of_login(store)
    new, cur = tmp_path / "joe/new", tmp_path / "joe/cur"
    for i in range(OURS):
        folder, flags = (new, "") if i % 2 else (cur, ":2,S")
        make(folder, f"{1_700_000_000 + i}.M{i}.mx,S={i},W={i + 9}{flags}")
    for i in range(FOREIGN):
        make(cur, f"{1_800_000_000 + i}.M{i}.foreign:2,", b"A: b\n\n" + b"x\n" * i)
    first, opened = opens_of_login(store)
    assert len(opened) == FOREIGN  # these are read once, to learn their sizes
    second, opened = opens_of_login(store)
    assert opened == []
    assert list(second.uids) == list(first.uids)
    assert list(second.sizes) == list(first.sizes)
    assert list(second.sizes) == [i + 9 for i in range(OURS)] + [
        8 + 3 * i for i in range(FOREIGN)
    ]
    assert len(set(second.uids)) == OURS + FOREIGN


def test_the_index_follows_the_mailbox(store: Maildirs, tmp_path: Path) -> None:
    opens_of_login(store)
    cur = tmp_path / "joe/cur"
    for i in range(4):
        make(cur, f"10{i}.M.foreign:2,", b"A: b\n")
    opens_of_login(store)
    (cur / "100.M.foreign:2,").unlink()
    (cur / "101.M.foreign:2,").write_bytes(b"A: b\nmore\n")
    (cur / "102.M.foreign:2,").rename(cur / "102.M.foreign:2,S")
    session, opened = opens_of_login(store)
    assert [Path(name).name for name in opened] == ["101.M.foreign:2,"]
    assert list(session.sizes) == [12, 6, 6]
    index = open_index(Place(str(tmp_path), ("joe",)), INDEX_NAME)
    assert index
    assert sorted(index.maildir_files()) == [f"10{i}.M.foreign" for i in (1, 2, 3)]
    index.close()


BREAKAGES = ["no database", "cut off", "a directory", "a link"]


@pytest.mark.parametrize("case", BREAKAGES)
def test_a_broken_index_is_done_without(
    store: Maildirs, tmp_path: Path, case: str
) -> None:
    opens_of_login(store)
    make(tmp_path / "joe/cur", "100.M.foreign:2,", b"A: b\n")
    opens_of_login(store)
    path = tmp_path / "joe" / INDEX_NAME
    match case:
        case "no database":
            path.write_bytes(b"nonsense" * 1000)
        case "cut off":
            path.write_bytes(path.read_bytes()[:5000])
        case "a directory":
            path.unlink()
            path.mkdir()
        case "a link":
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere")
    session, opened = opens_of_login(store)
    assert list(session.sizes) == [6]
    assert len(opened) == 1
    assert not (tmp_path / "elsewhere").exists()
    _, opened = opens_of_login(store)
    assert len(opened) == (0 if case in ("no database", "cut off") else 1)
