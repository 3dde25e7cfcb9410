"""``postroom``: the one command for those who run a mail server.

Exit statuses are those of sysexits.h: 64 usage, 69 something is in the way, 75 try
again, 77 no permission, 78 configuration.
"""

import asyncio
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from postroom import __version__
from postroom.admin.client import RequestRefused, WorkerGone, ask, find_workers
from postroom.admin.link import Job
from postroom.cli.options import config_option, load_or_fail
from postroom.cli.queue import queue
from postroom.cli.trace import trace
from postroom.cli.user import user
from postroom.config.settings import Config
from postroom.mail.address import Address, AddressError

if TYPE_CHECKING:  # it brings half the server, and only ``explain`` needs it
    from postroom.services.submitter import Answer

EX_USAGE = 64
EX_CONFIG = 78
EX_UNAVAILABLE = 69


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="postroom")
def main() -> None:
    """Run and look after the Postroom mail system."""


@main.command()
@config_option
def serve(path: str) -> None:
    """Run the server in the foreground until TERM or INT.

    HUP reads the configuration anew, USR1 the log file.
    """
    from postroom.supervise.plan import load_plan  # not for those who look
    from postroom.supervise.serve import serve as serve_forever

    sys.exit(serve_forever(lambda: load_plan(path), _run_worker))


def _run_worker(job: Job) -> int:
    from postroom.app.worker import run_worker  # only for workers = 0

    return run_worker(job)


@main.command()
@config_option
@click.option("--quiet", is_flag=True, help="Only what is wrong or unsafe.")
def check(path: str, quiet: bool) -> None:
    """Check the configuration and print the whole that is in force.

    Ends with 0 if the server can work with it, else with 78.
    """
    from postroom.config.check import run_check  # reads all there is: slow to import

    report = run_check(path)
    if not quiet:
        click.echo(report.effective_toml, nl=False)
    for text in report.warnings:
        click.echo(f"warning: {text}", err=True)
    for text in report.problems:
        click.echo(f"problem: {text}", err=True)
    if not report.ok:
        sys.exit(EX_CONFIG)


@main.command()
@config_option
@click.argument("address")
def explain(path: str, address: str) -> None:
    """Tell where mail for ADDRESS would go, and by which rule.

    Ends with 67 for an unknown user, 68 for a host that cannot be, 75 if it cannot be
    told now.
    """
    config = load_or_fail(path)
    try:
        parsed = Address.from_text(address)
    except AddressError as error:
        _fail(f"{address}: {error}", EX_USAGE)
    try:
        answer = asyncio.run(_explain(config, parsed))
    except ValueError as error:
        _fail(str(error), EX_CONFIG)
    for line in answer.lines:
        click.echo(line)
    sys.exit(answer.exit_code)


async def _explain(config: Config, address: Address) -> "Answer":
    from postroom.services.submitter import Answer

    """Ask the first worker that answers; with the server down, find out here."""
    for path in find_workers(config.run_directory).values():
        try:
            asked = {"address": address.to_text()}
            return (await ask(path, "explain", asked, Answer))[0]
        except WorkerGone:
            continue
        except RequestRefused as error:
            _fail(str(error), EX_UNAVAILABLE)
    from postroom.app.offline import explain_offline  # all stages: slow to import

    return await explain_offline(config, address)


def _fail(why: str, code: int) -> NoReturn:
    click.echo(f"postroom: {why}", err=True)
    sys.exit(code)


main.add_command(queue)
main.add_command(trace)
main.add_command(user)
