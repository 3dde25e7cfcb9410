"""Which mail counts as automatic (RFC 3834)."""

import pytest

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.automatic import Automatic, automatic, is_bulk

BETTY = Address("betty", "gonzo.test")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", None),
        (b"Subject: Auto-Submitted: auto-replied\r\n", None),
        (b"Auto-Submitted: no\r\n", None),
        (b"auto-submitted: NO\r\n", None),
        (b"Auto-Submitted: no; x=auto-replied\r\n", None),
        (b"Auto-Submitted: (auto-replied) no\r\n", None),
        (b"Auto-Submitted: auto-generated\r\n", Automatic.AUTO_SUBMITTED),
        (b"Auto-Submitted: auto-replied (vacation)\r\n", Automatic.AUTO_SUBMITTED),
        (b"Auto-Submitted: (a) (b)\r\n auto-x\r\n", Automatic.AUTO_SUBMITTED),
        (b"Auto-Submitted: no\r\nAuto-Submitted: x\r\n", Automatic.AUTO_SUBMITTED),
        (b"Auto-Submitted:\r\n", Automatic.AUTO_SUBMITTED),
        (b"Auto-Submitted: \xe9\r\n", Automatic.AUTO_SUBMITTED),
        (b"Auto-Submitted: notify\r\n", Automatic.AUTO_SUBMITTED),
        (b"Precedence: bulk\r\n", Automatic.PRECEDENCE),
        (b"precedence: JUNK\r\n", Automatic.PRECEDENCE),
        (b"Precedence: list (x)\r\n", Automatic.PRECEDENCE),
        (b"Precedence: first-class\r\n", None),
        (b"Precedence: bulky\r\n", None),
        (b"X-Precedence: bulk\r\n", None),
        (b"List-Id: <a.b>\r\n", Automatic.LIST),
        (b"LIST-UNSUBSCRIBE: <mailto:a@b>\r\n", Automatic.LIST),
        (b"List-Post: NO\r\n", Automatic.LIST),
        (b"List-Price: 3\r\n", None),
        (b"X-List-Id: x\r\n", None),
        (b"X-Auto-Response-Suppress: All\r\n", Automatic.SUPPRESS),
        (b"X-Auto-Response-Suppress: OOF, AutoReply\r\n", Automatic.SUPPRESS),
        (b"X-Auto-Response-Suppress: oof,dr\r\n", Automatic.SUPPRESS),
        (b"X-Auto-Response-Suppress: OOF\r\n", None),
        (b"X-Auto-Response-Suppress: \xff\r\n", None),
    ],
)
def test_header(header: bytes, expected: Automatic | None) -> None:
    assert automatic(header, BETTY) is expected
    bulk = {Automatic.PRECEDENCE, Automatic.LIST}
    assert is_bulk(header) is (expected if expected in bulk else None)


def test_a_null_sender_is_a_program() -> None:
    assert automatic(b"", NULL_SENDER) is Automatic.NULL_SENDER
