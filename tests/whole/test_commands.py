"""``sendmail`` and its kin as people call them, on a host that runs, or does not."""

import re

from postroom.testing.caller import Caller
from postroom.testing.host import Host
from postroom.testing.ledger import entries_of, mail_of, reasons_of
from postroom.testing.world import World, until

LETTER = b"Subject: %s\n\nHello.\n"


def has(host: Host, user: str, subject: bytes) -> bool:
    return any(b"Subject: " + subject + b"\r\n" in one for one in mail_of(host, user))


def test_the_dialogue_is_shown(world: World, gonzo: Host, whizzer: Host) -> None:
    done = gonzo.run("sendmail", "-v", "joe@whizzer.test", text=LETTER % b"aloud")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    shown = [re.sub(r"\b[0-9A-Za-z]{11}\b Message", "ID Message", one) for one in lines]
    shown = [re.sub(r"(SIZE=|port )\d+", r"\1N", one) for one in shown]
    assert shown[:3] == [
        "joe@whizzer.test... Connecting to mx.whizzer.test. port N via esmtp...",
        "220 whizzer.test ESMTP Postroom",
        ">>> EHLO gonzo.test",
    ]
    assert shown[3].startswith("250-whizzer.test")
    at = next(n for n, one in enumerate(shown) if one.startswith(">>> MAIL"))
    assert all(one.startswith("250") for one in shown[3:at])
    assert shown[at].startswith(">>> MAIL From:<betty@gonzo.test> SIZE=N")
    assert shown[at + 1 :] == EXPECTED
    until("the letter", lambda: has(whizzer, "joe", b"aloud"), whizzer)
    (letter,) = [one for one in mail_of(whizzer, "joe") if b"aloud" in one]
    assert b"\r\nFrom: " in letter
    assert b"\r\nDate: " in letter
    assert b"\r\nMessage-Id: " in letter or b"\r\nMessage-ID: " in letter


EXPECTED = [
    ">>> RCPT To:<joe@whizzer.test>",
    ">>> DATA",
    "250 2.1.0 Sender ok",
    "250 2.1.5 Recipient ok",
    "354 End data with <CR><LF>.<CR><LF>",
    ">>> .",
    "250 2.0.0 ID Message accepted for delivery",
    "joe@whizzer.test... Sent (ID Message accepted for delivery)",
    "Closing connection to mx.whizzer.test.",
    ">>> QUIT",
    "221 2.0.0 whizzer.test closing connection",
]


def test_a_local_user_aloud(world: World, gonzo: Host) -> None:
    done = gonzo.run("sendmail", "-v", "joe", text=LETTER % b"local")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        "joe... Connecting to local...",
        "joe... Sent",
    ]
    assert has(gonzo, "joe", b"local")


def test_an_unknown_user(world: World, gonzo: Host) -> None:
    done = gonzo.run("sendmail", "nosuch", text=LETTER % b"nosuch")
    assert done.returncode == 67
    assert b"nosuch... User unknown" in done.stdout + done.stderr
    assert entries_of(gonzo) == []


def test_one_of_two_is_unknown(world: World, gonzo: Host) -> None:
    done = gonzo.run("sendmail", "nosuch", "joe", text=LETTER % b"half")
    assert done.returncode == 67
    until("the letter", lambda: has(gonzo, "joe", b"half"), gonzo)


def test_recipients_from_the_header(world: World, gonzo: Host, whizzer: Host) -> None:
    text = b"To: joe@whizzer.test\nBcc: joe\nSubject: header\n\nHello.\n.\nrest\n"
    assert gonzo.run("sendmail", "-t", "-i", text=text).returncode == 0
    until("the letter", lambda: has(whizzer, "joe", b"header"), gonzo)
    until("the copy", lambda: has(gonzo, "joe", b"header"), gonzo)
    for letter in (*mail_of(whizzer, "joe"), *mail_of(gonzo, "joe")):
        if b"Subject: header" in letter:
            assert b"Bcc" not in letter
            assert letter.endswith(b"Hello.\r\n.\r\nrest\r\n")


def test_a_dead_host_aloud_and_mailq(world: World, gonzo: Host) -> None:
    world.name("dead.test", 19)
    done = gonzo.run("sendmail", "-v", "joe@dead.test", text=LETTER % b"dead")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        f"joe@dead.test... Connecting to mx.dead.test. port {world.smtp_port}"
        " via esmtp...",
        "joe@dead.test... Deferred: Connection refused by mx.dead.test.",
    ]
    until("the reason", lambda: reasons_of(gonzo), gonzo)
    (entry,) = entries_of(gonzo)
    listed = gonzo.run("mailq").stdout.decode()
    assert "(1 request)" in listed
    assert entry["queue_id"] in listed
    assert "(Deferred: Connection refused by mx.dead.test.)" in listed
    assert listed.splitlines()[-1] == "\t\tTotal requests: 1"
    assert gonzo.run("sendmail", "-bp").stdout.decode() == listed
    removed = gonzo.run("postroom", "queue", "remove", str(entry["queue_id"]))
    assert removed.returncode == 0
    assert "is empty" in gonzo.run("mailq").stdout.decode()


def test_newaliases(world: World, gonzo: Host) -> None:
    path = gonzo.directory / "aliases"
    done = gonzo.run("newaliases")
    assert done.returncode == 0
    assert done.stdout.decode().startswith(f"{path}: 1 aliases, longest 5 bytes")
    # Which worker serves a client is chance: all of them know the aliases by then.
    path.write_text(path.read_text() + "pal: joe\n")
    gonzo.give_away()
    assert gonzo.run("newaliases").returncode == 0
    for _ in range(16):
        with Caller(world.ip(1), world.smtp_port) as caller:
            caller.hello()
            caller.ask("MAIL FROM:<betty@gonzo.test>")
            assert caller.ask("RCPT TO:<pal@gonzo.test>").code == 250


def test_smtp_on_standard_input(world: World, gonzo: Host) -> None:
    text = (
        b"EHLO here\r\nMAIL FROM:<betty@gonzo.test>\r\nRCPT TO:<joe@gonzo.test>\r\n"
        b"DATA\r\nSubject: batch\r\n\r\nx\r\n.\r\nQUIT\r\n"
    )
    done = gonzo.run("sendmail", "-bs", text=text)
    assert done.returncode == 0
    replies = re.findall(r"^(\d\d\d) ", done.stdout.decode(), re.MULTILINE)
    assert replies == ["220", "250", "250", "250", "354", "250", "221"]
    until("the letter", lambda: has(gonzo, "joe", b"batch"), gonzo)


def test_mail_handed_in_while_the_server_is_down(world: World) -> None:
    domain = "down.test"
    world.name(domain, 17)
    host = world.host(domain, 17)
    with host:
        pass  # makes the directories
    done = host.run("sendmail", "-v", "joe", text=LETTER % b"dropped")
    assert done.returncode == 0, done
    assert b"queued" in done.stdout + done.stderr
    assert len([p for p in (host.directory / "drop").iterdir() if p.is_file()]) == 1
    assert host.run("sendmail", "joe", text=LETTER % b"second").returncode == 0
    with host:
        until("the letters", lambda: has(host, "joe", b"dropped"), host)
        until("the letters", lambda: has(host, "joe", b"second"), host)
    assert len(mail_of(host, "joe")) == 2
    assert not [p for p in (host.directory / "drop").iterdir() if p.is_file()]
    (host.directory / "drop").rename(host.directory / "away")
    done = host.run("sendmail", "joe", text=LETTER % b"nowhere")
    assert done.returncode in (73, 75)
    assert done.stderr
