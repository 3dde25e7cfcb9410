"""Scenarios with TLS: sessions by STARTTLS, and submission with a login."""

from bench.ground import Ground, Wants
from bench.measures import Sample
from bench.servers import MemoryWatch

WANTS = Wants(is_secure=True)


def tls(ground: Ground, side: str) -> Sample:
    """(k) STARTTLS, by a full handshake each, then resumed."""
    figures: dict[str, float] = {}
    cpu_us: dict[str, float] = {}
    details: dict[str, float] = {}
    with (
        ground.mail_server(side, WANTS) as server,
        MemoryWatch(server) as memory,
    ):
        ground.warm_up(server)
        for key, resume in (("full", 0), ("resumed", 1)):
            seconds = ground.seconds(6)
            cpu_s = server.cpu_s()
            made = ground.load(
                "load_tls", port=server.port, resume=resume, seconds=seconds
            )
            # the first second is not in the count: take its share off
            share = seconds / (seconds + 1.0)
            cpu_us[key] = (server.cpu_s() - cpu_s) * share / made["count"] * 1e6
            figures[key] = made["count"] / made["wall_s"]
            details.update({f"{key}_{name}": value for name, value in made.items()})
    return Sample(figures, cpu_us, memory.peak_octets, details)


def submission(ground: Ground, side: str) -> Sample:
    """(l) STARTTLS, AUTH PLAIN and one message of 4 KiB in each session."""
    with (
        ground.mail_server(side, WANTS) as server,
        MemoryWatch(server) as memory,
    ):
        ground.warm_up(server)
        seconds = ground.seconds(6)
        options = server.login
        ground.load(
            "load_tls", port=server.submission_port, login=1, seconds=1, **options
        )
        cpu_s = server.cpu_s()
        made = ground.load(
            "load_tls", port=server.submission_port, login=1, seconds=seconds, **options
        )
        share = seconds / (seconds + 1.0)
        cpu_us = (server.cpu_s() - cpu_s) * share / made["count"] * 1e6
    figures = {"submission": made["count"] / made["wall_s"]}
    return Sample(figures, {"submission": cpu_us}, memory.peak_octets, made)
