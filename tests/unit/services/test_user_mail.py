"""Mail from users who log in: whose sender it is, their rates, what is added to it."""

from typing import Any

import pytest

from postroom.mail.envelope import Origin
from postroom.mail.headers import edited_header, find, find_all
from postroom.observe.events import CommandRejected
from postroom.services.face import Face, Kind, Login
from postroom.services.receive import ReceiveService
from postroom.services.settings import SubmissionSettings
from postroom.smtp.settings import ServerSettings
from postroom.testing.conversation import ListConversation
from postroom.testing.workbench import Bench, Plan, bench

FACES = {
    "users": Face(ServerSettings(), Kind.SUBMISSION, login=Login.REQUIRED),
    "trusted": Face(ServerSettings(), Kind.SUBMISSION),
    "offered": Face(ServerSettings(), Kind.SMTP, login=Login.OFFERED),
}
BARE = "Subject: s\n\nhello\n"


def plan(**more: Any) -> Plan:
    return Plan(
        faces=FACES,
        users=("betty", "joe", "postmaster"),
        aliases={
            "boop": ["betty"],
            "queen": ["betty@gonzo.test"],
            "friends": ["betty", "joe"],
            "away": ["betty@far.test"],
        },
        senders={
            "sales@gonzo.test": "joe, betty",
            "@shop.test": "betty",
            "info": "betty",
        },
        **more,
    )


def origin(login: str, listener: str = "users") -> Origin:
    return Origin("SMTP", "198.51.100.7", 4242, login=login, listener=listener)


async def talk(
    b: Bench, text: str, login: str = "betty", listener: str = "users"
) -> ListConversation:
    conversation = ListConversation("EHLO c.test\n", text)
    await ReceiveService(b.tools).converse(conversation, origin(login, listener))
    return conversation


OWN = {
    "the user": "betty@gonzo.test",
    "in upper case": "BETTY@Gonzo.Test",
    "with a detail": "betty+lists@gonzo.test",
    "an alias for them alone": "boop@gonzo.test",
    "an alias for their whole address": "queen@gonzo.test",
    "from the table": "sales@gonzo.test",
    "a domain from the table": "anything@shop.test",
    "a local name from the table": "info@gonzo.test",
    "in another name of ours": "betty@localhost",
    "nobody": "",
}
FOREIGN = {
    "another user": "joe@gonzo.test",
    "an alias for several": "friends@gonzo.test",
    "an alias that leads away": "away@gonzo.test",
    "nobody here": "nosuch@gonzo.test",
    "elsewhere": "betty@far.test",
    "postmaster": "postmaster@gonzo.test",
    "the name with a trick": "betty%far.test@gonzo.test",
    "in quotes": '"betty@gonzo.test"@far.test',
    "our domain as a part": "betty@gonzo.test.far.test",
    "a domain below the table's": "x@sub.shop.test",
    "detail in front": "lists+betty@gonzo.test",
}


@pytest.mark.parametrize("sender", OWN.values(), ids=OWN.keys())
async def test_own_senders(sender: str) -> None:
    async with bench(plan()) as b:
        said = await talk(b, f"MAIL FROM:<{sender}>\nQUIT\n")
        assert said.codes[2] == "250 2.1.0"


COPIED = {
    "their name": ("betty@gonzo.test", "250 2.1.0"),
    "with a detail": ("Betty+Lists@gonzo.test", "250 2.1.0"),
    "an alias for the user, no further": ("boop@gonzo.test", "250 2.1.0"),
    "a detail that others have": ("betty+joe@gonzo.test", "553 5.7.1"),
    "a name that is theirs, too": ("joe@gonzo.test", "553 5.7.1"),
}


@pytest.mark.parametrize(("sender", "code"), COPIED.values(), ids=COPIED.keys())
async def test_whose_mail_is_copied_may_send(sender: str, code: str) -> None:
    aliases = {
        "betty": ["betty", "archive@far.test"],
        "betty+joe": ["joe"],
        "boop": ["\\betty"],
        "joe": ["joe", "betty"],
    }
    async with bench(Plan(faces=FACES, aliases=aliases)) as b:
        said = await talk(b, f"MAIL FROM:<{sender}>\nQUIT\n")
        assert said.codes[2] == code


@pytest.mark.parametrize("sender", FOREIGN.values(), ids=FOREIGN.keys())
async def test_senders_of_others(sender: str) -> None:
    async with bench(plan()) as b:
        said = await talk(b, f"MAIL FROM:<{sender}>\nQUIT\n")
        assert said.codes[2] == "553 5.7.1"
        (rejected,) = b.told(CommandRejected)
        assert rejected.rule == "not a sender of betty"


