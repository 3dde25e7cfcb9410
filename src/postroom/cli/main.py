"""``postroom``: the one command for those who run a mail server.

Exit statuses are those of sysexits.h: 64 usage, 69 something is in the way, 75 try
again, 77 no permission, 78 configuration.
"""

import click

from postroom import __version__
from postroom.cli.lazy import lazily

_COMMANDS = lazily(
    check=(
        "postroom.cli.check:check",
        "Check the configuration and print the whole that is in force.",
    ),
    explain=(
        "postroom.cli.explain:explain",
        "Tell where mail for ADDRESS would go, and by which rule.",
    ),
    queue=(
        "postroom.cli.queue:queue",
        "Look at what waits in the queue, and change it.",
    ),
    serve=(
        "postroom.cli.serve:serve",
        "Run the server in the foreground until TERM or INT.",
    ),
    trace=(
        "postroom.cli.trace:trace",
        "Tell what happened to a message: accepted, expanded, tried, left, removed.",
    ),
    user=(
        "postroom.cli.user:user",
        "Add, change, remove, list and test mail users.",
    ),
)


@click.group(
    commands=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="postroom")
def main() -> None:
    """Run and look after the Postroom mail system."""
