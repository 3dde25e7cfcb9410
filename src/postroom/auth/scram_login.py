"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as exchanges (RFC 5802 §5). Pure."""

from collections.abc import Mapping

from postroom.auth import scram
from postroom.auth.sasl import (
    NAME_OCTETS_MAX,
    Exchange,
    Failed,
    FindUser,
    FindVerifier,
    Known,
    Proven,
    Unavailable,
    ask,
    authorized,
    failed,
    first_of,
    say,
    to_name,
)

NAME = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"


def scram_sha_256(
    initial: bytes | None,
    nonce: str,
    bindings: Mapping[str, bytes],
    *,
    plus: bool = False,
) -> Exchange:
    """Both mechanisms.

    Args:
        initial: the client's first message, if it came with the command.
        nonce: our part of the nonce: printable ASCII without a comma, never used
            before.
        bindings: the channel bindings of this connection by type, if -PLUS is offered.
        plus: whether the client chose -PLUS.
    """
    first = scram.read_client_first((yield from first_of(initial)), bindings, plus=plus)
    if isinstance(first, scram.ScramError):
        return Failed(first.word, "malformed")
    name = to_name(first.user.encode())
    if name is None or len(first.acts_as) > NAME_OCTETS_MAX:
        return Failed("a name that is none", "malformed")
    verifier = yield FindVerifier(name)
    if isinstance(verifier, Unavailable):
        return failed(verifier, name)
    assert isinstance(verifier, scram.Verifier)
    given = scram.challenge(first, verifier, nonce)
    judged = scram.judge(given, (yield from say(given.to_wire())))
    # Looked up before anything is said, so that strangers cost the same.
    verdict = yield from ask(FindUser((name,)))
    if isinstance(judged, scram.ScramError):
        return Failed(judged.word, "wrong", name)
    if not isinstance(verdict, Known):
        return failed(verdict, name)
    ended = yield from authorized(verdict.user, judged.acts_as)
    # RFC 4954 §4: a success carries no data, so the proof goes as a challenge.
    if isinstance(ended, Proven) and (yield from say(judged.to_wire())):
        return Failed("a response to our proof", "malformed", name)
    return ended
