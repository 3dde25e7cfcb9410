"""``postroom check``: whether the configuration is right, and what is in force."""

import sys

import click

from postroom.cli.options import EX_CONFIG, config_option
from postroom.config.check import CheckReport, run_check


@click.command()
@config_option
@click.option("--quiet", is_flag=True, help="Only what is wrong or unsafe.")
def check(path: str, quiet: bool) -> None:
    """Check the configuration and print the whole that is in force.

    Ends with 0 if the server can work with it, else with 78.
    """
    report = run_check(path)
    if not quiet:
        click.echo(report.effective_toml, nl=False)
    for text in report.warnings:
        click.echo(f"warning: {text}", err=True)
    for text in report.problems:
        click.echo(f"problem: {text}", err=True)
    if not quiet:
        click.echo(verdict_on(report), err=True)
    if not report.ok:
        sys.exit(EX_CONFIG)


def verdict_on(report: CheckReport) -> str:
    """Return the last line: what all of it comes to."""
    warnings = _counted(len(report.warnings), "warning")
    if report.problems:
        problems = _counted(len(report.problems), "problem")
        return f"a server cannot work with it: {problems}, {warnings}"
    if report.warnings:
        return f"a server can work with it; see {warnings}"
    return "all is well: no problems, no warnings"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
