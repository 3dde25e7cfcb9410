"""A full disk: 452 4.3.1 and never a false 250, it drains, and mail is taken again.

On a small tmpfs where mounting is allowed (root, or a user namespace); otherwise by
the seam of the spool's file operations. The summary of the test run says which.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from postroom.testing.small_disk import CASES, Seen, by_mount, by_seam, commands

WAY = commands()
Record = Callable[[str, object], None]


def check(seen: Seen) -> None:
    assert seen.other == [], "a client was told something else than 452 4.3.1"
    assert seen.taken > 3
    assert sum(seen.refused.values()) >= 3
    assert seen.queued_when_full == seen.taken
    assert seen.queued_when_drained == 0
    assert seen.taken_again == 3


@pytest.mark.skipif(WAY is None, reason="no mount here: shown by the seam only")
@pytest.mark.parametrize("name", CASES)
def test_on_a_small_file_system(
    name: str, tmp_path: Path, record_property: Record
) -> None:
    assert WAY is not None
    words, command = WAY
    record_property("full disk", words)
    seen = by_mount(command, str(tmp_path), name)
    check(seen)
    case = CASES[name]
    if case.reserve_inodes or (case.reserve_octets and case.tells_size):
        assert seen.refused["MAIL"] >= 2, "the sender need not have sent the content"
    elif not name.startswith("inodes"):
        assert seen.refused["DATA"] >= 1, "nobody knew before"
    if name == "inodes":
        assert seen.small_when_full == "250 2.0.0", "it needs no file"


async def test_by_the_seam(tmp_path: Path, record_property: Record) -> None:
    record_property("full disk", "the seam of the spool's file operations")
    seen = await by_seam(str(tmp_path))
    check(seen)
    assert "DATA" in seen.refused
