import msgspec
import pytest

from postroom.mailbox.name import MailboxName, MailboxNameError, Place, place_of
from postroom.mailbox.settings import MailboxSettings

GOOD = {
    "plain": ("/mail/{user}", "joe", "", Place("/mail", ("joe",))),
    "at the root": ("/{user}", "joe", "", Place("/", ("joe",))),
    "relative": ("{user}", "joe", "", Place(".", ("joe",))),
    "relative deeper": ("mail/{user}", "joe", "", Place("mail", ("joe",))),
    "domain": (
        "/mail/{domain}/{user}/Maildir",
        "joe",
        "x.test",
        Place("/mail", ("x.test", "joe", "Maildir")),
    ),
    "within a word": (
        "/var/mail/u-{user}.mbox",
        "joe",
        "",
        Place("/var/mail", ("u-joe.mbox",)),
    ),
    "braces in a name": (
        "/m/{domain}/{user}",
        "{domain}",
        "{user}",
        Place("/m", ("{user}", "{domain}")),
    ),
    "utf-8": ("/m/{user}", "jürgen", "", Place("/m", ("jürgen",))),
}
BAD = {
    "slash": ("a/b", ""),
    "parent": ("..", ""),
    "itself": (".", ""),
    "hidden": (".ssh", ""),
    "empty": ("", ""),
    "nul": ("a\0b", ""),
    "newline": ("a\nb", ""),
    "c1 control": ("a\x85b", ""),
    "parent as domain": ("joe", ".."),
    "no domain": ("joe", ""),
    "too long": ("x" * 201, "x.test"),
    "lone surrogate": ("a\udc80", "x.test"),
}


@pytest.mark.parametrize("case", GOOD)
def test_place(case: str) -> None:
    template, user, domain, place = GOOD[case]
    assert place_of(template, MailboxName(user, domain)) == place


@pytest.mark.parametrize("case", BAD)
def test_bad_names_are_refused(case: str) -> None:
    user, domain = BAD[case]
    with pytest.raises(MailboxNameError):
        place_of("/mail/{domain}/{user}", MailboxName(user, domain))


def test_login_names() -> None:
    assert MailboxName.of_login("joe", "a.test") == MailboxName("joe", "a.test")
    assert MailboxName.of_login("joe@B.Test.") == MailboxName("joe", "b.test")
    assert MailboxName.of_login("a@b@c.test") == MailboxName("a@b", "c.test")


@pytest.mark.parametrize(
    "path", ["/mail/all", "/mail/{domain}", "/m/{user}{x}", "/m/{user}/"]
)
def test_bad_templates_are_refused(path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="mailbox path"):
        msgspec.convert({"path": path}, MailboxSettings)
