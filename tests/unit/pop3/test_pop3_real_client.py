"""Python's own POP3 client, in a thread, against the service on a real socket."""

import asyncio
import poplib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueIds
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Parcel
from postroom.mailbox.stores import open_store
from postroom.net.clock import read_now
from postroom.net.listener import listen
from postroom.pop3.settings import Pop3Settings
from postroom.services.retrieve import RetrieveService, RetrieveTools

CONTENTS = [b"N: %d\r\n\r\n.stop\r\n..\r\ntext\r\n" % i for i in range(40)]


async def authenticate(user: str, password: str, origin: Origin) -> str | None:
    return user if password == "secret" else None


def converse(port: int) -> None:
    client = poplib.POP3("127.0.0.1", port, timeout=10)
    assert "UIDL" in client.capa()
    client.user("joe")
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.user("joe")
    client.pass_("secret")
    assert client.stat() == (40, sum(map(len, CONTENTS)))
    assert len(client.list()[1]) == 40
    uids = [line.split()[1] for line in client.uidl()[1]]
    assert len(set(uids)) == 40
    for i, content in enumerate(CONTENTS, 1):
        lines = client.retr(i)[1]
        assert b"".join(line + b"\r\n" for line in lines) == content
        assert client.top(i, 1)[1][-1] == b".stop"
    for i in range(1, 40):
        client.dele(i)
    client.quit()
    client = poplib.POP3("127.0.0.1", port, timeout=10)
    client.user("joe")
    client.pass_("secret")
    assert [line.split()[1] for line in client.uidl()[1]] == uids[39:]
    client.quit()


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
async def test_poplib(tmp_path: Path, kind: str) -> None:
    settings = MailboxSettings(format=kind, path=f"{tmp_path}/{{user}}")  # type: ignore[arg-type]
    store, ids = open_store(settings, "mx.test"), QueueIds(0)
    store.deliver(
        [Parcel(MailboxName("joe"), ids.next(0), 0, "", 0, each) for each in CONTENTS]
    )
    with ThreadPoolExecutor(2) as pool:
        service = RetrieveService(
            Pop3Settings(login_failure_delay=Pop3Settings().login_delay),
            RetrieveTools(
                store=store,
                pool=pool,
                authenticate=authenticate,
                counters=SharedCounters.private(),
                emit=lambda event: None,
                clock=read_now,
            ),
        )
        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        listener = await listen(sock, service.serve)
        await asyncio.to_thread(converse, port)
        await listener.drained()
        listener.close()
