"""Why a connection cannot go on: what a ``Stream`` raises for its peer's faults."""

from postroom.net.tls import TlsError


class StreamError(Exception):
    """The connection cannot go on; the text says why."""


class StreamTimeout(StreamError):
    """The deadline passed while the peer was waited for."""


class StreamOverstayed(StreamTimeout):
    """The connection has lasted longer than any may (``end_at``)."""


class StreamTooSlow(StreamTimeout):
    """The peer sends slower than was demanded of it (``demand``)."""


class StreamLost(StreamError):
    """The peer, or the network, broke the connection off."""


class HandshakeFailed(StreamLost):
    """There is no TLS with this peer; ``is_plain``: it does not speak TLS at all."""

    def __init__(self, why: TlsError) -> None:
        super().__init__(f"TLS handshake failed: {why}")
        self.is_plain = why.is_plain


class StreamInterrupted(StreamError):
    """The server is asked to end; raised at most once, the stream is still good."""
