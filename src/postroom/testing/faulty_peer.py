"""A mail host that misbehaves at a chosen step, on an address of its own.

It runs beside the test in a ``Background``. The misbehaviours have names, so that a
test can go through all of them at all steps::

    with Background() as background:
        with FaultyPeer(background, "127.0.5.3", 2525) as peer:
            peer.misbehave("RCPT", "drops")
            ...
            peer.behave()
"""

import asyncio
from types import TracebackType

from postroom.testing.background import Background
from postroom.testing.scripted_host import WILLING, Answer, ScriptedHost

STEPS = ("@", "EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT")
"""Where it can misbehave: the greeting, the commands, and ``.``, the content."""

HELLO = b"250-peer.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
"""It names no size that would be too large."""

WAYS: dict[str, Answer] = {
    "hangs": b"",
    "drops": None,
    "raves": b"\xff\xfe\x00 what is this?\r\n<html>\r\n",
    "refuses now": b"421 4.3.2 not now\r\n",
}
"""How it can misbehave. ``raves`` answers octets that are no reply."""


class FaultyPeer:
    """One such host; use it as a context manager.

    Args:
        background: where it runs.
        ip: where it listens.
        port: its port.

    Raises:
        OSError: the address is taken.
    """

    def __init__(self, background: Background, ip: str, port: int) -> None:
        self._background = background
        self._ip, self._port = ip, port
        self._host = ScriptedHost({"EHLO": HELLO})
        self._server: asyncio.Server | None = None

    def __enter__(self) -> "FaultyPeer":
        self._background.run(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._background.run(self._stop())

    @property
    def messages(self) -> list[bytes]:
        """The contents it took since the last change, dots as sent."""
        return list(self._host.messages)

    @property
    def connections(self) -> int:
        """How often it was called since the last change."""
        return self._host.connections

    def misbehave(self, step: str, way: str) -> None:
        """From now on, behave well but for one step."""
        self.answer({step: WAYS[way]})

    def behave(self) -> None:
        """From now on, take everything."""
        self.answer({})

    def answer(self, answers: dict[str, Answer]) -> None:
        """From now on, answer so; connections that stand are broken off."""
        said = {**WILLING, "EHLO": HELLO, **answers}
        self._background.run(self._change(ScriptedHost(said)))

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._ip, self._port)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._change(ScriptedHost())

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._host.serve(reader, writer)

    async def _change(self, host: ScriptedHost) -> None:
        before, self._host = self._host, host
        before.drop_all()
        before.released.set()
        await asyncio.sleep(0)
