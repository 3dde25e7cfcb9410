"""Scenarios with heavy messages: many recipients, many octets, many at a time."""

import time

from bench.ground import Ground, SentCount, Wants
from bench.measures import OURS, Sample
from bench.servers import MemoryWatch

RECIPIENTS = 50
MEDIUM_OCTETS = 100 * 1024
LARGE_OCTETS = 5 * 1024 * 1024
HUGE_OCTETS = 50 * 1024 * 1024
HUGE_AT_ONCE = 20
_TO = "b@dst.test"


def recipients50(ground: Ground, side: str) -> Sample:
    """(g) Fifty recipients for each message of 4 KiB, all discarded."""
    count = ground.count(2_000 if side == OURS else 500)
    options = ("-d", "-r", str(RECIPIENTS))
    return _heavy(ground, side, "recipients50", count, *options, copies=RECIPIENTS)


def medium(ground: Ground, side: str) -> Sample:
    """(h) Messages of 100 KiB."""
    count = ground.count(6_000 if side == OURS else 4_000)
    return _heavy(ground, side, "medium", count, "-d", "-l", str(MEDIUM_OCTETS))


def large(ground: Ground, side: str) -> Sample:
    """(i) Messages of 5 MiB."""
    count = ground.count(300)
    return _heavy(ground, side, "large", count, "-d", "-l", str(LARGE_OCTETS))


def memory(ground: Ground, side: str) -> Sample:
    """(j) Twenty messages of 50 MiB at the same time; what counts is the memory."""
    count = HUGE_AT_ONCE
    return _heavy(ground, side, "memory", count, "-l", str(HUGE_OCTETS))


def _heavy(
    ground: Ground, side: str, key: str, count: int, *options: str, copies: int = 1
) -> Sample:
    wants = Wants(message_octets_max=HUGE_OCTETS * 6 // 5)
    with ground.mail_server(side, wants) as server, MemoryWatch(server) as watch:
        ground.warm_up(server)
        sent, cpu_s = SentCount(server.log), server.cpu_s()
        took_s = ground.smtp_source(server.port, count, _TO, *options)
        begin = time.perf_counter()
        sent.wait_for(count * copies)
        drained_s = time.perf_counter() - begin
        cpu_us = (server.cpu_s() - cpu_s) / count * 1e6
    figures = {key: count / took_s}
    details = {"count": count, "drained_after_s": drained_s}
    if key == "memory":
        figures["memory_octets"] = watch.peak_octets / 1e6
    return Sample(figures, {key: cpu_us}, watch.peak_octets, details)
