"""``postroom queue``: looks at and changes what waits, across workers, or without."""

import click

from postroom.cli.lazy import lazily

_COMMANDS = lazily(
    list=(
        "postroom.cli.listing:list_queue",
        "List messages, oldest first.",
    ),
    show=(
        "postroom.cli.show:show",
        "Show a message: envelope, recipients, why it waits, what was tried when.",
    ),
    stat=(
        "postroom.cli.shape:stat",
        "Count what waits: in all, by destination and age, by the sender's domain.",
    ),
    hold=(
        "postroom.cli.orders:hold",
        "Keep matching recipients from being tried, until they are released.",
    ),
    release=(
        "postroom.cli.orders:release",
        "Let go what is held, quarantined or put aside; it is tried at once.",
    ),
    retry=(
        "postroom.cli.orders:retry",
        "Try matching messages now, whatever their waiting time.",
    ),
    requeue=(
        "postroom.cli.orders:requeue",
        "Expand and route matching recipients anew, after a changed configuration.",
    ),
    remove=(
        "postroom.cli.orders:remove",
        "Remove matching messages for good; nobody is told.",
    ),
    bounce=(
        "postroom.cli.orders:bounce",
        "Return matching recipients to the sender now, with a report.",
    ),
    export=(
        "postroom.cli.export:export",
        "Copy messages out of the queue, also those that cannot be read any more.",
    ),
)


@click.group(commands=_COMMANDS)
def queue() -> None:
    """Look at what waits in the queue, and change it.

    Works on a running server and with the server down. Statuses: 0 done; 1 a message
    that was named is not there or not in a state for it; 2 misuse; 75 something could
    not be reached, or is being delivered and was left alone; 78 configuration.
    """
