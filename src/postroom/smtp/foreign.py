"""Tells from its first octets that a client speaks another protocol. Pure.

Browsers are made to send forms to port 25, scanners try TLS, RDP and SSH on every
port: to answer each of their lines only helps them, and what a browser sends might
hold commands further down. Judged is what comes before the hello; what is decided is
decided by a beginning that no more octets can change, so it does not matter how the
octets arrive.
"""

import re
from typing import Final

HEAD_OCTETS: Final = 64
"""How much of what has arrived is looked at, and told in the log."""

# One name for each; an SMTP command begins with four letters, none of these words.
_FOREIGN: Final = re.compile(
    rb"(?i:(?P<http>(?:GET|HEAD|POST|PUT|DELETE|CONNECT|TRACE|PATCH|PRI|PROPFIND) "
    rb"|OPTIONS [/*h])"
    rb"|(?P<sip>[A-Z]{3,9} sips?:)"
    rb"|(?P<rtsp>[A-Z]{3,13} rtsps?:)"
    rb"|(?P<ssh>SSH-)"
    rb"|(?P<vnc>RFB \d))"
    rb"|(?P<redis>[*$]\d)"
    rb"|(?P<xml><)"
    rb"|(?P<tls>[\x16\x80])"  # a handshake record, or the hello of SSL 2
    rb"|(?P<rdp>\x03)"  # TPKT
    rb"|(?P<socks>[\x04\x05])"
    rb"|(?P<binary>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f])"
)


def foreign_protocol(head: bytes) -> str:
    """Return what a client speaks that begins so; empty: it may be SMTP."""
    found = _FOREIGN.match(head)
    return found.lastgroup or "" if found else ""
