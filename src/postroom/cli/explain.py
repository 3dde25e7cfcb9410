"""``postroom explain``: where mail for an address would go.

A worker is asked; with the server down it is found out here, by the same rules.
"""

import asyncio
import sys
from typing import NoReturn

import click

from postroom.admin.client import RequestRefused, WorkerGone, ask, find_workers
from postroom.cli.options import EX_CONFIG, config_option, load_or_fail
from postroom.config.settings import Config
from postroom.mail.address import Address, AddressError
from postroom.services.answer import Answer

EX_USAGE = 64
EX_UNAVAILABLE = 69


@click.command()
@config_option
@click.argument("address")
def explain(path: str, address: str) -> None:
    """Tell where mail for ADDRESS would go, and by which rule.

    Ends with 67 for an unknown user, 68 for a host that cannot be or takes no mail, 75
    if it cannot be told now; for an alias with the worst of what it leads to.
    """
    config = load_or_fail(path)
    bracketed = address.startswith("<") and address.endswith(">")
    try:
        parsed = Address.from_text(address[1:-1] if bracketed else address)
    except AddressError as error:
        _fail(f"{address}: {error}", EX_USAGE)
    if parsed.is_null:
        _fail("the empty address is no recipient", EX_USAGE)
    try:
        answer = asyncio.run(_explain(config, parsed))
    except ValueError as error:
        _fail(str(error), EX_CONFIG)
    for line in answer.lines:
        click.echo(line)
    sys.exit(answer.exit_code)


async def _explain(config: Config, address: Address) -> Answer:
    """Ask the first worker that answers; with the server down, find out here."""
    try:
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
