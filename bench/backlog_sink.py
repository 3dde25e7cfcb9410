"""A host that takes all mail and throws it away: ``python -m bench.backlog_sink PORT``.

It says what is needed and no more, so that it is not what is measured.
"""

import asyncio
import sys

import uvloop

_END = b"\r\n.\r\n"


class _Taker(asyncio.Protocol):
    def __init__(self) -> None:
        self._rest = b""
        self._in_content = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        transport.write(b"220 sink.test ESMTP\r\n")  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._rest += data
        said = b""
        while True:
            end = _END if self._in_content else b"\r\n"
            line, found, rest = self._rest.partition(end)
            if not found:
                break
            self._rest = rest
            said += self._answer(line[:4].upper())
        if said:
            self._transport.write(said)
        if said.endswith(b"Bye\r\n"):
            self._transport.close()

    def _answer(self, verb: bytes) -> bytes:
        if self._in_content:
            self._in_content = False
            return b"250 2.0.0 Ok\r\n"
        if verb == b"EHLO":
            return b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
        if verb == b"DATA":
            self._in_content = True
            return b"354 go\r\n"
        return b"221 2.0.0 Bye\r\n" if verb == b"QUIT" else b"250 2.0.0 Ok\r\n"


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Taker, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
