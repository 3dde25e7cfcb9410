"""Unpacks Debian packages into a folder of the bench: nothing is installed.

What is unpacked runs from where it lies, so it takes no port, no user's ``sendmail``
and no alternatives link.
"""

import os
import shutil
import subprocess
from pathlib import Path

WANTED = ("postfix", "dovecot-core", "dovecot-pop3d")
# Shared libraries the two need that a small Debian may lack.
LIBRARIES = (
    *("libdb5.3", "libicu72", "libnsl2", "libsasl2-2", "libtirpc3", "libwrap0"),
    *("libsodium23", "libstemmer0d", "liblua5.4-0", "libexttextcat-2.0-0"),
)


class BenchError(Exception):
    """The bench cannot run; the message says why and what to do."""


def unpack(folder: Path) -> Path:
    """Fetch and unpack the peers once; returns the root they lie in.

    Raises:
        BenchError: there is no apt, or a package cannot be had.
    """
    root = folder / "root"
    if (folder / "complete").exists():
        return root
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise BenchError("the peers come from Debian packages: no apt-get here")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for names, needed in ((WANTED, True), (LIBRARIES, False)):
        for name in names:
            _download(name, folder, needed=needed)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    (folder / "complete").touch()
    return root


def _download(name: str, folder: Path, *, needed: bool) -> None:
    print(f"  fetching {name}", flush=True)
    command = ["apt-get", "-q", "download", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode and needed:
        raise BenchError(f"apt-get download {name} failed:\n{done.stderr.strip()}")


def environment(root: Path) -> dict[str, str]:
    """The environment in which unpacked programs find their libraries."""
    folders = ("usr/lib/postfix", "usr/lib/dovecot", "usr/lib/dovecot/modules")
    paths = [root / folder for folder in folders]
    paths.append(root / "usr/lib/x86_64-linux-gnu")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, paths))}
