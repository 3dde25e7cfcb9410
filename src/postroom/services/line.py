"""A delivery line: one shard of the queue, with all that moves its mail.

A worker has one line that takes new mail, and one more for each shard it has adopted
from a worker that is no longer there; those only empty themselves.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from postroom.limits.shared import SharedCounters
from postroom.schedule.scheduler import Scheduler
from postroom.schedule.settings import ScheduleSettings
from postroom.services.attempts import Observers
from postroom.services.dispatch import Dispatcher, Parts
from postroom.services.expand import Expander
from postroom.services.listeners import Listeners
from postroom.services.ration import Ration
from postroom.services.report import Reporter
from postroom.services.settings import DeliverSettings
from postroom.services.settle import Settler
from postroom.services.workshop import Workshop


class Line(NamedTuple):
    """One shard at work. ``running`` is the task that searches it for due mail.

    ``reporter`` writes the reports about its mail.
    """

    shop: Workshop
    dispatcher: Dispatcher
    scheduler: Scheduler
    running: asyncio.Task[None]
    reporter: Reporter

    async def aclose(self) -> None:
        """Let go of the shard, once ``dispatcher.drain`` has returned."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.shop.spool.aclose()


def start_line(
    shop: Workshop,
    deliver: DeliverSettings,
    schedule: ScheduleSettings,
    seed: int,
    counters: SharedCounters | None = None,
    bound: Callable[[Scheduler], None] = lambda _: None,
) -> Line:
    """Begin to deliver what is in a shard.

    ``counters`` are those of all workers, by default of this line alone. ``bound`` is
    given the scheduler, so that agents can tell it which hops are one destination.
    """
    scheduler = Scheduler(schedule, seed)
    bound(scheduler)
    reports = deliver.reports
    ration = Ration(reports, counters or SharedCounters.private())
    reporter = Reporter(shop, schedule.retry, reports, ration)
    settler = Settler(schedule.retry, reporter, warn_automatic=reports.warn_automatic)
    listeners = Listeners()
    observers = Observers(shop)
    expander = Expander(shop, settler, reporter, listeners, observers)
    parts = Parts(shop, scheduler, expander, settler, listeners, observers)
    dispatcher = Dispatcher(parts, deliver)
    running = asyncio.get_running_loop().create_task(dispatcher.run())
    return Line(shop, dispatcher, scheduler, running, reporter)
