"""The one exception of this room. What a peer does wrong is an event, never this."""


class LocalProtocolError(Exception):
    """Our own code used the machine against the dialogue: a bug, with its reason."""
