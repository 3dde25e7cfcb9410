"""Whether there is room for more mail: an answer from memory, refreshed elsewhere.

The reader thread asks the file system about once a second and after each failure; the
loop thread subtracts what it has let in since. Other workers fill the same disk, so
near the reserve each answer is asked for anew: it needs no disk work, only a call.
"""

import os

_MANY = 1 << 62


class Space:
    """Free space of one file system above a reserve.

    Args:
        path: any directory on it.
        reserve_octets: space that new mail may not use.
        reserve_inodes: the same for inodes.
    """

    def __init__(self, path: str, reserve_octets: int, reserve_inodes: int) -> None:
        self._path = path
        self._reserve_octets = reserve_octets
        self._reserve_inodes = reserve_inodes
        self._free_octets = self._free_inodes = 0
        self.refresh()

    def refresh(self) -> None:
        """Ask the file system. Any thread; raises nothing: unknown counts as full."""
        try:
            found = os.statvfs(self._path)
        except OSError:
            self._free_octets = 0
            return
        self._free_octets = found.f_bavail * found.f_frsize - self._reserve_octets
        # File systems without a fixed number of inodes report none at all.
        left = found.f_favail - self._reserve_inodes if found.f_files else _MANY
        self._free_inodes = left

    def has(self, octets: int, files: int = 0) -> bool:
        """Whether ``octets`` of mail fit; stored twice for a while (log, table)."""
        needed = 2 * octets + 4096
        if self._has(needed, files) and (
            self._free_octets < self._reserve_octets
            or self._free_inodes < self._reserve_inodes
        ):
            self.refresh()
        return self._has(needed, files)

    def _has(self, needed: int, files: int) -> bool:
        return self._free_octets >= needed and self._free_inodes >= files

    def took(self, octets: int, files: int = 0) -> None:
        """Count what was let in since the last look."""
        self._free_octets -= octets
        self._free_inodes -= files

    def exhausted(self) -> None:
        """A write met a full disk: let nothing in until the next look."""
        self._free_octets = 0
