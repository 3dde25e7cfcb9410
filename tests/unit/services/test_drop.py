"""The drop directory: what is left there is sent, returned, or left alone."""

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from postroom.cli.sendmail import GREETING, frame
from postroom.mail.now import DAY_US, Now
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.services.drop import DropDirectory
from postroom.services.letter import Desk
from postroom.services.people import People
from postroom.services.settings import SubmissionSettings
from postroom.testing.host import login_of
from postroom.testing.submitter import Kept, MemorySubmitter

LETTER = b"Subject: s\n\nbody\n"
USER = login_of(os.geteuid())


class Place:
    """A drop directory and the worker that looks after it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "drop"
        self.path.mkdir()
        self.submitter = MemorySubmitter()
        self.events: list[AnyEvent] = []
        self.utc_us = os.stat(self.path).st_mtime_ns // 1000
        settings = SubmissionSettings(users={USER: "betty"})
        desk = Desk(
            settings, "gonzo.test", self.submitter, self._clock, lambda utc_us: 0
        )
        self.directory = DropDirectory(
            str(self.path), desk, People(), self.events.append
        )

    def _clock(self) -> Now:
        return Now(self.utc_us, 0)

    def leave(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.write_bytes(data)
        return path

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    @property
    def letters(self) -> list[Kept]:
        return self.submitter.letters

    @property
    def told(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, Lifecycle)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def whole(arguments: str, *pieces: bytes) -> bytes:
    start = GREETING + frame(b"A", arguments.replace(" ", "\0").encode())
    data = b"".join(
        [start, *(frame(b"I", piece) for piece in pieces), frame(b"E", b"")]
    )
    return data + frame(b"Z", len(data).to_bytes(8, "big"))


async def test_a_letter_is_sent_as_it_would_have_been(place: Place) -> None:
    place.leave("1", whole("sendmail -v -t", b"To: joe\n", b"\nbody\n.\nmore\n"))
    assert await place.directory.scan() == 1
    (letter,) = place.letters
    assert letter.envelope.sender.to_text() == "betty@gonzo.test"
    assert letter.envelope.origin.login == USER
    assert letter.to == ["joe@gonzo.test"]
    assert letter.content.endswith(b"To: joe@gonzo.test\r\n\r\nbody\r\n")
    assert place.names == []
    assert place.told == []
    assert await place.directory.scan() == 0


async def test_oldest_first_and_large_ones_whole(place: Place) -> None:
    place.leave("2", whole("sendmail -i joe", b"\n", *[b"x" * 79 + b"\n"] * 10_000))
    place.leave("1", whole("sendmail bob", LETTER))
    assert await place.directory.scan() == 2
    first, second = place.letters
    assert (first.to, second.to) == (["bob@gonzo.test"], ["joe@gonzo.test"])
    assert second.content.count(b"x" * 79 + b"\r\n") == 10_000


GOOD = whole("sendmail joe", LETTER)
UNFINISHED = {
    "empty": b"",
    "no end": GOOD[:-13],
    "half an end": GOOD[:-1],
    "end of another file": GOOD[:-1] + b"\x01",
    "more behind the end": GOOD + b"x",
}


@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED.keys())
async def test_unfinished_files_are_left_and_told_of_after_a_day(
    place: Place, data: bytes
) -> None:
    path = place.leave("1", data)
    assert await place.directory.scan() == 0
    assert place.told == []
    place.utc_us += DAY_US + 10_000_000
    await place.directory.scan()
    await place.directory.scan()  # told once, not at each search
    assert place.told == [f"{path} has no end: its writer broke off"]
    assert place.names == ["1"]
    assert place.letters == []


async def test_what_is_no_plain_file_with_one_name_is_left(place: Place) -> None:
    outside = place.path.parent / "outside"
    outside.write_bytes(GOOD)
    (place.path / "link").symlink_to(outside)
    os.link(outside, place.path / "second-name")
    os.mkfifo(place.path / "fifo")
    (place.path / "directory").mkdir()
    assert await place.directory.scan() == 0
    assert len(place.names) == 4
    assert place.letters == []
    assert len(place.told) == 4


async def test_files_that_are_no_letters_do_not_stand_in_the_way(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.services.drop._FILES_PER_SCAN_MAX", 3)
    for number in range(7):
        place.leave(f"0{number}", b"no letter")
    place.leave("5", whole("sendmail betty", LETTER))
    assert sum([await place.directory.scan() for _ in range(3)]) == 1
    place.leave("00-late", whole("sendmail betty", LETTER))
    assert sum([await place.directory.scan() for _ in range(3)]) == 1


async def test_a_file_another_worker_has_is_left(place: Place) -> None:
    with place.leave("1", GOOD).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert await place.directory.scan() == 0
    assert await place.directory.scan() == 1


NONSENSE = {
    "greeting": b"Subject: s\n\n",
    "input first": GREETING + frame(b"I", b"x") + frame(b"E", b""),
    "no end of input": GREETING + frame(b"A", b"sendmail\0joe") + frame(b"I", b"x"),
    "huge frame": GREETING + frame(b"A", b"sendmail\0joe") + b"I\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_is_left_and_told_of(place: Place, data: bytes) -> None:
    place.leave("1", data + frame(b"Z", len(data).to_bytes(8, "big")))
    assert await place.directory.scan() == 0
    assert place.names == ["1"]
    assert place.letters == []
    assert "is no letter" in place.told[0]


async def test_the_refused_part_goes_back_to_its_sender(place: Place) -> None:
    place.leave("1", whole("sendmail joe nosuch", LETTER))
    assert await place.directory.scan() == 1
    letter, notice = place.letters
    assert letter.to == ["joe@gonzo.test"]
    assert notice.to == ["betty@gonzo.test"]
    assert notice.envelope.sender.is_null
    assert b"    nosuch... User unknown\r\n" in notice.content
    assert b"\r\n\r\nSubject: s\r\n\r\nbody\r\n\r\n--" in notice.content
    assert place.names == []


@pytest.mark.parametrize("arguments", ["sendmail", "sendmail -Z joe", "sendmail -bs"])
async def test_bad_arguments_go_back_with_the_letter(
    place: Place, arguments: str
) -> None:
    place.leave("1", whole(arguments, LETTER))
    assert await place.directory.scan() == 1
    (notice,) = place.letters
    assert notice.to == ["betty@gonzo.test"]
    assert b"Subject: s\r\n\r\nbody\r\n" in notice.content
    assert place.names == []


@pytest.mark.parametrize("names", ["later", "joe later", "nosuch later joe"])
async def test_what_has_to_wait_stays_whole(place: Place, names: str) -> None:
    place.leave("1", whole(f"sendmail {names}", LETTER))
    assert await place.directory.scan() == 0
    assert await place.directory.scan() == 0
    assert place.names == ["1"]
    assert place.letters == []  # nobody gets it twice
    (told,) = place.told
    assert "has to wait: " in told
    assert told.endswith("later... Try again later")


async def test_what_cannot_even_be_returned_is_put_aside(place: Place) -> None:
    desk = place.directory.desk
    settings = msgspec.structs.replace(desk.settings, users={USER: "nosuch"})
    place.directory.desk = desk._replace(settings=settings)
    place.leave("1", whole("sendmail nosuch", LETTER))
    assert await place.directory.scan() == 0
    assert place.names == ["1.refused"]
    assert "is refused: nosuch... User unknown" in place.told[0]
    await place.directory.scan()
    assert len(place.told) == 1


async def test_our_own_failure_keeps_the_letter(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(kept: Kept, data: bytes) -> None:
        raise RuntimeError("a bug")

    place.leave("1", GOOD)
    with monkeypatch.context() as patched:
        patched.setattr(Kept, "add", fail)
        assert await place.directory.scan() == 0
    assert place.names == ["1"]
    assert "a bug" in place.told[0]
    assert await place.directory.scan() == 1


async def test_a_directory_that_is_not_there_is_told_of_once(place: Place) -> None:
    place.path.rmdir()
    await place.directory.scan()
    await place.directory.scan()
    assert place.told == [f"{place.path} cannot be read: No such file or directory"]
