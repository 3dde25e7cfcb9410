"""Limits and choices of the SMTP core, for the server's side and the client's."""

from typing import Literal

import msgspec

from postroom.mail.units import Size


class ServerSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What a server puts up with. Every limit has a reply that names it."""

    command_line_octets_max: Size = Size(2048)
    """A command line with its CRLF; over it 500 5.5.2. At least 512 (RFC 5321
    §4.5.3.1.4), more because extensions lengthen MAIL and RCPT."""

    auth_line_octets_max: Size = Size(12288)
    """A line of an AUTH exchange (RFC 4954 §4); over it 500 5.5.6."""

    data_line_octets_max: Size = Size(64 * 1024)
    """A line of a message without its CRLF; over it 554 5.6.0 at the end of data."""

    message_octets_max: Size = Size(50 * 1024 * 1024)
    """A message; over it 552 5.3.4, at MAIL if SIZE says so, else at the end. 0: no
    limit."""

    recipients_max: int = 10_000
    """Accepted recipients of one message; over it 452 4.5.3 (RFC 5321 §4.5.3.1.10)."""

    errors_max: int = 20
    """Bad commands (syntax, sequence, unknown) without a message accepted between
    them; one more is answered by 421 4.7.0 and the session ends."""

    bare_line_ends: Literal["refuse", "fix"] = "refuse"
    """A CR or LF alone in a message: ``refuse`` it by 550 5.6.11 at the end of data,
    or ``fix`` it into CRLF. It never ends the message."""

    bare_names: bool = False
    """Take addresses without a domain, as ``sendmail -bs`` does for its caller. The
    recipient ``postmaster`` is always taken (RFC 5321 §4.5.1)."""

    dsn: bool = True
    """Offer DSN (RFC 3461): clients may ask for reports of success, delay and failure,
    or for none. Without it RET, ENVID, NOTIFY and ORCPT get 555 5.5.4."""

    starttls: bool = False
    """Offer STARTTLS (RFC 3207). The server cannot answer it yet, so only false."""

    auth_mechanisms: tuple[str, ...] = ()
    """SASL mechanisms to offer (RFC 4954), in upper case; none: AUTH is not offered."""


class ClientSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What a client puts up with from a server; beyond it the peer talks nonsense."""

    reply_line_octets_max: Size = Size(8192)
    """A line of a reply with its CRLF; RFC 5321 §4.5.3.1.5 says 512."""

    reply_lines_max: int = 128
    """Lines of one reply."""

    unread_octets_max: Size = Size(64 * 1024)
    """Octets that may arrive before a reply to anything is due."""
