"""What a server answers to a command: three digits, a status, and lines of text."""

import msgspec


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One SMTP reply (RFC 5321 §4.2), ours or a peer's.

    ``status`` is the enhanced code (RFC 3463) such as ``"5.1.1"``, or empty where the
    RFC has none (greetings, EHLO, 354). ``lines`` holds the text without codes, at
    least one line, never CR or LF.
    """

    code: int
    status: str
    lines: tuple[str, ...]

    @classmethod
    def of(cls, code: int, status: str, *lines: str) -> "Reply":
        """Make a reply; without lines its text is empty."""
        return cls(code, status, lines or ("",))

    @property
    def text(self) -> str:
        """All lines joined by blanks."""
        return " ".join(self.lines)

    @property
    def is_positive(self) -> bool:
        """Whether the command was accepted (2yz or 3yz)."""
        return 200 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """Whether trying later may help (4yz)."""
        return 400 <= self.code < 500

    def to_wire(self) -> bytes:
        """Return the octets that are sent, each line ended by CRLF.

        Control characters in the text, which could forge a second reply, become
        question marks.
        """
        prefix = f"{self.status} " if self.status else ""
        last = len(self.lines) - 1
        out = [
            f"{self.code}{' ' if i == last else '-'}{prefix}{_printable(line)}\r\n"
            for i, line in enumerate(self.lines)
        ]
        return "".join(out).encode("utf-8", "replace")

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}".replace("  ", " ")


_CONTROLS = {code: "?" for code in (*range(32), 127) if code != 9}


def _printable(line: str) -> str:
    return line if line.isprintable() else line.translate(_CONTROLS)
