import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from postroom.mail.envelope import Origin
from postroom.observe import sinks
from postroom.observe.events import AnyEvent, Lifecycle, SessionClosed, SessionOpened
from postroom.observe.settings import LogSettings
from postroom.observe.sinks import LogSink, json_lines, open_log


def plain(event: AnyEvent) -> bytes:
    assert isinstance(event, Lifecycle)
    return event.what.encode() + b"\n"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "BATCH_S", 0.001)
    monkeypatch.setattr(sinks, "RETRY_S", 0.001)


def test_all_is_written_in_order_when_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogSink(str(path), plain)
    for number in range(5000):
        log.emit(Lifecycle(0, str(number)))
    log.close()
    assert path.read_text().splitlines() == [str(number) for number in range(5000)]
    assert path.stat().st_mode & 0o007 == 0


def test_settings_choose_form_and_routine(tmp_path: Path) -> None:
    opened = SessionOpened(0, "smtp", Origin("SMTP", "192.0.2.1"))
    quit_ = SessionClosed(0, "smtp", Origin("SMTP", "192.0.2.1"), "quit", 1, 0)
    lost = SessionClosed(0, "smtp", Origin("SMTP", "192.0.2.1"), "lost", 1, 0)
    for form in ("sendmail", "json"):
        for sessions, lines in ((False, 1), (True, 3)):
            path = tmp_path / f"{form}{sessions}"
            settings = LogSettings(to=str(path), format=form, sessions=sessions)
            log = open_log(settings, "gonzo.test", lambda _: 0)
            for event in (opened, quit_, lost):
                log.emit(event)
            log.close()
            written = path.read_text().splitlines()
            assert len(written) == lines
            assert ("postroom[" in written[0]) == (form == "sendmail")


def test_reopen_goes_over_to_a_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = LogSink(str(path), plain)
    log.emit(Lifecycle(0, "before"))
    while not path.read_text():
        pass
    path.rename(old)
    log.reopen()
    while not path.exists():
        pass
    log.emit(Lifecycle(0, "after"))
    log.close()
    assert (old.read_text(), path.read_text()) == ("before\n", "after\n")


def test_descriptor_stays_the_callers() -> None:
    reading, writing = os.pipe()
    log = LogSink(writing, plain)
    log.emit(Lifecycle(0, "x" * 3000))
    log.emit(Lifecycle(0, "y" * 3000))
    log.close()
    assert os.read(reading, 10_000) == b"x" * 3000 + b"\n" + b"y" * 3000 + b"\n"
    os.close(reading)
    os.close(writing)


async def test_full_sink_blocks_acceptance_until_the_log_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    broken = threading.Event()
    broken.set()
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if broken.is_set():
            raise OSError(28, "No space left on device")
        return real(fd, data[:7])  # and then only little by little

    log = LogSink(str(path), plain, waiting_max=10)
    monkeypatch.setattr(os, "write", write)
    for number in range(5):
        log.emit(Lifecycle(0, f"event {number}"))
    async with asyncio.timeout(60):
        while log._waiting:  # noqa: ASYNC110 - the other thread says nothing
            await asyncio.sleep(0.001)
        for number in range(5, 17):
            log.emit(Lifecycle(0, f"event {number}"))
        assert log.full
        assert not log.overfull
        for number in range(17, 60):
            log.emit(Lifecycle(0, f"event {number}"))
        assert log.overfull
        waiting = asyncio.create_task(log.drained())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        broken.clear()
        await waiting
    log.close()
    assert path.read_text().splitlines() == [f"event {n}" for n in range(60)]
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_line_that_a_full_disk_has_torn_is_written_again_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's lines may come behind its beginning."""
    path = tmp_path / "log"
    real = os.write
    answers = [4, 2, -1]

    def write(fd: int, data: bytes) -> int:
        room = answers.pop(0) if answers else len(data)
        if room < 0:
            real(fd, b"another's\n")
            raise OSError(28, "No space left on device")
        return real(fd, data[:room])

    monkeypatch.setattr(os, "write", write)
    log = LogSink(str(path), plain)
    log.emit(Lifecycle(0, "a line of the log"))
    pause, until = threading.Event(), time.monotonic() + 60
    while path.read_text().count("\n") < 3 and time.monotonic() < until:
        pause.wait(0.001)
    log.close()
    lines = path.read_text().splitlines()
    assert lines == ["a lineanother's", "", "a line of the log"]


def test_event_that_cannot_be_rendered_does_not_end_the_log(tmp_path: Path) -> None:
    def fussy(event: AnyEvent) -> bytes:
        if isinstance(event, Lifecycle) and event.what == "bad":
            raise ZeroDivisionError
        return plain(event)

    path = tmp_path / "log"
    log = LogSink(str(path), fussy)
    log.emit(Lifecycle(0, "bad"))
    log.emit(Lifecycle(0, "good"))
    log.close()
    assert path.read_text() == (
        "postroom: Lifecycle not written: ZeroDivisionError()\ngood\n"
    )


def test_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogSink(str(tmp_path / "missing" / "log"), json_lines())
