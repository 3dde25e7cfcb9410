"""What is kept of messages, for how long, and how it is found again."""

import errno
import os
from pathlib import Path

import pytest

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueId, QueueIds
from postroom.mail.now import DAY_US, HOUR_US
from postroom.mail.outcome import Delivered, Failed
from postroom.mail.units import Duration, Size
from postroom.observe import events
from postroom.observe.events import AnyEvent
from postroom.observe.history import BATCH_EVENTS_MAX as HISTORY_BATCH
from postroom.observe.history import HistorySink, HistoryWriter, files_of
from postroom.observe.settings import HistorySettings
from postroom.observe.traces import Found, Search, Traces

NOON_US = 1_795_348_800_000_000
SMALL = HistorySettings(file_octets=Size(1_000), octets_max=Size(4_000))
CLIENT = Origin("ESMTP", "192.0.2.1", 4711, "me.test", "me.test", "", "smtp")


class Teller:
    """Tells of messages, each a second after the one before."""

    def __init__(self) -> None:
        self._ids = QueueIds(0)
        self.now_us = NOON_US

    def queued(self, sender: str = "betty@gonzo.test") -> events.MessageQueued:
        self.now_us += 1_000_000
        queue_id = self._ids.next(self.now_us)
        return events.MessageQueued(
            self.now_us,
            queue_id,
            Address.from_text(sender),
            39,
            1,
            f"<{queue_id}@m.test>",
            CLIENT,
        )

    def sent(
        self, queue_id: QueueId, to: str = "joe@whizzer.test"
    ) -> events.AttemptDone:
        self.now_us += 1_000_000
        outcome = Delivered("2.0.0", "ok", "mx [192.0.2.9]")
        return events.AttemptDone(
            self.now_us, queue_id, Address.from_text(to), outcome, "smtp", 1, 5, 5
        )


def keep(home: Path, *told: AnyEvent, name: str = "worker-0") -> Traces:
    with HistoryWriter(str(home), HistorySettings(), name) as writer:
        for event in told:
            writer.write(event)
    return Traces(str(home))


def ids(found: Found) -> list[str]:
    return [story.queue_id for story in found.stories]


def test_what_happened_to_a_message(tmp_path: Path) -> None:
    teller = Teller()
    first, second = teller.queued(), teller.queued()
    done = teller.sent(first.queue_id)
    keep(tmp_path, first, second)
    traces = keep(tmp_path, done, name="worker-1")
    assert traces.of_message(first.queue_id) == (first, done)
    assert traces.of_message("0" * 11) == ()
    (story,) = traces.find(Search(queue_ids=(first.queue_id,))).stories
    assert story.events == (first, done)


def test_found_by_sender_recipient_message_id_and_time(tmp_path: Path) -> None:
    teller = Teller()
    betty, ann = teller.queued(), teller.queued("Ann@gonzo.test")
    bounce = teller.queued("")
    told = (teller.sent(betty.queue_id), teller.sent(ann.queue_id, "x@y.test"))
    traces = keep(tmp_path, betty, ann, bounce, *told)
    assert ids(traces.find(Search(senders=("ANN@",)))) == [ann.queue_id]
    assert ids(traces.find(Search(senders=("*@gonzo.test",)))) == [
        betty.queue_id,
        ann.queue_id,
    ]
    assert ids(traces.find(Search(senders=("<>",)))) == [bounce.queue_id]
    assert ids(traces.find(Search(recipients=("y.test",)))) == [ann.queue_id]
    both = Search(senders=("betty",), recipients=("y.test",))
    assert ids(traces.find(both)) == []
    assert ids(traces.find(Search(message_ids=(betty.message_id,)))) == [betty.queue_id]
    assert ids(traces.find(Search(since_us=ann.utc_us))) == [
        ann.queue_id,
        bounce.queue_id,
    ]
    few = traces.find(Search(since_us=1, messages_max=1))
    assert (ids(few), few.more) == ([bounce.queue_id], True)


def test_reports_and_second_envelopes_are_told_with_it(tmp_path: Path) -> None:
    teller = Teller()
    parent, clone, report = teller.queued(), teller.queued(), teller.queued("")
    joe = Address("joe", "whizzer.test")
    told: tuple[AnyEvent, ...] = (
        events.RecipientExpanded(
            teller.now_us, parent.queue_id, joe, "owner=x", 2, clone.queue_id
        ),
        events.ReportQueued(
            teller.now_us, report.queue_id, parent.queue_id, "failed", NULL_SENDER
        ),
    )
    traces = keep(tmp_path, parent, clone, report, *told)
    found = traces.find(Search(queue_ids=(parent.queue_id,)))
    assert [(s.queue_id, s.relation, s.of) for s in found.stories] == [
        (parent.queue_id, "", ""),
        (clone.queue_id, "clone", parent.queue_id),
        (report.queue_id, "report", parent.queue_id),
    ]


def test_refused_recipients_are_found(tmp_path: Path) -> None:
    refused = events.CommandRejected(
        NOON_US, CLIENT, "RCPT", "<Nosuch@gonzo.test>", "550 5.1.1 unknown", "users"
    )
    traces = keep(tmp_path, refused)
    assert traces.find(Search(recipients=("nosuch@",))).refusals == (refused,)
    assert traces.find(Search(recipients=("other@",))).refusals == ()


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    teller = Teller()
    event = teller.queued()
    keep(tmp_path, event)
    (path,) = files_of(str(tmp_path / "worker-0"))
    whole = Path(path).read_bytes()
    torn = whole[:50] + b"\n" + b'{"type":"Nonsense"}\n' + b"\xff\n" + whole + whole[:9]
    Path(path).write_bytes(torn)
    assert Traces(str(tmp_path)).of_message(event.queue_id) == (event,)


