"""Refuses spools on network file systems, whose locks and syncs promise too little.

Reads ``/proc/self/mountinfo``; where that is missing nothing is refused.
"""

import os

from postroom.spool.spool import SpoolError

_NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs",
        "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs",
    }
)  # fmt: skip
_NETWORK_FUSE = (
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.s3fs",
    "fuse.rclone",
)


def file_system_type(path: str, mountinfo: str) -> str:
    """Return the type of the file system that holds an absolute, real path.

    ``mountinfo`` is the text of ``/proc/self/mountinfo``; ``""`` if nothing fits.
    """
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ").rstrip("/")
        # A later mount on the same point lies over the earlier one.
        if (path + "/").startswith(point + "/") and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind


def refuse_network_file_system(path: str) -> None:
    """Check where a spool lies.

    Raises:
        SpoolError: it is a network file system.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            kind = file_system_type(os.path.realpath(path), file.read())
    except OSError:
        return
    if kind in _NETWORK or kind.startswith(_NETWORK_FUSE):
        raise SpoolError(
            f"{path} lies on a network file system ({kind}): a spool needs a local"
            " disk, because locks and syncs over a network can lose mail"
        )
