"""Who follows a message's first attempts live: ``sendmail -v`` and the like."""

from asyncio import Future, get_running_loop

from postroom.mail.ids import QueueId
from postroom.mail.outcome import Say


class Listeners:
    """The people who watch, by message.

    A listener hears of a message until every recipient, those of expanded aliases
    included, was tried once; then its future is done.
    """

    def __init__(self) -> None:
        self._by_id: dict[QueueId, _Listener] = {}

    def add(self, queue_id: QueueId, say: Say, recipients: int) -> Future[None]:
        """Begin to listen for a message with so many recipients."""
        listener = _Listener(say, recipients, queue_id)
        self._by_id[queue_id] = listener
        return listener.finished

    def remove(self, queue_id: QueueId) -> None:
        """Stop listening: the message was not kept, or nobody is there any more."""
        listener = self._by_id.get(queue_id)
        for known in listener.ids if listener else ():
            self._by_id.pop(known, None)
        if listener and not listener.finished.done():
            listener.finished.set_result(None)

    def follow(self, queue_id: QueueId, clone: QueueId, recipients: int) -> None:
        """Whoever listens for a message also hears of its second envelope."""
        listener = self._by_id.get(queue_id)
        if listener:
            listener.ids.append(clone)
            listener.left += recipients
            self._by_id[clone] = listener

    @property
    def queue_ids(self) -> list[QueueId]:
        """The messages that somebody follows."""
        return list(self._by_id)

    def say_of(self, queue_id: QueueId) -> Say | None:
        """Return where this message's dialogue is narrated, if anywhere."""
        if not self._by_id:
            return None
        listener = self._by_id.get(queue_id)
        return listener.say if listener else None

    def tried(self, queue_id: QueueId, recipients: int, *, more: int = 0) -> None:
        """Note that recipients had their first try, or became ``more`` others."""
        if not self._by_id:
            return
        listener = self._by_id.get(queue_id)
        if not listener:
            return
        listener.left += more - recipients
        if listener.left <= 0:
            self.remove(queue_id)


class _Listener:
    __slots__ = ("finished", "ids", "left", "say")

    def __init__(self, say: Say, left: int, queue_id: QueueId) -> None:
        self.say = say
        self.ids = [queue_id]
        self.left = left
        self.finished: Future[None] = get_running_loop().create_future()
