"""What a route says of a hop beside its name: protection, login, whom we come from.

Pure. People write ``[relay.test]:587 tls=verified login=relay``; in the queue the hop
stands as ``[relay.test]:587;tls=verified;login=relay``, so that mail which goes there
in another way is another hop. What makes no sense raises ``ValueError`` with a sentence
for a person.
"""

import re
from typing import Literal, get_args

import msgspec

from postroom.dns.hop import Hop
from postroom.dns.names import is_ip_address, to_ascii

TlsLevel = Literal["off", "opportunistic", "required", "verified"]
"""How much protection a connection to another host must have."""
UNIX = "unix:"
"""What hops that are sockets of this machine begin with."""
ImplicitTls = Literal["auto", "always", "never"]
"""Whether TLS begins at once, without STARTTLS; ``auto``: on port 465."""

_LEVELS = get_args(TlsLevel)
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


class HopOptions(msgspec.Struct, frozen=True):
    """What a route sets; None: what the configuration says of the destination."""

    tls: TlsLevel | None = None
    implicit_tls: ImplicitTls | None = None
    login: str | None = None
    source_ipv4: str | None = None
    source_ipv6: str | None = None
    helo_name: str | None = None


NO_OPTIONS = HopOptions()


def part_hop(text: str) -> tuple[str, HopOptions]:
    """Part a hop of the queue into its name and its options.

    Raises:
        ValueError: an option makes no sense.
    """
    name, semicolon, rest = text.partition(";")
    return name, _read(rest.split(";")) if semicolon else NO_OPTIONS


def hop_name(text: str) -> str:
    """Return a hop of the queue without its options."""
    return text.partition(";")[0]


def read_hop(text: str, *, implicit: bool = False) -> str:
    """Read a hop as people write it, and return it as it stands in the queue.

    ``implicit`` says that TLS begins at once (``smtps:``), by port 465 if none is
    named.

    Raises:
        ValueError: it is no hop, or an option makes no sense.
    """
    name, *options = text.replace(";", " ").split() or [""]
    if not name.startswith("/"):
        hop = Hop.from_text(name)
        if implicit and not hop.port:
            hop = msgspec.structs.replace(hop, port=465)
        name = hop.to_text()
    found = _read(options)
    if implicit:
        found = msgspec.structs.replace(found, implicit_tls="always")
    return name + "".join(f";{one}" for one in _written(found))


def _read(options: list[str]) -> HopOptions:
    values: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not (equals and value) or key not in _READERS:
            raise _expected(option)
        name, value = _READERS[key](value)
        if name in values:
            raise ValueError(f'"{option}": write each option once')
        values[name] = value
    return msgspec.convert(values, HopOptions)


def _written(options: HopOptions) -> list[str]:
    pairs = (
        ("tls", options.tls),
        ("implicit", options.implicit_tls),
        ("login", options.login),
        ("source", options.source_ipv4),
        ("source", options.source_ipv6),
        ("helo", options.helo_name),
    )
    return [f"{key}={value}" for key, value in pairs if value is not None]


def _level(value: str) -> tuple[str, str]:
    if value not in _LEVELS:
        raise ValueError(f'"tls={value}": write one of {", ".join(_LEVELS)}')
    return "tls", value


def _implicit(value: str) -> tuple[str, str]:
    if value not in get_args(ImplicitTls):
        raise ValueError(f'"implicit={value}": write "always", "never" or "auto"')
    return "implicit_tls", value


def _login(value: str) -> tuple[str, str]:
    if not _LOGIN.fullmatch(value):
        raise ValueError(
            f'"login={value}": write the name of a login of the logins file'
        )
    return "login", value


def _source(value: str) -> tuple[str, str]:
    if not is_ip_address(value):
        raise ValueError(f'"source={value}": write an address of this machine')
    return ("source_ipv6" if ":" in value else "source_ipv4"), value


def _helo(value: str) -> tuple[str, str]:
    name = to_ascii(value)
    if name is None:
        raise ValueError(f'"helo={value}": write a host name')
    return "helo_name", name


_READERS = {
    "tls": _level,
    "implicit": _implicit,
    "login": _login,
    "source": _source,
    "helo": _helo,
}


def _expected(option: str) -> ValueError:
    return ValueError(
        f'"{option}" is no option of a hop: write "tls=verified", "login=NAME", '
        '"source=192.0.2.1" or "helo=mail.example"'
    )