@pytest.mark.parametrize("sender", FOREIGN.values(), ids=FOREIGN.keys())
async def test_any_sender_by_setting(sender: str) -> None:
    async with bench(plan(submission=SubmissionSettings(own_senders=False))) as b:
        said = await talk(b, f"MAIL FROM:<{sender}>\nQUIT\n")
        assert said.codes[2] == "250 2.1.0"


async def test_a_login_with_our_domain_is_the_same_user() -> None:
    async with bench(plan()) as b:
        said = await talk(b, "MAIL FROM:<betty@gonzo.test>\nQUIT\n", "Betty@Gonzo.test")
        assert said.codes[2] == "250 2.1.0"


async def test_a_login_of_another_domain_owns_its_address() -> None:
    async with bench(plan()) as b:
        text = "MAIL FROM:<ann@far.test>\nRSET\nMAIL FROM:<bob@far.test>\nQUIT\n"
        said = await talk(b, text, "ann@far.test")
        assert said.codes[2:5] == ["250 2.1.0", "250 2.0.0", "553 5.7.1"]


async def test_a_look_up_that_fails_is_a_deferral() -> None:
    async with bench(plan()) as b:
        b.senders.fault = "cannot be read"
        said = await talk(b, "MAIL FROM:<betty@gonzo.test>\nQUIT\n")
        assert said.codes[2] == "451 4.3.0"


async def test_who_is_not_logged_in_can_send_nothing() -> None:
    async with bench(plan()) as b:
        text = "MAIL FROM:<betty@gonzo.test>\nRCPT TO:<joe@gonzo.test>\nDATA\nQUIT\n"
        said = await talk(b, text, login="")
        assert said.codes[2:] == ["530 5.7.0", "503 5.5.1", "503 5.5.1", "221 2.0.0"]


async def test_a_login_that_is_only_offered_is_not_asked_for() -> None:
    async with bench(plan()) as b:
        text = "MAIL FROM:<ann@far.test>\nRCPT TO:<joe@gonzo.test>\nQUIT\n"
        said = await talk(b, text, "", "offered")
        assert said.codes[2:4] == ["250 2.1.0", "250 2.1.5"]


async def test_a_login_is_leave_to_relay() -> None:
    async with bench(plan()) as b:
        text = "MAIL FROM:<betty@gonzo.test>\nRCPT TO:<ann@far.test>\nQUIT\n"
        assert (await talk(b, text)).codes[3] == "250 2.1.5"
        stranger = "MAIL FROM:<betty@gonzo.test>\nRCPT TO:<ann@far.test>\nQUIT\n"
        assert (await talk(b, stranger, "", "trusted")).codes[3] == "550 5.7.1"


async def test_messages_of_a_user_have_a_rate() -> None:
    rules = SubmissionSettings(message_rate="2/1h", recipient_rate="")
    async with bench(plan(submission=rules)) as b:
        one = "MAIL FROM:<betty@gonzo.test>\nRSET\n"
        said = await talk(b, one * 3 + "QUIT\n")
        assert said.codes[2::2][:3] == ["250 2.1.0", "250 2.1.0", "450 4.7.1"]
        # Another connection is the same user, another user is not.
        assert (await talk(b, one + "QUIT\n")).codes[2] == "450 4.7.1"
        joe = await talk(b, "MAIL FROM:<joe@gonzo.test>\nQUIT\n", "joe")
        assert joe.codes[2] == "250 2.1.0"
        b.clock.jump(3600)
        assert (await talk(b, one + "QUIT\n")).codes[2] == "250 2.1.0"


async def test_recipients_of_a_user_have_a_rate() -> None:
    rules = SubmissionSettings(message_rate="", recipient_rate="2/1h")
    async with bench(plan(submission=rules)) as b:
        to = "RCPT TO:<joe@gonzo.test>\n"
        said = await talk(b, "MAIL FROM:<betty@gonzo.test>\n" + to * 3 + "QUIT\n")
        assert said.codes[3:6] == ["250 2.1.5", "250 2.1.5", "450 4.7.1"]


LETTER = "MAIL FROM:<betty@gonzo.test>\nRCPT TO:<joe@gonzo.test>\nDATA\n"


async def header_of(b: Bench, content: str, listener: str = "users") -> bytes:
    """Send a letter to joe; return its header as joe's mailbox gets it."""
    login = "betty" if listener == "users" else ""
    said = await talk(b, f"{LETTER}{content}.\nQUIT\n", login, listener)
    assert said.codes[5] == "250 2.0.0"
    return await delivered_header(b)


async def delivered_header(b: Bench) -> bytes:
    await b.idle()
    (attempt,) = b.agents["mailbox"].attempts
    return edited_header(attempt.message)


