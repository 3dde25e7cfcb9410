"""Unpacks Debian packages into a folder: nothing is installed.

What is unpacked runs from where it lies, so it takes no port, no user's ``sendmail``
and no alternatives link.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

WANTED = ("postfix", "dovecot-core", "dovecot-pop3d", "sasl2-bin", "libsasl2-modules")
_MERGED = ("bin", "sbin", "lib", "lib64")
_LACKING = re.compile(r"^Inst (\S+) \(", re.MULTILINE)  # no upgrades: "Inst x [old] ("


class BenchError(Exception):
    """The bench cannot run; the message says why and what to do."""


def unpack(
    folder: Path, names: Sequence[str] = WANTED, *, lacking_only: bool = False
) -> Path:
    """Fetch and unpack packages once; returns the root they lie in.

    With them come those they need and this machine lacks. ``lacking_only`` leaves out
    what is installed here.

    Raises:
        BenchError: there is no apt, or a package cannot be had.
    """
    root, complete = folder / "root", folder / "complete"
    if complete.exists() and complete.read_text().split() == [*names]:
        return root
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise BenchError("the peers come from Debian packages: no apt-get here")
    shutil.rmtree(folder, ignore_errors=True)
    root.mkdir(parents=True)
    asked = [name for name in names if not (lacking_only and _is_installed(name))]
    wanted = dict.fromkeys((*asked, *_lacking(asked)))
    print(f"  fetching {' '.join(wanted)}", flush=True)
    if wanted:
        _apt("download", *wanted, folder=folder)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)
        package.unlink()
    for name in _MERGED:  # as on every Debian since 12
        if (root / name).is_dir():
            merged = root / "usr" / name
            shutil.copytree(root / name, merged, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
    complete.write_text("\n".join(names))
    return root


def _is_installed(name: str) -> bool:
    command = ["dpkg-query", "--show", "--showformat=${Status}", name]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout == "install ok installed"


def _lacking(names: Sequence[str]) -> list[str]:
    """Return what an installation of packages would bring, themselves perhaps not."""
    said = _apt("install", "--simulate", "--no-install-recommends", *names)
    return _LACKING.findall(said)


def _apt(*arguments: str, folder: Path | None = None) -> str:
    command = ["apt-get", "-q", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "-q", "update"], capture_output=True)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip()
        raise BenchError(f"{' '.join(command)} failed:\n{why}")
    return done.stdout


def environment(root: Path) -> dict[str, str]:
    """The environment in which unpacked programs find their libraries."""
    folders = ("usr/lib/postfix", "usr/lib/dovecot", "usr/lib/dovecot/modules")
    paths = [root / folder for folder in folders]
    paths.append(root / "usr/lib/x86_64-linux-gnu")
    libraries = ":".join(map(str, paths))
    plugins = "usr/lib/x86_64-linux-gnu/sasl2"
    sasl = f"{root / plugins}:/{plugins}"  # what is installed was not fetched
    return {**os.environ, "LD_LIBRARY_PATH": libraries, "SASL_PATH": sasl}
