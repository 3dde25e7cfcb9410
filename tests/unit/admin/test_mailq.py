"""The listing, compared with what sendmail 8.17 printed."""

import msgspec
import pytest

from postroom.admin.mailq import mailq_entry, mailq_foot, mailq_head
from postroom.spool.spool import Entry, EntryRecipient

AT = 1_795_361_640_000_000  # Sun Nov 22 15:34 2026 UTC
LONG = "Deferred: local mailer (/usr/libexec/mail.local) exited with EX_TEMPFAIL"


def recipient(address: str, status: str = "", **more: object) -> EntryRecipient:
    given = {"state": "ready", "active": False, "last_us": 0, "tries": 1, **more}
    return msgspec.convert(
        {
            "number": 0,
            "address": address,
            "hop": "local",
            "rule": "",
            "due_us": 0,
            "status_text": status,
            **given,
        },
        EntryRecipient,
    )


def entry(
    queue_id: str, sender: str, *recipients: EntryRecipient, **more: int
) -> Entry:
    return Entry(
        queue_id=queue_id,
        shard=0,
        sender=sender,
        size_octets=more.get("size", 39),
        arrival_us=AT,
        origin="local root",
        message_id="",
        recipients=recipients,
        body="7BIT",
        recipients_count=more.get("count", len(recipients)),
    )


def listing(*entries: Entry, verbose: bool = False) -> str:
    lines = mailq_head(len(entries), "/var/spool/mqueue", verbose=verbose)
    for entry in entries:
        lines += mailq_entry(entry, verbose=verbose, zone_offset_s=lambda _: 0)
    return "\n".join([*lines, mailq_foot(len(entries))]) + "\n"


THREE = (
    entry("6AMFYgFu005801", "root", recipient("betty", LONG)),
    entry(
        "6AMFYgtG005809",
        "root",
        recipient("joe@dead.test", "Deferred: Connection refused by [127.0.0.9]"),
    ),
    entry("6AMFYg4I005803", "postmaster", recipient("betty", LONG)),
)


def test_plain_form_is_sendmails() -> None:
    expected = (
        "\t\t/var/spool/mqueue (3 requests)\n"
        "-----Q-ID----- --Size-- -----Q-Time-----"
        " ------------Sender/Recipient-----------\n"
        "6AMFYgFu005801       39 Sun Nov 22 15:34 root\n"
        "                 (Deferred: local mailer (/usr/libexec/mail.local) exited"
        " with)\n"
        "\t\t\t\t\t betty\n"
        "6AMFYgtG005809       39 Sun Nov 22 15:34 root\n"
        "                 (Deferred: Connection refused by [127.0.0.9])\n"
        "\t\t\t\t\t joe@dead.test\n"
        "6AMFYg4I005803       39 Sun Nov 22 15:34 postmaster\n"
        "                 (Deferred: local mailer (/usr/libexec/mail.local) exited"
        " with)\n"
        "\t\t\t\t\t betty\n"
        "\t\tTotal requests: 3\n"
    )
    assert listing(*THREE) == expected


def test_verbose_form_is_sendmails() -> None:
    expected = (
        "\t\t/var/spool/mqueue (1 request)\n"
        "-----Q-ID----- --Size-- -Priority- ---Q-Time---"
        " --------Sender/Recipient--------\n"
        "6AMFYgFu005801       39      30039 Nov 22 15:34 root\n"
        "                 (Deferred: local mailer (/usr/libexec/mail.local) exited"
        " with EX_TEMPFAIL)\n"
        "\t\t\t\t\t\tbetty\n"
        "\t\tTotal requests: 1\n"
    )
    assert listing(THREE[0], verbose=True) == expected


def test_empty() -> None:
    assert listing() == "/var/spool/mqueue is empty\n\t\tTotal requests: 0\n"


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (
            entry("0AbCdEfGhIj", "a@b.test", recipient("c@d.test", active=True)),
            "0AbCdEfGhIj   *      39 Sun Nov 22 15:34 a@b.test",
        ),
        (
            entry("0AbCdEfGhIj", "", recipient("c@d.test")),
            "0AbCdEfGhIj          39 Sun Nov 22 15:34 <>",
        ),
        (
            entry("0AbCdEfGhIj", "", recipient("c@d.test", "spam?", state="held")),
            "     QUARANTINE: spam?",
        ),
        (
            msgspec.structs.replace(
                entry("0AbCdEfGhIj", "", recipient("c@d.test", "why")), body="8BITMIME"
            ),
            "      8BITMIME   (why)",
        ),
        (
            entry(
                "0AbCdEfGhIj",
                "",
                recipient("a", "old", last_us=1),
                recipient("b", "new", last_us=2),
            ),
            "                 (new)",
        ),
        (
            entry("0AbCdEfGhIj", "", recipient("a"), count=5000),
            "\t\t\t\t\t [4999 more]",
        ),
        (
            entry("0AbCdEfGhIj", "evil\x1b[2J", recipient("a")),
            "0AbCdEfGhIj          39 Sun Nov 22 15:34 evil?[2J",
        ),
    ],
    ids=["active", "null sender", "held", "8bit", "last reason", "many", "hostile"],
)
def test_line(shown: Entry, line: str) -> None:
    assert line in listing(shown).splitlines()
