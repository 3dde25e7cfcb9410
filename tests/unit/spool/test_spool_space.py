"""How room for mail is judged when others fill the same disk."""

import os
from types import SimpleNamespace

import pytest

from postroom.spool.space import Space

RESERVE = 1_000_000


class Disk:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_octets = 0
        self.inodes = self.free_inodes = 0
        self.asked = 0
        monkeypatch.setattr(os, "statvfs", self._statvfs)

    def _statvfs(self, path: str) -> SimpleNamespace:
        self.asked += 1
        if self.free_octets < 0:
            raise OSError
        return SimpleNamespace(
            f_bavail=self.free_octets,
            f_frsize=1,
            f_files=self.inodes,
            f_favail=self.free_inodes,
        )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_far_from_the_reserve_nobody_is_asked(disk: Disk) -> None:
    disk.free_octets = 10 * RESERVE
    space = Space("/", RESERVE, 0)
    for _ in range(100):
        assert space.has(1000)
        space.took(1000)
    assert disk.asked == 1


def test_what_others_took_is_seen_near_the_reserve(disk: Disk) -> None:
    disk.free_octets = 2 * RESERVE - 1
    space = Space("/", RESERVE, 0)
    assert space.has(1000)
    disk.free_octets = RESERVE
    assert not space.has(1000)


def test_a_full_disk_is_not_asked_for_each_message(disk: Disk) -> None:
    disk.free_octets = RESERVE
    space = Space("/", RESERVE, 0)
    assert not any(space.has(0) for _ in range(10))
    assert disk.asked == 1
    disk.free_octets = 10 * RESERVE
    space.refresh()
    assert space.has(1000)


def test_unknown_counts_as_full(disk: Disk) -> None:
    disk.free_octets = -1
    assert not Space("/", RESERVE, 0).has(0)


def test_files_are_counted_between_looks(disk: Disk) -> None:
    disk.free_octets, disk.inodes, disk.free_inodes = 10 * RESERVE, 100, 30
    space = Space("/", RESERVE, 20)
    disk.free_inodes = 22  # others were quicker
    assert space.has(1, files=1), "near the reserve it is asked for anew"
    space.took(1, files=2)
    assert not space.has(1, files=1)
    assert space.has(1), "what needs no file fits"


def test_no_inodes_left_in_reserve(disk: Disk) -> None:
    disk.free_octets, disk.inodes, disk.free_inodes = 10 * RESERVE, 100, 19
    assert not Space("/", RESERVE, 20).has(0)
