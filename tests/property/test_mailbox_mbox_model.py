"""An mbox that everyone writes to, in any order: what is read is what should be there.

Deliveries, other programs that append and mark messages, and sessions that delete while
mail comes, against a list of what the mbox must hold.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.ids import QueueIds
from postroom.mail.outcome import Delivered
from postroom.mail.units import Duration
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.mbox_session import MboxSession
from postroom.mailbox.name import MailboxName
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Parcel

JOE = MailboxName("joe")
ARRIVAL_US = 1_767_225_600_000_000
LINE = b"From a@b Mon Jan  5 10:00:00 2026\n"
BODIES = (
    b"",
    b"x\r\n",
    b"From me\r\n>From me\r\n",
    b"\r\nFrom a@b Mon Jan  5 10:00:00 2026\r\nA: b\r\n",
    b"\r\n\r\n",
    b"y" * 3000 + b"\r\n",
)
FOREIGN_ENDS = (b"t\n\n", b"t\n", b"t", b"t\r\n", b"t\r\n\r\n")


class Model:
    """The mbox, and what must be in it; each act is told its choices by a number."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "joe"
        settings = MailboxSettings(
            format="mbox", path=f"{directory}/{{user}}", lock_timeout=Duration(0)
        )
        self.store = Mboxes(settings)
        self.ids = QueueIds(0)
        self.count = 0
        self.letters: list[bytes] = []

    def deliver(self, choice: int) -> None:
        self.count += 1
        content = b"N: %d\r\n\r\n%b" % (self.count, BODIES[choice % len(BODIES)])
        queue_id = self.ids.next(ARRIVAL_US + self.count)
        parcel = Parcel(JOE, queue_id, 0, "a@b", ARRIVAL_US, content)
        assert isinstance(self.store.deliver([parcel])[0], Delivered)
        self.letters.append(content)

    def append(self, choice: int) -> None:
        """Another program delivers, and ends its message as it likes."""
        self.count += 1
        before = self.path.read_bytes() if self.path.exists() else b""
        gap = b""
        if before and not before.endswith((b"\n\n", b"\n\r\n")):
            gap = b"\n" if before.endswith(b"\n") else b"\n\n"
        body = FOREIGN_ENDS[choice % len(FOREIGN_ENDS)]
        with self.path.open("ab") as file:
            file.write(gap + LINE + b"N: %d\n\n%b" % (self.count, body))
        self.letters.append(b"N: %d\r\n\r\nt\r\n" % self.count)

    def mark(self, choice: int) -> None:
        """Another program marks a message as read."""
        if not self.letters:
            return
        i = choice % len(self.letters)
        field = self.letters[i].partition(b"\r\n")[0]
        before = self.path.read_bytes()
        after = before.replace(field + b"\n\n", field + b"\nStatus: RO\n\n")
        if after != before:
            self.path.write_bytes(after)
            marked = field + b"\r\nStatus: RO"
            self.letters[i] = self.letters[i].replace(field, marked, 1)

    def fetch(self, choice: int) -> None:
        session = self.store.open(JOE)
        assert isinstance(session, MboxSession)
        found = session.read(0, 1000, 10**9) if session.sizes else []
        assert found == self.letters
        assert list(session.sizes) == [len(letter) for letter in self.letters]
        assert len(set(session.uids)) == len(found)
        there = range(len(found))
        if choice % 3 == 0:
            self.deliver(choice)
        deleted = [i for i in there if choice >> i & 1]
        assert session.remove(deleted) == 0
        session.close()
        self.letters = [
            letter for i, letter in enumerate(self.letters) if i not in deleted
        ]


ACTS = (Model.deliver, Model.append, Model.mark, Model.fetch, Model.fetch)
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 0xFFFF)), max_size=25)


@given(STEPS)
def test_everybody_writes(
    steps: list[tuple[Callable[[Model, int], None], int]],
) -> None:
    with TemporaryDirectory() as directory:
        model = Model(Path(directory))
        for act, choice in steps:
            act(model, choice)
        model.fetch(0)
