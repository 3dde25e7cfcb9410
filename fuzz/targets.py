"""The targets by name, and the octets that each has in the corpus."""

from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz import framing, logins, protocol, tables, texts

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    "commands": protocol.commands,
    "parameters": protocol.parameters,
    "addresses": protocol.addresses,
    "session": protocol.session,
    "replies": protocol.replies,
    "client": protocol.client,
    "content": framing.content,
    "chunks": framing.chunks,
    "proxy": framing.proxy,
    "headers": texts.headers,
    "address-lists": texts.address_lists,
    "completion": texts.completion,
    "conversion": texts.conversion,
    "sasl": logins.sasl,
    "sasl-client": logins.sasl_client,
    "tokens": logins.tokens,
    "dns-answers": tables.dns_answers,
    "aliases": tables.aliases,
}

CORPUS = Path(__file__).parent / "corpus"


def corpus(name: str) -> Iterator[Path]:
    """Yield the files of a target, in order."""
    yield from sorted((CORPUS / name).iterdir())
