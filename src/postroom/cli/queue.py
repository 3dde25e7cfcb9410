"""``postroom queue``: looks at and changes what waits, across workers, or without."""

import click

from postroom.cli.export import export
from postroom.cli.listing import list_queue
from postroom.cli.orders import bounce, hold, release, remove, requeue, retry
from postroom.cli.shape import stat
from postroom.cli.show import show


@click.group()
def queue() -> None:
    """Look at what waits in the queue, and change it.

    Works on a running server and with the server down. Statuses: 0 done; 1 a message
    that was named is not there or not in a state for it; 2 misuse; 75 something could
    not be reached, or is being delivered and was left alone; 78 configuration.
    """


for command in (
    list_queue,
    show,
    stat,
    hold,
    release,
    retry,
    requeue,
    remove,
    bounce,
    export,
):
    queue.add_command(command)
