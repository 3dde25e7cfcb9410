"""What ``-q`` and ``-Q`` of ``sendmail`` ask of the queue. Pure.

``-qI``, ``-qR`` and ``-qS`` choose by a part of the id, a recipient or the sender,
``-qQ`` what is quarantined (by a part of the reason), ``-qL`` what was put aside; a
``!`` in front of the letter means the others. The same letter again means one or the
other, different letters mean both. ``-Qreason`` quarantines what is chosen, ``-Q``
alone lets what is quarantined go. The server runs its queue by itself, so intervals
and runners are taken and do nothing.
"""

import re

import msgspec

_INTERVAL = re.compile(r"[0-9]+([smhdw][0-9]*)*")
_FIELDS = {"I": "id_parts", "R": "recipients", "S": "senders", "Q": "reasons"}
BY_ITSELF = "the server runs its queue by itself: -q{} does nothing"
_TERMS_MAX = 100
_TEXT_CHARACTERS_MAX = 1_000


class QueueSelection(msgspec.Struct, frozen=True, gc=False):
    """Which queued messages are meant, all if empty, and what is to be done.

    The texts are patterns of ``QueueFilter``. ``quarantined`` and ``shunted`` say
    that such are meant and no others. ``quarantine`` is the reason to quarantine them
    for, ``""`` to let them go, None to try them now. ``note`` is to be shown instead
    of doing anything.
    """

    id_parts: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    quarantined: bool = False
    shunted: bool = False
    quarantine: str | None = None
    note: str = ""


class QueueRunError(ValueError):
    """A ``-q`` that makes no sense, or asks for what is not there."""


def add_selection(before: QueueSelection, value: str) -> QueueSelection:
    """Add the value of one more ``-q`` to a selection.

    Raises:
        QueueRunError: it is none; the text says why.
    """
    value = value.removeprefix("f")
    if not value:
        return before
    if _INTERVAL.fullmatch(value) or value.startswith("p"):
        return msgspec.structs.replace(before, note=BY_ITSELF.format(value))
    negated = "!" if value.startswith("!") else ""
    letter, text = value[len(negated) :][:1], value[len(negated) + 1 :]
    if letter == "L" and not (negated or text):
        return msgspec.structs.replace(before, shunted=True)
    if letter == "Q":
        before = msgspec.structs.replace(before, quarantined=True)
        if not (text or negated):
            return before
    field = _FIELDS.get(letter)
    if field is None:
        raise QueueRunError(
            f"-q{value} is not supported: -q, -qIid, -qRrecipient, -qSsender,"
            " -qQreason and -qL choose from the queue"
        )
    if not text or not text.isprintable() or len(text) > _TEXT_CHARACTERS_MAX:
        raise QueueRunError(f"-q{negated}{letter} needs a text to look for")
    terms: tuple[str, ...] = getattr(before, field)
    if len(terms) >= _TERMS_MAX:
        raise QueueRunError(f"more than {_TERMS_MAX} of -q{letter}")
    # A text that begins with "!" is meant as it stands.
    wanted = f"*{text}*" if text.startswith("!") else text
    return msgspec.structs.replace(before, **{field: (*terms, negated + wanted)})


def quarantining(before: QueueSelection, reason: str) -> QueueSelection:
    """Add the value of ``-Q``.

    Raises:
        QueueRunError: the reason is none.
    """
    if not reason.isprintable() or len(reason) > _TEXT_CHARACTERS_MAX:
        raise QueueRunError("the reason of -Q is one line")
    return msgspec.structs.replace(before, quarantine=reason)
