"""The scenarios: each does one kind of work on one server and measures it.

Every run has a server of its own, started afresh, and a short run before that counts
for nothing. Operations are as many as each server does in about ten seconds.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from bench.ground import Ground, SentCount, run
from bench.heavy import RECIPIENTS, large, medium, memory, recipients50
from bench.mailboxes import LETTERS, PASSWORD, Mailboxes
from bench.measures import OURS, Measure, Sample
from bench.secure import submission, tls
from bench.servers import MemoryWatch, Server

NEWCOMERS = 60
SAME_RATE = 200
SAME_RATE_SESSIONS = 80  # Postfix serves a hundred at a time
_SAME = f"{SAME_RATE}/s, {SAME_RATE_SESSIONS} sessions"


class Scenario(NamedTuple):
    """One scenario.

    Attributes:
        peer: the server that ours is measured beside.
        needs_packages: whether our own side needs programs of the Debian packages.
    """

    key: str
    title: str
    peer: str
    measures: tuple[Measure, ...]
    run: Callable[[Ground, str], Sample]
    needs_packages: bool = False


def accept(ground: Ground, side: str) -> Sample:
    """(a) A new connection for each message."""
    return _accept(ground, side, ground.count(30_000 if side == OURS else 8_000))


def kept(ground: Ground, side: str) -> Sample:
    """(b) Twenty connections that are kept."""
    return _accept(ground, side, ground.count(45_000 if side == OURS else 12_000), "-d")


def _accept(ground: Ground, side: str, count: int, *options: str) -> Sample:
    key = "kept" if "-d" in options else "accept"
    with ground.mail_server(side) as server, MemoryWatch(server) as memory:
        ground.warm_up(server)
        sent, cpu_s = SentCount(server.log), server.cpu_s()
        took_s = ground.smtp_source(server.port, count, "b@dst.test", *options)
        begin = time.perf_counter()
        sent.wait_for(count)
        cpu_us = (server.cpu_s() - cpu_s) / count * 1e6
        details = {"count": count, "drained_after_s": time.perf_counter() - begin}
    rate = count / took_s
    return Sample({key: rate}, {key: cpu_us}, memory.peak_octets, details)


def relay(ground: Ground, side: str) -> Sample:
    """(c) From smtp-source to smtp-sink, until the last message is there."""
    count = ground.count(20_000 if side == OURS else 6_000)
    with ground.mail_server(side) as server, MemoryWatch(server) as memory:
        ground.warm_up(server)
        cpu_s, begin = server.cpu_s(), time.perf_counter()
        with ground.sink(count) as sink:
            accepted_s = ground.smtp_source(server.port, count, "b@relay.test")
            sink_cpu_s = sink.wait()
            took_s = time.perf_counter() - begin
        cpu_us = (server.cpu_s() - cpu_s) / count * 1e6
    details = {
        "count": count,
        "accepted_s": accepted_s,
        "sink_cpu_share": sink_cpu_s / took_s,
    }
    figures = {"relay": count / took_s}
    return Sample(figures, {"relay": cpu_us}, memory.peak_octets, details)


def pop3(ground: Ground, side: str) -> Sample:
    """(d) Logins, and fetching."""
    mailboxes = Mailboxes(ground.count(NEWCOMERS))
    figures: dict[str, float] = {}
    cpu_us: dict[str, float] = {}
    details: dict[str, float] = {}

    def measure(key: str, server: Server, port: int, **options: object) -> None:
        cpu_s = server.cpu_s()
        made = ground.load("load_pop3", port=port, password=PASSWORD, **options)
        cpu_us[key] = (server.cpu_s() - cpu_s) / made["count"] * 1e6
        figures[key] = made["count"] / made["wall_s"]
        details.update({f"{key}_{name}": value for name, value in made.items()})

    loopers = ",".join(mailboxes.loopers)
    again = {"mode": "session", "users": loopers}
    times = ground.count(300 if side == OURS else 30)
    with (
        ground.pop3_server(side, mailboxes) as (server, port),
        MemoryWatch(server) as memory,
    ):
        newcomers = ",".join(mailboxes.newcomers)
        measure("first", server, port, mode="session", users=newcomers)
        # Each of our workers remembers by itself: log in often enough to meet all.
        measure("warm", server, port, **again, times=10)
        measure("again", server, port, **again, times=times)
        times = ground.count(80)
        measure("fetch", server, port, mode="fetch", users=loopers, times=times)
    if side == OURS:
        figures["tuned"] = figures["again"]
        return Sample(figures, cpu_us, memory.peak_octets, details)
    with ground.pop3_server(side, mailboxes, tuned=True) as (server, port):
        measure("warm", server, port, **again, times=10)
        measure("tuned", server, port, **again, times=ground.count(300))
    return Sample(figures, cpu_us, memory.peak_octets, details)


def latency(ground: Ground, side: str) -> Sample:
    """(e) How long a commit takes while 200 sessions and deliveries are at work."""
    figures: dict[str, float] = {}
    cpu_us: dict[str, float] = {}
    details: dict[str, float] = {}
    with (
        ground.sink(),
        ground.mail_server(side) as server,
        MemoryWatch(server) as memory,
    ):
        ground.warm_up(server)
        for key, sessions, rate in (
            ("same", SAME_RATE_SESSIONS, SAME_RATE),
            ("full", 200, 0),
        ):
            sent, cpu_s = SentCount(server.log), server.cpu_s()
            made = ground.load(
                "load_smtp",
                port=server.port,
                to="b@relay.test",
                sessions=sessions,
                rate=rate,
                seconds=ground.seconds(5),
            )
            if rate:
                sent.wait_for(int(made["count"]))
                cpu_us["same_p50"] = (server.cpu_s() - cpu_s) / sent.count * 1e6
            figures[f"{key}_p50"] = made["p50_ms"]
            figures[f"{key}_p99"] = made["p99_ms"]
            figures[f"{key}_rate"] = made["count"] / made["wall_s"]
            details.update({f"{key}_{name}": value for name, value in made.items()})
    return Sample(figures, cpu_us, memory.peak_octets, details)


def sendmail(ground: Ground, side: str) -> Sample:
    """(f) A hundred calls of the command, one after another."""
    letter = b"Subject: a letter\nTo: b@dst.test\n\n" + b"A line of the letter.\n" * 20
    count = ground.count(100)
    with ground.mail_server(side) as server, MemoryWatch(server) as memory:
        command = [*server.sendmail_command(), "b@dst.test"]
        for _ in range(5):
            run(command, server.environment, letter)
        time.sleep(0.5)
        sent, cpu_s, our_cpu = SentCount(server.log), server.cpu_s(), os.times()
        begin = time.perf_counter()
        for _ in range(count):
            run(command, server.environment, letter)
        took_s = time.perf_counter() - begin
        used = os.times()
        command_s = used.children_user + used.children_system
        command_s -= our_cpu.children_user + our_cpu.children_system
        sent.wait_for(count)
        cpu_us = (server.cpu_s() - cpu_s + command_s) / count * 1e6
    details = {"count": count, "command_cpu_ms": command_s / count * 1e3}
    figures = {"call": took_s / count * 1e3}
    return Sample(figures, {"call": cpu_us}, memory.peak_octets, details)


SCENARIOS = (
    Scenario(
        "accept",
        "(a) accept, a connection for each message",
        "Postfix",
        (Measure("accept", "messages accepted", "/s", True, 4),),
        accept,
        True,
    ),
    Scenario(
        "kept",
        "(b) accept, kept connections",
        "Postfix",
        (Measure("kept", "messages accepted", "/s", True, 6),),
        kept,
        True,
    ),
    Scenario(
        "relay",
        "(c) relay, end to end",
        "Postfix",
        (Measure("relay", "messages through", "/s", True, 4),),
        relay,
        True,
    ),
    Scenario(
        "pop3",
        f"(d) POP3, {LETTERS} messages of 4 KiB",
        "Dovecot",
        (
            Measure("first", "sessions, first login", "/s", True),
            Measure("again", "sessions, repeated login", "/s", True, 0.5),
            Measure("tuned", "the same, Dovecot tuned", "/s", True, 0.5),
            Measure("fetch", "RETR", "/s", True, 0.5),
        ),
        pop3,
    ),
    Scenario(
        "latency",
        "(e) final dot to 250, while mail is relayed",
        "Postfix",
        (
            Measure("same_p50", f"median, {_SAME}", "ms", False),
            Measure("same_p99", f"99 %, {_SAME}", "ms", False),
            Measure("full_rate", "accepted at full load, 200 sessions", "/s", True),
            Measure("full_p50", "median, full load, 200 sessions", "ms", False),
            Measure("full_p99", "99 %, full load, 200 sessions", "ms", False),
        ),
        latency,
        True,
    ),
    Scenario(
        "sendmail",
        "(f) sendmail b@dst.test < letter",
        "Postfix",
        (Measure("call", "a call", "ms", False, 2),),
        sendmail,
    ),
    Scenario(
        "recipients50",
        f"(g) accept, {RECIPIENTS} recipients each, kept connections",
        "Postfix",
        (Measure("recipients50", "messages accepted", "/s", True, 4),),
        recipients50,
        True,
    ),
    Scenario(
        "medium",
        "(h) accept, 100 KiB each, kept connections",
        "Postfix",
        (Measure("medium", "messages accepted", "/s", True, 1),),
        medium,
        True,
    ),
    Scenario(
        "large",
        "(i) accept, 5 MiB each, kept connections",
        "Postfix",
        (Measure("large", "messages accepted", "/s", True, 1),),
        large,
        True,
    ),
    Scenario(
        "memory",
        "(j) 20 messages of 50 MiB at the same time",
        "Postfix",
        (
            Measure("memory", "messages accepted", "/s", True),
            Measure("memory_octets", "memory", "MB", False),
        ),
        memory,
        True,
    ),
    Scenario(
        "tls",
        "(k) sessions with STARTTLS, 20 at a time",
        "Postfix",
        (
            Measure("full", "sessions, full handshake", "/s", True, 2),
            Measure("resumed", "sessions, resumed if possible", "/s", True, 2),
        ),
        tls,
        True,
    ),
    Scenario(
        "submission",
        "(l) submission: STARTTLS, AUTH PLAIN, a message each",
        "Postfix",
        (Measure("submission", "messages accepted", "/s", True, 1),),
        submission,
        True,
    ),
)
