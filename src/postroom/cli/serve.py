"""``postroom serve``: the server itself."""

import sys

import click

from postroom.admin.link import Job
from postroom.cli.options import config_option
from postroom.supervise.plan import load_plan
from postroom.supervise.serve import serve as serve_forever


@click.command()
@config_option
def serve(path: str) -> None:
    """Run the server in the foreground until TERM or INT.

    HUP reads the configuration anew, USR1 the log file.
    """
    sys.exit(serve_forever(lambda: load_plan(path), _run_worker))


def _run_worker(job: Job) -> int:
    from postroom.app.worker import run_worker  # only for workers = 0

    return run_worker(job)