async def test_what_is_missing_is_added() -> None:
    async with bench(plan()) as b:
        header = await header_of(b, BARE)
        assert find(header, "From") == b"betty@gonzo.test"
        assert find(header, "Date") == b"Sun, 22 Nov 2026 12:00:00 +0000"
        assert (find(header, "Message-Id") or b"").endswith(b"@gonzo.test>")
        assert find(header, "Subject") == b"s"


async def test_what_is_there_is_kept() -> None:
    given = "Date: d\nFrom: B <betty@gonzo.test>\nMessage-Id: <1@c.test>\nX: y\n\nhi\n"
    async with bench(plan()) as b:
        header = await header_of(b, given)
        kept = given.partition("\n\n")[0].replace("\n", "\r\n") + "\r\n"
        assert header.endswith(kept.encode())


async def test_blind_copies_and_a_return_path_go() -> None:
    given = "To: joe@gonzo.test\nBcc: ann@far.test\nReturn-Path: <x@y>\n\nhi\n"
    async with bench(plan()) as b:
        header = await header_of(b, given)
        assert not find_all(header, "Bcc")
        assert not find_all(header, "Return-Path")


async def test_text_without_a_header_stays_the_body() -> None:
    async with bench(plan()) as b:
        header = await header_of(b, "just a line\n")
        assert b"just a line" not in header
        assert find(header, "From") == b"betty@gonzo.test"


async def test_a_trusted_network_needs_no_login_but_gets_the_same() -> None:
    async with bench(plan()) as b:
        header = await header_of(b, BARE, "trusted")
        assert find(header, "From") == b"betty@gonzo.test"


async def test_mail_from_another_host_is_left_alone() -> None:
    async with bench(plan()) as b:
        header = await header_of(b, BARE, "offered")
        assert find(header, "From") is None


@pytest.mark.parametrize("hidden", [False, True])
async def test_the_client_is_hidden_by_setting(hidden: bool) -> None:
    async with bench(plan(submission=SubmissionSettings(hide_client=hidden))) as b:
        header = await header_of(b, BARE)
        (received,) = find_all(header, "Received")
        assert (b"198.51.100.7" in received) is not hidden
        assert (b"c.test" in received) is not hidden
        assert b"by gonzo.test with ESMTP" in received


async def test_a_caller_of_sendmail_bs_gets_a_domain_and_a_whole_header() -> None:
    async with bench(plan()) as b:
        envelope = "EHLO localhost\nMAIL FROM:<betty>\nRCPT TO:<joe>\nDATA\n"
        conversation = ListConversation(envelope, f"{BARE}.\nQUIT\n")
        caller = Origin(protocol="local", login="betty", listener="submit")
        await ReceiveService(b.tools).converse(conversation, caller)
        assert conversation.codes[5] == "250 2.0.0"
        assert find(await delivered_header(b), "From") == b"betty@gonzo.test"


FROM_OWN = {
    "the user": "From: Betty Boop <betty@gonzo.test>",
    "a bare name": "From: betty",
    "an alias": "From: boop@gonzo.test",
    "two of them": "From: betty@gonzo.test, boop@gonzo.test\nSender: queen@gonzo.test",
    "none": "Subject: s",
    "a reply elsewhere": "From: betty@gonzo.test\nReply-To: joe@far.test",
}
FROM_FOREIGN = {
    "another": "From: joe@gonzo.test",
    "another with our name": "From: betty@gonzo.test <joe@gonzo.test>",
    "one of two": "From: betty@gonzo.test, ann@far.test",
    "a second field": "From: betty@gonzo.test\nFrom: ann@far.test",
    "the sender": "From: betty@gonzo.test\nSender: joe@gonzo.test",
    "folded": "From: Betty\n <joe@gonzo.test>",
    "resent": "From: betty@gonzo.test\nResent-From: joe@gonzo.test",
    "nonsense": "From: <<>",
    "empty": "From:",
    "a group": "From: all: joe@gonzo.test;",
    "comments": "From: (betty@gonzo.test) joe@gonzo.test",
}


async def said_of(b: Bench, head: str) -> str:
    said = await talk(b, f"{LETTER}{head}\n\nhi\n.\nQUIT\n")
    return said.codes[5]


@pytest.mark.parametrize("head", FROM_OWN.values(), ids=FROM_OWN.keys())
async def test_own_names_in_the_header(head: str) -> None:
    async with bench(plan(submission=SubmissionSettings(own_from=True))) as b:
        assert await said_of(b, head) == "250 2.0.0"


@pytest.mark.parametrize("head", FROM_FOREIGN.values(), ids=FROM_FOREIGN.keys())
async def test_names_of_others_in_the_header(head: str) -> None:
    async with bench(plan(submission=SubmissionSettings(own_from=True))) as b:
        assert await said_of(b, head) == "550 5.7.1"
        assert b.told(CommandRejected)[0].rule == "own_from of betty"
    async with bench(plan()) as b:
        assert await said_of(b, head) == "250 2.0.0"
