"""Starts a worker: ``python -m postroom.app --job FD``, called by the supervisor."""

import argparse
import os
import sys
from contextlib import suppress

from postroom.admin.link import read_job
from postroom.app.worker import run_worker
from postroom.net.keys import hush_bad_server_names


def main() -> int:
    """Run one worker to its end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="postroom.app", description=__doc__)
    parser.add_argument("--job", type=int, required=True, metavar="FD")
    try:
        job = read_job(parser.parse_args().job)
    except (OSError, ValueError) as error:
        print(f"postroom.app: {error}: workers are started by postroom serve")
        return 64
    keep_files_to_ourselves()
    hush_bad_server_names()
    return run_worker(job, takes_signals=True)


def keep_files_to_ourselves() -> None:
    """Let no program that a policy hook starts inherit our sockets and locks.

    It would keep the addresses, and seem to be a worker, when we are long gone.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)


if __name__ == "__main__":
    sys.exit(main())
