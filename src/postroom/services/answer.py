"""What an errand has to say: by itself, for commands that only pass it on."""

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """What an errand has to say, and the exit code."""

    lines: tuple[str, ...]
    exit_code: int = 0
