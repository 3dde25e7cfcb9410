"""Limits and choices of the SMTP core, for the server's side and the client's."""

import re
from ipaddress import ip_network
from typing import Annotated, Literal

import msgspec

from postroom.mail.units import Duration, Size

_NETWORKS = (
    "mt_priority_networks",
    "etrn_networks",
    "expn_networks",
    "xclient_networks",
)
# priority-profile = 1*20(ALPHA / DIGIT / "-" / "_" / ".") (RFC 6710 §7)
_POLICY_NAME = re.compile(r"[A-Za-z0-9._\-]{0,20}")


Priority = Annotated[int, msgspec.Meta(ge=-9, le=9)]
"""How urgent a message is (RFC 6710 §4.1)."""


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

    smtputf8: bool = True
    """Offer SMTPUTF8 (RFC 6531): addresses and header fields in UTF-8. Without it
    such addresses get 550 or 553 5.6.7."""

    chunking: bool = True
    """Offer CHUNKING (RFC 3030): content in chunks (BDAT)."""

    chunk_octets_max: Size = Size(0)
    """One chunk; over it 552 5.3.4 once its octets were thrown away. 0: only
    ``message_octets_max`` counts."""

    binarymime: bool = True
    """Offer BINARYMIME (RFC 3030 §3) where CHUNKING is: bodies of any octets."""

    deliverby: bool = True
    """Offer DELIVERBY (RFC 2852): the client says until when mail is of use."""

    deliverby_min: Duration = Duration(0)
    """The shortest time that BY with R may give; under it 555 5.5.4. 0: any."""

    future_release: Literal["off", "submission", "always"] = "submission"
    """Offer FUTURERELEASE (RFC 4865): mail that is to wait here. RFC 4865 §4.2 allows
    it for ``submission`` only."""

    future_release_max: Duration = Duration.from_text("7d")
    """How long mail may wait; over it 501 5.5.4."""

    mt_priority: bool = True
    """Offer MT-PRIORITY (RFC 6710): how urgent a message is."""

    mt_priority_policy: str = ""
    """The name of the policy that the hello tells (RFC 6710 §9.2); empty: none."""

    mt_priority_min: Priority = -9
    """The lowest priority; what is lower is raised to it, and the client told 2.3.6."""

    mt_priority_max: Priority = 9
    """The highest priority; what is higher is lowered to it."""

    mt_priority_networks: tuple[str, ...] = ()
    """Clients that may raise a priority above 0 without a login; others' is
    lowered to 0 (RFC 6710 §4.1). Networks or addresses."""

    requiretls: bool = True
    """Offer REQUIRETLS (RFC 8689) once the session is encrypted: such mail goes on
    only to hosts that promise the same."""

    limits: bool = True
    """Offer LIMITS (RFC 9422): RCPTMAX, and MAILMAX if there is one."""

    messages_max: int = 0
    """MAIL commands of one session; one more is answered by 421 4.5.3. 0: no limit."""

    prdr: bool = True
    """Offer PRDR (draft-hall-prdr-00): policy may answer for each recipient after the
    content."""

    etrn: bool = False
    """Offer ETRN (RFC 1985): a client may have what waits for its domain tried."""

    etrn_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Who may say ETRN; others get 459 4.7.1. Networks or addresses."""

    vrfy: bool = False
    """Answer VRFY; otherwise it is 252 2.5.2, which tells nothing."""

    expn: bool = False
    """Answer EXPN, to ``expn_networks``; otherwise it is 502 5.7.0."""

    expn_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Who is told the members of a list; others get 550 5.7.1."""

    verb: bool = False
    """Answer VERB: what is done with a message is told in lines of code 050."""

    xclient_networks: tuple[str, ...] = ()
    """Proxies that may say for whom they speak (XCLIENT, as in Postfix). To all
    others the command does not exist."""

    hidden_keywords: tuple[str, ...] = ()
    """Keywords that the hello leaves out though they are understood, in upper case:
    for clients that stumble over them."""

    starttls: bool = False
    """Offer STARTTLS (RFC 3207): each ``[[listen]]`` says it with ``tls``, not here."""

    auth_mechanisms: tuple[str, ...] = ()
    """SASL mechanisms to offer (RFC 4954), in upper case; none: AUTH is not offered.
    Not to be set: see ``auth.mechanisms``, and ``login`` of each listener."""

    @property
    def line_octets_max(self) -> int:
        """The longest line in place of a command: AUTH may bring a token along."""
        longest = self.command_line_octets_max
        return max(longest, self.auth_line_octets_max * bool(self.auth_mechanisms))

    def is_over(self, line: bytes) -> bool:
        """Whether a line, without its CRLF, is too long for the command that it is."""
        over = len(line) + 2 > self.command_line_octets_max
        return over and line[:5].upper() != b"AUTH "

    def __post_init__(self) -> None:
        """Check what the types do not."""
        for name in _NETWORKS:
            for text in getattr(self, name):
                try:
                    ip_network(text)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        if not -9 <= self.mt_priority_min <= 0 <= self.mt_priority_max <= 9:
            raise ValueError("mt_priority_min and _max lie about 0, between -9 and 9")
        if not _POLICY_NAME.fullmatch(self.mt_priority_policy):
            raise ValueError("mt_priority_policy has 20 letters, digits, - _ . at most")


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
