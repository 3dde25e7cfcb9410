"""A whole SMTP session against one delivery line, for tests: lines in, replies out."""

from postroom.mail.envelope import Origin
from postroom.services.face import Face, Kind
from postroom.services.receive import ReceiveService
from postroom.testing.conversation import ListConversation, Piece
from postroom.testing.workbench import Bench

CLIENT = Origin(protocol="SMTP", client_ip="127.0.0.1", listener="in")
STRANGER = Origin(protocol="SMTP", client_ip="192.0.2.7", listener="in")
HELLO = "EHLO c.test\n"


async def say(
    bench: Bench, *pieces: Piece, origin: Origin = CLIENT, kind: Kind = Kind.SMTP
) -> list[str]:
    """Run a session; return code and status of each reply behind the hello."""
    server = bench.generation.server
    bench.generation = bench.generation._replace(faces={"in": Face(server, kind)})
    said = await whole(bench, *pieces, origin=origin)
    return said.codes[2:]


async def whole(
    bench: Bench, *pieces: Piece, origin: Origin = CLIENT, hello: str = HELLO
) -> ListConversation:
    """Run a session with what listener there is; return all that was said."""
    conversation = ListConversation(hello, *pieces)
    await ReceiveService(bench.tools).converse(conversation, origin)
    assert bench.budget.used == 0  # whatever happened
    return conversation


def begin(params: str = "", *recipients: str) -> str:
    """Return MAIL and RCPT lines of Ann's, for Joe if for nobody else."""
    lines = [f"MAIL FROM:<ann@c.test>{params}"]
    lines += [f"RCPT TO:<{name}@gonzo.test>" for name in recipients or ("joe",)]
    return "".join(f"{line}\n" for line in lines)
