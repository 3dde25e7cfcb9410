"""How content begins, and BDAT: content in chunks (RFC 3030), which ends as DATA does.

A chunk is answered by 250 once it was taken; if it cannot be, all that came of the
message is thrown away at once, and the core refuses what else the client sends of it.
"""

from collections.abc import Awaitable

from postroom.services import user_mail
from postroom.services.content import Content
from postroom.services.talk import Talk
from postroom.smtp import replies, server


def on_bdat_start(talk: Talk, event: server.BdatStart) -> Awaitable[None] | None:
    """Make room for the content; until there is some, no more of it is read."""
    return begin_content(talk)


def begin_content(talk: Talk) -> Awaitable[None] | None:
    """Make room for the content: at once, unless that must be awaited."""
    content = Content.begin_now(talk.tools, talk.generation)
    if content is None:
        return _begin_later(talk)
    _take(talk, content)
    return None


async def _begin_later(talk: Talk) -> None:
    _take(talk, await Content.begin(talk.tools, talk.generation))


def _take(talk: Talk, content: Content) -> None:
    assert talk.transaction is not None
    content.finishing = user_mail.finishing(talk, talk.transaction.mail.address)
    talk.content = content


def on_end_of_chunk(talk: Talk, event: server.EndOfChunk) -> Awaitable[None] | None:
    """Answer for one chunk (RFC 3030 §2)."""
    content = talk.content
    refusal = event.refusal or (content.failure if content else None)
    if refusal is None:
        talk.core.reply(replies.chunk_taken(event.size_octets))
        return None
    talk.rejected("BDAT", "", refusal, "content")
    talk.core.reply(refusal)
    return drop(talk)


def drop(talk: Talk) -> Awaitable[None] | None:
    """Throw away the chunks that have come, if there are any."""
    content, talk.content = talk.content, None
    return None if content is None else content.abandon()


async def drop_if_forgotten(talk: Talk, waiting: Awaitable[None] | None) -> None:
    """Wait for an answer; if it ended the transaction, throw its chunks away."""
    if waiting is not None:
        await waiting
    if talk.transaction is None:
        dropping = drop(talk)
        if dropping is not None:
            await dropping