def test_text_of_peers_cannot_pass_for_lines(tmp_path: Path) -> None:
    teller = Teller()
    event, other = teller.queued(), teller.queued()
    evil = f'x\n{{"type":"MessageRemoved","queue_id":"{event.queue_id}"}}\udcff'
    failed = Failed("5.0.0", evil)
    joe = Address("joe", "x.test")
    done = events.AttemptDone(
        teller.now_us, other.queue_id, joe, failed, "smtp", 1, 1, 1
    )
    traces = keep(tmp_path, event, done)
    assert traces.of_message(event.queue_id) == (event,)
    (found,) = traces.of_message(other.queue_id)
    assert isinstance(found, events.AttemptDone)


def test_routine_is_no_history(tmp_path: Path) -> None:
    keep(tmp_path, events.Lifecycle(NOON_US, "ready"))
    assert list(tmp_path.iterdir()) == []


def test_files_end_and_the_oldest_go(tmp_path: Path) -> None:
    teller = Teller()
    home = str(tmp_path / "w")
    with HistoryWriter(str(tmp_path), SMALL, "w") as writer:
        told = [teller.queued() for _ in range(50)]
        for event in told:
            writer.append([event])
    octets = sum(os.path.getsize(path) for path in files_of(home))
    assert 2_000 < octets <= 4_000
    traces = Traces(str(tmp_path))
    assert traces.of_message(told[0].queue_id) == ()
    assert traces.of_message(told[-1].queue_id) == (told[-1],)


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    teller = Teller()
    settings = HistorySettings(keep=Duration(DAY_US))
    with HistoryWriter(str(tmp_path), settings, "w") as writer:
        first = teller.queued()
        writer.append([first])
        for _ in range(30):
            teller.now_us += HOUR_US
            last = teller.queued()
            writer.append([last])
    traces = Traces(str(tmp_path))
    assert traces.of_message(first.queue_id) == ()
    assert traces.of_message(last.queue_id) == (last,)
    assert len(files_of(str(tmp_path / "w"))) >= 8


def test_a_new_writer_goes_on_with_the_file(tmp_path: Path) -> None:
    teller = Teller()
    for _ in range(3):
        keep(tmp_path, teller.queued())
    assert len(files_of(str(tmp_path / "worker-0"))) == 1


def test_switched_off(tmp_path: Path) -> None:
    off = HistorySettings(enabled=False)
    with HistoryWriter(str(tmp_path), off) as writer:
        writer.write(Teller().queued())
    assert list(tmp_path.iterdir()) == []
    assert Traces(str(tmp_path / "none")).find(Search(since_us=1)) == Found()


def test_the_sink_writes_all_before_it_ends(tmp_path: Path) -> None:
    teller = Teller()
    sink = HistorySink(HistoryWriter(str(tmp_path), HistorySettings(), "w"))
    told = [teller.queued() for _ in range(350)]
    for event in told:
        sink.emit(event)
    sink.close()
    found = Traces(str(tmp_path)).find(Search(since_us=1, messages_max=1000))
    assert ids(found) == [event.queue_id for event in told]
    assert sink.lost == 0


def test_a_full_disk_costs_the_oldest_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teller = Teller()
    writer = HistoryWriter(str(tmp_path), SMALL, "w")
    for _ in range(10):
        writer.append([teller.queued()])
    before = files_of(str(tmp_path / "w"))
    full = [OSError(28, "No space left on device")] * 2
    write = os.write

    def failing(fd: int, data: bytes) -> int:
        if full:
            raise full.pop()
        return write(fd, data)

    monkeypatch.setattr(os, "write", failing)
    sink = HistorySink(writer)
    last = teller.queued()
    sink.emit(last)
    sink.close()
    assert set(before[:2]).isdisjoint(files_of(str(tmp_path / "w")))
    assert Traces(str(tmp_path)).of_message(last.queue_id) == (last,)
    assert sink.lost == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_what_no_space_would_mend_costs_no_history_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    teller = Teller()
    with HistoryWriter(str(tmp_path), SMALL, "w") as writer:
        for _ in range(10):
            writer.append([teller.queued()])
    before = files_of(str(tmp_path / "w"))

    def failing(path: str, flags: int, mode: int = 0o777) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", failing)
    complaints: list[str] = []
    sink = HistorySink(HistoryWriter(str(tmp_path), SMALL, "w"), complaints.append)
    for _ in range(HISTORY_BATCH + 1):
        sink.emit(teller.queued())
    sink.close()
    assert files_of(str(tmp_path / "w")) == before
    assert sink.lost == HISTORY_BATCH + 1
    (told,) = complaints
    assert told.startswith(f"history cannot be kept: [Errno {number}] ")


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": Duration(0)},
        {"file_octets": Size(0)},
        {"octets_max": Size(1), "file_octets": Size(1)},
    ],
)
def test_bounds_that_keep_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="history: "):
        HistorySettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "search",
    [
        {"queue_ids": ("x",)},
        {"messages_max": 0},
        {"senders": ("",)},
        {"recipients": ("x" * 1001,)},
    ],
)
def test_a_search_that_cannot_be_is_refused(search: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"queue id|between|up to"):
        Search(**search)  # type: ignore[arg-type]
