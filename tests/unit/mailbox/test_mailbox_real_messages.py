from pathlib import Path

import pytest

from postroom.mail.ids import QueueIds
from postroom.mail.outcome import Delivered
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import InUse, Parcel, Unusable
from postroom.mailbox.stores import open_store
from postroom.testing.corpus import read_sample

JOE = MailboxName("joe")


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_what_comes_out_equals_what_went_in(tmp_path: Path, kind: str) -> None:
    settings = MailboxSettings(format=kind, path=f"{tmp_path}/{{user}}")  # type: ignore[arg-type]
    store = open_store(settings, "mx.test")
    ids = QueueIds(0)
    contents = [message.content for message in read_sample()]
    assert len(contents) == 300
    parcels = [
        Parcel(JOE, ids.next(0), i, "a@b", 1_767_225_600_000_000, content)
        for i, content in enumerate(contents)
    ]
    outcomes = store.deliver(parcels)
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    session = store.open(JOE)
    assert not isinstance(session, InUse | Unusable)
    assert list(session.sizes) == [len(content) for content in contents]
    assert session.read(0, 300, 10**9) == contents
    for i in range(0, 300, 10):
        assert b"".join(session.pieces(i)) == contents[i]
    assert session.remove(range(0, 300, 2)) == 0
    session.close()
    session = store.open(JOE)
    assert not isinstance(session, InUse | Unusable)
    assert session.read(0, 300, 10**9) == contents[1::2]
    session.close()
