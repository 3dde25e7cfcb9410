"""Clients that send to us: each case is tried, and the letter compared."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from interop.clients import CLIENTS, Client
from interop.jobs import CASES, HOST, Case, Job, Keys, NotOffered
from interop.letters import Kind, difference, letter
from interop.ours import Ours
from interop.rows import Mark, Row
from interop.view import View

GROUP = "Clients that send to Postroom"
CASE_S_MAX = 90.0
_PROTOCOL = re.compile(rb"^Received:[^;]*?\swith (\w+)", re.MULTILINE)


def run_clients(
    ours: Ours, view: View, keys: Keys, folder: Path, only: Sequence[str]
) -> Iterator[Row]:
    """Try every case with every client that was asked for."""
    for client in CLIENTS:
        if only and client.name not in only:
            continue
        for number, case in enumerate(CASES):
            begin = time.monotonic()
            mark, why = _try(ours, view, keys, folder, client, case, number)
            took_s = time.monotonic() - begin
            yield Row(GROUP, client.name, case.title, mark, why, took_s)


def _try(
    ours: Ours,
    view: View,
    keys: Keys,
    folder: Path,
    client: Client,
    case: Case,
    number: int,
) -> tuple[Mark, str]:
    own = folder / re.sub(r"\W", "", client.name) / str(number)
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    token = f"t{abs(hash((client.name, number, time.monotonic_ns()))):x}"
    recipient = f"jörg@{HOST}" if case.kind is Kind.UTF8 else f"joe@{HOST}"
    job = Job(case, letter(case.kind, token, f"betty@{HOST}", recipient), own, keys)
    try:
        call = client.prepare(job)
    except NotOffered as error:
        return Mark.NOT_OFFERED, str(error)
    log_before = len(ours.host.log)
    try:
        done = view.run(
            call.arguments,
            stdin=call.stdin,
            environment=call.environment,
            s_max=CASE_S_MAX,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.output or b"").decode(errors="replace")
        return (
            Mark.FAILED,
            f"not done within {CASE_S_MAX:.0f} s; it said: {said[-500:]}",
        )
    said = done.stdout.decode(errors="replace")
    (own / "output").write_text(said)
    log = ours.host.log[log_before:]
    (own / "log").write_text(log)
    if case.is_refused:
        return _judge_refusal(done.returncode, said, log)
    if done.returncode:
        return Mark.FAILED, f"ended with {done.returncode}: {_tail(said)}"
    arrived = ours.letter_with(token)
    if arrived is None:
        return Mark.FAILED, f"the letter did not arrive: {_tail(said)}"
    (own / "arrived").write_bytes(arrived)
    return _judge(job, arrived, octets=client.sends_octets)


def _judge(job: Job, arrived: bytes, *, octets: bool) -> tuple[Mark, str]:
    if why := difference(job.letter, arrived, octets=octets):
        return Mark.FAILED, why
    protocol = _PROTOCOL.search(arrived)
    name = protocol[1].decode() if protocol else "nothing"
    if not re.fullmatch(job.case.protocol, name):
        return Mark.FAILED, f"came with {name} instead of {job.case.protocol}"
    return Mark.PASSED, ""


def _judge_refusal(status: int, said: str, log: str) -> tuple[Mark, str]:
    if status == 0:
        return Mark.FAILED, f"a wrong password sends mail: {_tail(said)}"
    if "535" not in said and "AUTH failure" not in log:
        return Mark.FAILED, f"refused, but not by 535: {_tail(said)}"
    return Mark.PASSED, ""


def _tail(said: str) -> str:
    return " / ".join(said.strip().splitlines()[-4:])[-500:]
