"""Domain names: checked once, brought to one form, U-labels made A-labels. Pure.

The one form is lower case ASCII without the final dot. A name that cannot be written
so cannot exist in the DNS as a mail domain, and is answered with None.
"""

import re
import unicodedata
from ipaddress import ip_address

NAME_OCTETS_MAX = 253  # RFC 1035 §2.3.4: 255 on the wire

# RFC 1035 §2.3.1 with RFC 1123 §2.1 (a digit may lead); "_" is in use (_dmarc).
_LABEL = r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def to_ascii(name: str) -> str | None:
    """Return a domain name in the one form, or None if it is no domain name.

    Non-ASCII labels must be letters, digits and marks in normal form, as RFC 5891 §5
    asks of look-ups; they become ``xn--`` labels.
    """
    name = name.removesuffix(".").lower()
    if not name.isascii():
        labels = [_a_label(label) for label in name.split(".")]
        if None in labels:
            return None
        name = ".".join(label for label in labels if label)
    if len(name) > NAME_OCTETS_MAX or not _NAME.fullmatch(name):
        return None
    return name


def is_ip_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address rather than a name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _a_label(label: str) -> str | None:
    if label.isascii():
        return label
    if unicodedata.normalize("NFKC", label) != label:  # RFC 5891 §5.3
        return None
    if not all(char == "-" or _is_word(char) for char in label):
        return None
    if label.startswith("-") or unicodedata.category(label[0]).startswith("M"):
        return None  # RFC 5891 §4.2.3.2
    return "xn--" + label.encode("punycode").decode("ascii")


def _is_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"
