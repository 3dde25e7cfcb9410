"""Starts a worker: ``python -m postroom.app --job FD``, called by the supervisor."""

import argparse
import sys

from postroom.admin.link import read_job
from postroom.app.worker import run_worker


def main() -> int:
    """Run one worker to its end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="postroom.app", description=__doc__)
    parser.add_argument("--job", type=int, required=True, metavar="FD")
    try:
        job = read_job(parser.parse_args().job)
    except (OSError, ValueError) as error:
        print(f"postroom.app: {error}: workers are started by postroom serve")
        return 64
    return run_worker(job)


if __name__ == "__main__":
    sys.exit(main())
