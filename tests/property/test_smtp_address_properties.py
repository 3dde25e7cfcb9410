"""Reading and writing an address are each other's reverse, whatever is in it."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address, AddressError

PARTS = 'a|b.c|.|@|"|\\|<|>| |[|]|:|IPv6:|::1|127.0.0.1|,|\r|\n|\0|é|example|%|!|\ud800'
TOKENS = st.sampled_from([*PARTS.split("|"), "x" * 60])
LOCALS = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=64
)
DOMAINS = st.from_regex(r"[a-z0-9]{1,20}(\.[a-z]{1,10}){0,3}", fullmatch=True)


@given(LOCALS, DOMAINS)
def test_any_printable_local_part_goes_round(local: str, domain: str) -> None:
    address = Address(local, domain)
    assert Address.from_text(address.to_text()) == address


@given(st.lists(TOKENS, max_size=12).map("".join) | st.text(max_size=30))
def test_what_was_read_goes_round(text: str) -> None:
    with contextlib.suppress(AddressError):
        address = Address.from_text(text)
        written = address.to_text()
        assert Address.from_text(written) == address
        assert Address.from_text(written).to_text() == written
        assert not any(c in written for c in "\r\n\0\x85\u2028")
        written.encode()
