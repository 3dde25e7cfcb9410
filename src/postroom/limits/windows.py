"""How many at once: a window that learns from success and failure. Pure.

A window opens by one for each success until the first failure (so that a good peer is
soon used fully), and from then on by one for each full window of successes. Each
failure closes it by one. It therefore hovers at what the peer bears; a peer that
allows three connections costs one refusal now and then, not a refusal per message.
"""


class FeedbackWindow:
    """A bound on concurrency between 1 and ``most``.

    Attributes:
        limit: how many may be in flight now.
        proven: whether the last that came back was a success.
    """

    __slots__ = ("_careful", "_since", "limit", "most", "proven")

    def __init__(self, start: int, most: int) -> None:
        assert 1 <= start <= most
        self.limit = start
        self.most = most
        self.proven = False
        self._careful = False
        self._since = 0

    def succeeded(self) -> None:
        """One came back well."""
        self.proven = True
        if self.limit >= self.most:
            return
        self._since += 1
        if not self._careful or self._since >= self.limit:
            self.limit += 1
            self._since = 0

    def failed(self) -> None:
        """One came back because the peer cannot take so many, or none."""
        self.proven = False
        self._careful = True
        self._since = 0
        self.limit = max(1, self.limit - 1)

    def close(self) -> None:
        """The peer is down: begin again with a single probe, then grow quickly."""
        self.proven = False
        self._careful = False
        self._since = 0
        self.limit = 1
