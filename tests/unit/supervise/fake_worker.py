"""A worker that knows nothing of mail: it plays what its configuration text says.

``crash-at-start``, ``slow`` (takes its time to begin), ``hang`` (no more signs of
life), ``cannot`` (refuses the next generation), ``late`` (does so too, and when there
is another says that the one before is prepared), ``dies`` (worker 0 dies once it has
prepared the next generation; worker 1 prepares it when 0 is back), ``deaf`` (ignores
drain), ``config`` (ends with 78); anything else is a good worker. Every event is a
line in the file ``trace`` beside the configuration.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from postroom.admin.link import (
    Cannot,
    Commit,
    Drain,
    Job,
    Prepare,
    Prepared,
    ReopenLogs,
    open_link,
    read_job,
)


def trace_of(job: Job) -> list[str]:
    return Path(job.config_path).with_name("trace").read_text().splitlines()


async def work(job: Job) -> int:
    def trace(what: str) -> None:
        path = Path(job.config_path).with_name("trace")
        with path.open("a") as file:
            file.write(f"{job.worker} {what}\n")

    plays = job.config_text.split()
    refused = 0
    trace(f"start pid={os.getpid()} crashes={job.crashes} gen={job.generation}")
    if "config" in plays:
        return 78
    if "crash-at-start" in plays and job.worker == 0 and job.crashes < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if "slow" in plays:
        await asyncio.sleep(1.5)
    link = await open_link(job)
    link.ready()
    trace("ready")
    if "hang" in plays and job.crashes == 0:
        time.sleep(60)  # noqa: ASYNC251 - a hung loop is what is played
    async for message in link:
        match message:
            case Prepare(generation, text):
                trace(f"prepare {text.strip()}")
                if "late" in text and job.worker == 1 and refused:
                    link.send(Prepared(refused))
                if "dies" in text and job.worker == 1:
                    while trace_of(job).count("0 ready") < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                if ("cannot" in text or "late" in text) and job.worker == 1:
                    refused = generation
                    link.send(Cannot(generation, "no good"))
                elif "dies" in text and job.worker == 0:
                    link.send(Prepared(generation))
                    await asyncio.sleep(0)
                    trace("dies")
                    link.close()
                    return 1
                else:
                    link.send(Prepared(generation))
            case Commit():
                trace("commit")
            case Drain():
                trace("drain")
                if "deaf" not in plays:
                    link.close()
                    return 0
            case ReopenLogs():
                trace("reopen")
            case _:
                trace("abort")
    trace("orphaned")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(work(read_job(int(sys.argv[2])))))
