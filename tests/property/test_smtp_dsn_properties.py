"""DSN parameters: what one side accepts, the other writes, and nothing else passes."""

from hypothesis import assume, given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.mail.envelope import from_xtext, to_xtext
from postroom.smtp.commands import Mail, Rcpt, Refused, parser
from postroom.smtp.extensions import Extensions
from postroom.smtp.settings import ServerSettings
from postroom.smtp.transaction import Transaction, Wish, mail_line, rcpt_line

READ = parser(ServerSettings(), lmtp=False)
OFFERED = Extensions({"DSN": ""})
SENDER, RECIPIENT = Address("a", "b.test"), Address("c", "d.test")

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)
ENVID = PRINTABLE.map(to_xtext).filter(lambda text: len(text) <= 100)
ATOM = st.text("abcXYZ019-!#$%&'*/?^_`{|}~", min_size=1, max_size=20)
ORCPT = st.builds("{};{}".format, ATOM, PRINTABLE.map(to_xtext)).filter(
    lambda text: len(text) <= 500
)
WORD = st.sampled_from(["SUCCESS", "success", "FAILURE", "Delay"])
NOTIFY = st.just("NEVER") | st.lists(WORD, min_size=1, max_size=8).map(",".join)
ANYTHING = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=60)


@given(st.sampled_from(["", "FULL", "HDRS"]), st.just("") | ENVID)
def test_mail_comes_through(ret: str, envid: str) -> None:
    line = mail_line(Transaction(SENDER, (), ret=ret, envid=envid), OFFERED)
    command = READ(line.encode("ascii"))
    assert isinstance(command, Mail)
    assert (command.params.ret, command.params.envid) == (ret, envid)


@given(st.just("") | NOTIFY, st.just("") | ORCPT)
def test_rcpt_comes_through(notify: str, orcpt: str) -> None:
    wishes = (Wish(notify, orcpt),)
    line = rcpt_line(Transaction(SENDER, (RECIPIENT,), wishes=wishes), 0, OFFERED)
    command = READ(line.encode("ascii"))
    assert isinstance(command, Rcpt)
    assert (command.params.notify, command.params.orcpt) == (notify, orcpt)


@given(ANYTHING)
def test_only_printable_xtext_is_an_envid(value: str) -> None:
    assume(" " not in value and "\n" not in value)
    line = f"MAIL FROM:<a@b.test> ENVID={value}".encode("utf-8", "replace")
    command = READ(line)
    if isinstance(command, Mail):
        decoded = from_xtext(command.params.envid)
        assert decoded.isascii()
        assert decoded.replace("\t", " ").isprintable()
        assert 0 < len(value) <= 100
    else:
        assert isinstance(command, Refused)
        assert command.reply.code in (500, 501, 553)


@given(ANYTHING)
def test_only_a_type_and_printable_xtext_is_an_orcpt(value: str) -> None:
    assume(" " not in value and "\n" not in value)
    line = f"RCPT TO:<a@b.test> ORCPT={value}".encode("utf-8", "replace")
    command = READ(line)
    if isinstance(command, Rcpt):
        kind, semicolon, text = command.params.orcpt.partition(";")
        assert kind
        assert semicolon
        decoded = from_xtext(text)
        assert decoded.isascii()
        assert decoded.replace("\t", " ").isprintable()
    else:
        assert isinstance(command, Refused)
        assert command.reply.code in (500, 501, 553)


@given(st.lists(st.sampled_from(["NEVER", "SUCCESS", "FAILURE", "DELAY", "", "X"])))
def test_notify_is_never_alone_or_some_of_three(words: list[str]) -> None:
    command = READ(f"RCPT TO:<a@b.test> NOTIFY={','.join(words)}".encode())
    known = {"SUCCESS", "FAILURE", "DELAY", ""}
    good = words == ["NEVER"] or (known.issuperset(words) and any(words))
    good = good and len(",".join(words)) <= 100
    assert isinstance(command, Rcpt) is good
