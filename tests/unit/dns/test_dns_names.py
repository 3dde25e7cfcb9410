"""Domain names, hops, name servers and our own names: read strictly, in one form."""

import pytest

from postroom.dns.hop import Hop
from postroom.dns.names import to_ascii
from postroom.dns.nameserver import Nameserver, system_nameservers
from postroom.dns.own import OwnNames

NAMES = {
    "plain": ("whizzer.test", "whizzer.test"),
    "upper case": ("WhizZer.TEST", "whizzer.test"),
    "final dot": ("whizzer.test.", "whizzer.test"),
    "single label": ("localhost", "localhost"),
    "leading digit": ("3com.test", "3com.test"),
    "underscore": ("_dmarc.gonzo.test", "_dmarc.gonzo.test"),
    "u-label": ("bücher.test", "xn--bcher-kva.test"),
    "u-label in upper case": ("BÜCHER.test", "xn--bcher-kva.test"),
    "sharp s stays itself": ("straße.test", "xn--strae-oqa.test"),
    "label of 63": ("a" * 63 + ".test", "a" * 63 + ".test"),
    "name of 253": (
        ".".join(["a" * 49] * 5) + ".aaa",
        ".".join(["a" * 49] * 5) + ".aaa",
    ),
    "empty": ("", None),
    "only a dot": (".", None),
    "two final dots": ("a.test..", None),
    "empty label": ("a..test", None),
    "leading dot": (".test", None),
    "label of 64": ("a" * 64 + ".test", None),
    "name of 254": ("a." * 126 + "aa", None),
    "leading hyphen": ("-a.test", None),
    "trailing hyphen": ("a-.test", None),
    "blank": ("a b.test", None),
    "control": ("a\x00.test", None),
    "newline at the end": ("a.test\n", None),
    "slash": ("a/b.test", None),
    "ideographic dot": ("a。test", None),
    "full width": ("ａ.test", None),
    "combining mark first": ("\u0301a.test", None),
    "zero width joiner": ("a\u200db.test", None),
    "long u-label": ("ü" * 70 + ".test", None),
}


@pytest.mark.parametrize(("text", "expected"), NAMES.values(), ids=NAMES.keys())
def test_name(text: str, expected: str | None) -> None:
    assert to_ascii(text) == expected


HOPS = {
    "domain": ("Whizzer.Test.", Hop("whizzer.test"), "whizzer.test"),
    "domain with port": ("a.test:26", Hop("a.test", 26), "a.test:26"),
    "host": ("[relay.test]", Hop("relay.test", 0, False), "[relay.test]"),
    "host, port": (
        "[relay.test]:587",
        Hop("relay.test", 587, False),
        "[relay.test]:587",
    ),
    "ipv4": ("[127.0.0.2]", Hop("127.0.0.2", 0, False, True), "[127.0.0.2]"),
    "ipv4, port": ("[127.0.0.2]:2525", Hop("127.0.0.2", 2525, False, True), None),
    "bare ipv4": ("127.0.0.2", Hop("127.0.0.2", 0, False, True), "[127.0.0.2]"),
    "ipv6": ("[IPv6:::1]:25", Hop("::1", 25, False, True), "[IPv6:::1]:25"),
    "ipv6, no tag": ("[2001:db8:0::1]", Hop("2001:db8::1", 0, False, True), None),
    "ipv6, lower case tag": ("[ipv6:::1]", Hop("::1", 0, False, True), "[IPv6:::1]"),
}


@pytest.mark.parametrize(("text", "hop", "back"), HOPS.values(), ids=HOPS.keys())
def test_hop(text: str, hop: Hop, back: str | None) -> None:
    assert Hop.from_text(text) == hop
    assert Hop.from_text(hop.to_text()) == hop
    assert back in (None, hop.to_text())


BAD_HOPS = (
    "",
    "[]",
    "[a.test",
    "a.test]",
    "a b",
    "[a.test]25",
    "a.test:99999",
    "[a.test]:",
    "[IPv6:a.test]",
    "a.test:x",
    "::1",
    "[a.test]:25:25",
    "a@b",
)


@pytest.mark.parametrize("text", BAD_HOPS)
def test_bad_hop(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no mail host|ports end"):
        Hop.from_text(text)


SERVERS = {
    "192.0.2.1": Nameserver("192.0.2.1", 53),
    "127.0.0.1:5300": Nameserver("127.0.0.1", 5300),
    "[::1]:5300": Nameserver("::1", 5300),
    "[::1]": Nameserver("::1", 53),
    "2001:db8::1": Nameserver("2001:db8::1", 53),
}


@pytest.mark.parametrize(("text", "server"), SERVERS.items())
def test_nameserver(text: str, server: Nameserver) -> None:
    assert Nameserver.from_text(text) == server
    assert Nameserver.from_text(str(server)) == server


@pytest.mark.parametrize(
    "text", ["", "ns.test", "127.0.0.1:0", "127.0.0.1:65536", "[::1", "1.2.3", "[a]:53"]
)
def test_bad_nameserver(text: str) -> None:
    with pytest.raises(ValueError, match="is no name server"):
        Nameserver.from_text(text)


def test_system_nameservers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "# comment\nsearch x.test\nnameserver 192.0.2.1\nnameserver\n"
        "nameserver bogus\nnameserver ::1\noptions edns0\n"
    )
    found = system_nameservers(str(conf))
    assert found == (Nameserver("192.0.2.1"), Nameserver("::1"))
    assert system_nameservers(str(tmp_path / "none")) == (Nameserver("127.0.0.1"),)


def test_own_names_are_what_we_listen_on_not_all_of_loopback() -> None:
    own = OwnNames.of(["MX.gonzo.test."], ["127.0.1.1", "::ffff:127.0.1.3"], [25])
    assert own.is_name("mx.gonzo.test")
    assert not own.is_name("gonzo.test")
    assert own.is_address("127.0.1.1")
    assert own.is_address("::ffff:127.0.1.1")
    assert own.is_address("127.0.1.3")
    assert not own.is_address("127.0.1.2")
    assert own.is_address("127.0.1.1", 25)
    assert not own.is_address("127.0.1.1", 10025)


def test_bad_own_names() -> None:
    with pytest.raises(ValueError, match="no domain name"):
        OwnNames.of(["a b"])
    with pytest.raises(ValueError, match="not appear to be"):
        OwnNames.of([], ["localhost"])
