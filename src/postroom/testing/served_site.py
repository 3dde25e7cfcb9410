"""A make-believe site on loopback: our server's core for agents to talk to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from postroom.testing.site import Site


class ServedSite:
    """Serves one ``Site`` to every connection.

    Args:
        site: who answers; connections share it, so use it with one at a time.

    Attributes:
        said: the octets that clients sent, a value for each connection.
        port: where it listens, once it runs.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.said: list[bytes] = []
        self.port = 0

    def commands(self, connection: int = 0) -> list[str]:
        """Return the lines of a connection that begin like a command of mail."""
        words = (b"EHLO", b"LHLO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"QUIT")
        lines = self.said[connection].split(b"\r\n")
        return [line.decode() for line in lines if line.startswith(words)]

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Be the site for one connection."""
        number = len(self.said)
        self.said.append(b"")
        connection = self.site.connect()
        writer.write(connection.greet(self.site.greeting))
        try:
            goes_on = True
            while goes_on:
                data = await reader.read(65536)
                self.said[number] += data
                connection.receive(data)
                goes_on = self.site.serve(connection) and bool(data)
                writer.write(connection.data_to_send())
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[ServedSite]:
    """Serve a site on a port of 127.0.0.2."""
    serving = ServedSite(site)
    server = await asyncio.start_server(serving.serve, "127.0.0.2", 0)
    serving.port = server.sockets[0].getsockname()[1]
    try:
        yield serving
    finally:
        server.close()
        await asyncio.sleep(0)
