"""What a POP3 session asks of its surroundings, and tells them."""

import msgspec


class Login(msgspec.Struct, frozen=True, gc=False):
    """USER and PASS were given. Owed: ``login_accepted`` or ``login_refused``."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, password=***)"


class Retrieve(msgspec.Struct, frozen=True, gc=False):
    """RETR, or TOP: a message is to be sent. Counted from 0.

    Owed: ``message`` at once, or ``message_begin``, ``message_piece`` and
    ``message_end``, or ``message_refused``. ``top_lines`` is what TOP gave, else None;
    the cut is made by the connection, which says by ``wants_more`` when it has enough.
    """

    index: int
    top_lines: int | None = None


class Update(msgspec.Struct, frozen=True, gc=False):
    """QUIT in TRANSACTION: delete these messages. Owed: ``updated``."""

    deleted: tuple[int, ...]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A command was answered with ``-ERR``, for the log. Nothing is owed."""

    verb: str
    reply: str


class Flush(msgspec.Struct, frozen=True, gc=False):
    """Much is waiting to be sent: send it and wait for the client, then go on."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The session is over: send what waits and close.

    ``how`` is ``quit``, ``lost`` (the client went without QUIT) or ``errors``.
    """

    how: str


Event = Login | Retrieve | Update | Refused | Flush | Ended
