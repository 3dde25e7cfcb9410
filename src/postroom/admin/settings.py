"""Settings of the processes: how many, as whom, and how they are watched and asked."""

import msgspec

from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration

WORKERS_MAX = 512
"""More than any machine has cores; each has a shard, a socket, threads."""
DRAIN_S_MAX = 86_400


class ProcessSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The supervisor and its workers."""

    workers: int | None = None
    """How many workers; one per core if not given. 0 runs everything in the one
    process that was started, for trials."""
    user: str = ""
    """The user that workers run as. Needed when started as root; else it has to be
    the user that starts, or empty."""
    group: str = ""
    """The workers' group; the user's own if empty."""
    operator_group: str = ""
    """Members of this group may do all that the ``postroom queue`` command can,
    besides root and the user above, who has to be in it, too."""
    heartbeat: Duration = Duration.from_text("2s")
    """How often a worker gives a sign of life."""
    heartbeat_timeout: Duration = Duration.from_text("10s")
    """After how long a silent worker is killed and started anew."""
    start_timeout: Duration = Duration.from_text("60s")
    """How long a worker may take to come up, or to build a new generation."""
    drain_s_max: int = 30
    """Seconds that a stopping worker has to finish what is in hand; then it is
    killed. What it had not finished is in the queue, or was never acknowledged."""
    bind_timeout: Duration = Duration.from_text("60s")
    """How long to wait for addresses, and then for shards of the spool, that the
    workers of a killed server still hold."""
    restart_wait_max: Duration = Duration.from_text("30s")
    """A worker that died is started anew after a quarter of a second; each death soon
    after another doubles that, up to here."""

    def __post_init__(self) -> None:
        """Refuse what no worker could live with."""
        if self.workers is not None and self.workers > WORKERS_MAX:
            raise ValueError(
                f"workers is {self.workers}, but can be {WORKERS_MAX} at most: one "
                "per core is enough"
            )
        if not 0 < 2 * self.heartbeat <= self.heartbeat_timeout:
            raise ValueError(
                "heartbeat is more than 0, and heartbeat_timeout at least twice as "
                "much: else workers that are well are killed"
            )
        if self.start_timeout < SECOND_US:
            raise ValueError("start_timeout is at least 1s: else no worker comes up")
        if self.restart_wait_max <= 0:
            raise ValueError("restart_wait_max is more than 0: a crash may repeat")
        if self.drain_s_max > DRAIN_S_MAX:
            raise ValueError(
                f"drain_s_max is {self.drain_s_max}, but can be {DRAIN_S_MAX} (a day) "
                "at most"
            )
