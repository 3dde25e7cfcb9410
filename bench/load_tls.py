"""TLS sessions as fast as they are answered: ``python -m bench.load_tls``.

The load client is C (``load_tls.c``), one for all servers: one in Python takes more of
the two cores than a server does, and so would be what is measured. It is compiled once
against the OpenSSL that is installed here, with the headers of Debian's package.
The result is printed as JSON; ``client_cpu_us`` is what a session cost the client.
"""

import argparse
import base64
import json
import subprocess
import sys
from pathlib import Path

from bench.packages import BenchError, unpack

_SOURCE = Path(__file__).with_suffix(".c")
_FOLDER = Path(__file__).parent.parent / ".bench"
_HEADERS = ("libssl-dev",)


def build() -> Path:
    """Compile the client, unless that was done since it last changed.

    Raises:
        BenchError: there is no compiler, or no headers; the text says why.
    """
    program = _FOLDER / "load_tls"
    if program.exists() and program.stat().st_mtime > _SOURCE.stat().st_mtime:
        return program
    include = unpack(_FOLDER / "openssl", _HEADERS) / "usr" / "include"
    command = ["gcc", "-O2", "-Wall", "-Wextra", f"-I{include}"]
    command += [f"-I{found}" for found in include.glob("*-linux-gnu")]
    command += ["-o", str(program), str(_SOURCE), "-l:libssl.so.3", "-l:libcrypto.so.3"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BenchError("the TLS load client needs gcc") from error
    if done.returncode:
        raise BenchError(f"the TLS load client cannot be compiled:\n{done.stderr}")
    return program


def _result(said: str, seconds: float) -> dict[str, float]:
    rows = [line.split() for line in said.splitlines() if line[:1].isdigit()]
    count, resumed, cpu_us = (sum(int(row[at]) for row in rows) for at in range(3))
    return {
        "count": count,
        "wall_s": seconds,
        "resumed_share": resumed / max(count, 1),
        "client_cpu_share": cpu_us / 1e6 / seconds,
        "client_cpu_us": cpu_us / max(count, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--resume", type=int, default=0)
    parser.add_argument("--login", type=int, default=0)
    parser.add_argument("--user", default="looper0")
    parser.add_argument("--password", default="")
    parser.add_argument("--sender", default="looper0@postroom.test")
    given = parser.parse_args()
    command = [str(build())]
    command += [str(n) for n in (given.port, given.processes, given.seconds)]
    command.append(str(given.resume))
    if given.login:
        secret = f"\0{given.user}\0{given.password}".encode()
        command += [base64.b64encode(secret).decode(), given.sender]
    done = subprocess.run(command, capture_output=True, text=True)
    result = _result(done.stdout, given.seconds)
    if done.returncode or not result["count"]:
        why = next((s for s in done.stdout.splitlines() if s.startswith("failed")), "")
        print(f"TLS load: {why or 'no session was done in time'}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"TLS load: {error}", file=sys.stderr)
        sys.exit(1)
