import asyncio
import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net import stream as stream_module
from postroom.net.addresses import plain_ip
from postroom.net.clock import read_mono_us
from postroom.net.connect import connect, connect_unix, wrap
from postroom.net.demand import Demand
from postroom.net.stream import (
    StreamInterrupted,
    StreamLost,
    StreamOverstayed,
    StreamTimeout,
    StreamTooSlow,
)
from postroom.testing.streams import stream_pair

SOON = Duration.from_text("5s")


async def test_octets_cross_both_ways_and_the_end_is_seen() -> None:
    async with stream_pair() as (one, other):
        one.write(b"EHLO a\r\n")
        assert await other.read() == b"EHLO a\r\n"
        other.write(b"250 b\r\n")
        assert await one.read() == b"250 b\r\n"
        await one.aclose()
        assert await other.read() == b""
        assert await other.read() == b""


async def test_what_is_buffered_is_read_without_suspending() -> None:
    async with stream_pair() as (one, other):
        for piece in (b"a", b"b", b"c"):
            other.data_received(piece)
        reading = other.read()
        with pytest.raises(StopIteration) as stopped:
            reading.send(None)
        assert stopped.value.value == b"abc"
        assert one.is_open


async def test_half_closed_peer_is_still_answered() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    stream = await wrap(ours)
    theirs.sendall(b"QUIT\r\n")
    theirs.shutdown(socket.SHUT_WR)
    assert await stream.read() == b"QUIT\r\n"
    assert await stream.read() == b""
    stream.write(b"221 bye\r\n")
    await stream.aclose()
    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(theirs, 100) == b"221 bye\r\n"
    theirs.close()


async def test_data_before_a_loss_is_given_out_first() -> None:
    async with stream_pair() as (one, _):
        transport = one._transport
        assert transport is not None
        one.data_received(b"last words")
        one.connection_lost(ConnectionResetError("reset by peer"))
        assert await one.read() == b"last words"
        with pytest.raises(StreamLost, match="reset by peer"):
            await one.read()
        with pytest.raises(StreamLost):
            await one.drain()
        one.write(b"into the void")
        assert not one.is_open
        transport.abort()


async def test_reader_waiting_at_a_loss_is_woken() -> None:
    async with stream_pair() as (one, _):
        reading = asyncio.ensure_future(one.read())
        await asyncio.sleep(0)
        one.abort()
        with pytest.raises(StreamLost):
            await reading


@pytest.mark.usefixtures("fast_sweeper")
async def test_read_past_its_deadline_times_out_and_the_stream_lives() -> None:
    async with stream_pair() as (one, other):
        one.set_deadline(read_mono_us())
        with pytest.raises(StreamTimeout):
            await one.read()
        one.write(b"421 4.4.2 too slow\r\n")
        assert await other.read() == b"421 4.4.2 too slow\r\n"
        one.set_deadline(None)
        other.write(b"x")
        assert await one.read() == b"x"


@pytest.mark.usefixtures("fast_sweeper")
async def test_a_peer_may_keep_us_waiting_as_long_as_it_is_allowed() -> None:
    async with stream_pair() as (one, other):
        one.allow(60 * SECOND_US)
        other.write(b"x")
        assert await one.read() == b"x"
        one.allow(0)
        with pytest.raises(StreamTimeout):
            await one.read()


@pytest.mark.usefixtures("fast_sweeper")
async def test_drain_past_its_deadline_times_out() -> None:
    async with stream_pair() as (one, _):
        assert not one.is_congested
        one.write(b"x" * 4_000_000)
        assert one.is_congested
        one.set_deadline(read_mono_us())
        with pytest.raises(StreamTimeout):
            await one.drain()


@pytest.mark.usefixtures("fast_sweeper")
async def test_closing_does_not_wait_for_ever_for_a_deaf_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "LINGER_US", 1_000)
    async with stream_pair() as (one, other):
        other._transport.pause_reading()  # type: ignore[union-attr]
        one.write(b"x" * 4_000_000)
        await one.aclose()
        assert not one.is_open


async def test_unread_octets_stop_the_peer() -> None:
    async with stream_pair() as (one, other):
        sent = 8 * 1024 * 1024
        one.write(b"x" * sent)
        draining = asyncio.ensure_future(one.drain())
        for _ in range(50):
            await asyncio.sleep(0)
        held = other._unread_octets
        assert held <= stream_module.BUFFER_OCTETS_MAX + 256 * 1024
        assert not draining.done()
        got = 0
        while got < sent:
            got += len(await other.read())
        await draining
        assert got == sent


async def test_cancelled_read_loses_nothing() -> None:
    async with stream_pair() as (one, other):
        reading = asyncio.ensure_future(one.read())
        await asyncio.sleep(0)
        reading.cancel()
        other.write(b"kept")
        assert await one.read() == b"kept"


async def test_interrupt_is_raised_once_and_after_what_came() -> None:
    async with stream_pair() as (one, other):
        reading = asyncio.ensure_future(one.read())
        await asyncio.sleep(0)
        one.interrupt()
        with pytest.raises(StreamInterrupted):
            await reading
        one.interrupt()
        other.write(b"go on")
        assert await one.read() == b"go on"


async def test_addresses_of_both_ends() -> None:
    for family, ip in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as listening:
            listening.bind((ip, 0))
            listening.listen()
            port = listening.getsockname()[1]
            one = await connect(ip, port, timeout=SOON)
            accepted, address = listening.accept()
            other = await wrap(accepted)
            assert (one.peer_ip, one.peer_port) == (ip, port)
            assert (other.peer_ip, other.peer_port) == address[:2]
            assert (one.local_ip, one.local_port) == address[:2]
            one.abort()
            other.abort()
            await asyncio.sleep(0)


async def test_source_address_is_used() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        one = await connect("127.0.0.1", port, timeout=SOON, source_ip="127.0.0.9")
        assert one.local_ip == "127.0.0.9"
        one.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:c000:207", "::ffff:c000:207"),
    ],
)
async def test_peer_ip_is_plain(raw: str, plain: str) -> None:
    assert plain_ip(raw) == plain


async def test_connect_refused_is_an_os_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", unused.getsockname()[1], timeout=SOON)


async def test_connect_without_an_answer_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address):  # fills the queue of one
            first = socket.socket()
            first.setblocking(False)
            first.connect_ex(address)
            with first, pytest.raises(StreamTimeout, match="no answer from"):
                await connect(*address, timeout=Duration(20_000))


async def test_unix_socket_names_its_caller(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        one = await connect_unix(str(path))
        other = await wrap(listening.accept()[0])
        credentials = other.peer_credentials()
        assert (credentials.pid, credentials.uid) == (os.getpid(), os.getuid())
        assert other.peer_ip == ""
        assert other.local_port == 0
        one.abort()
        other.abort()
        await asyncio.sleep(0)
        with pytest.raises(StreamLost):
            other.peer_credentials()


async def test_nobody_on_the_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_unix(str(tmp_path / "missing"))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        f" -nodes -days 2 -subj /CN=gonzo.test -keyout {made}.key -out {made}.crt"
        f" && cat {made}.key {made}.crt > {made}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return made


async def test_tls_begins_and_forgets_what_was_in_the_clear(certificate: Path) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    client_side = ssl.create_default_context(cafile=f"{certificate}.crt")
    client_side.check_hostname = False
    async with stream_pair() as (one, other):
        other.data_received(b"MAIL FROM:<injected@x.test>\r\n")
        await asyncio.gather(
            one.start_tls(client_side, server_side=False, server_hostname="gonzo.test"),
            other.start_tls(server_side, server_side=True),
        )
        assert one.is_tls
        assert other.tls is not None
        one.write(b"EHLO again\r\n")
        assert await other.read() == b"EHLO again\r\n"
        other.write(b"250 ok\r\n")
        assert await one.read() == b"250 ok\r\n"


async def test_failed_handshake_loses_the_stream(certificate: Path) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    async with stream_pair() as (one, other):
        one.write(b"this is no hello at all, but clear text\r\n" * 9)
        with pytest.raises(StreamLost):
            await other.start_tls(server_side, server_side=True)
        assert not other.is_open


async def test_a_pause_lasts_while_the_peer_sends() -> None:
    async with stream_pair() as (one, other):
        other.write(b"RCPT")
        pausing = asyncio.create_task(one.pause(20_000))
        assert await pausing is True
        assert await one.read() == b"RCPT"


async def test_a_pause_for_silence_ends_with_the_first_octets() -> None:
    async with stream_pair() as (one, other):
        pausing = asyncio.create_task(one.pause(3600 * SECOND_US, until_octets=True))
        await asyncio.sleep(0)
        other.write(b"EHLO early\r\n")
        assert await pausing is True
        assert await one.pause(3600 * SECOND_US, until_octets=True) is True
        assert await one.read() == b"EHLO early\r\n"


async def test_a_silent_peer_is_told_from_one_that_talks() -> None:
    async with stream_pair() as (one, other):
        assert await one.pause(1_000, until_octets=True) is False
        other.write(b"EHLO c\r\n")
        assert await one.read() == b"EHLO c\r\n"


@pytest.mark.parametrize("until_octets", [False, True])
@pytest.mark.parametrize("end", ["interrupted", "ended", "lost", "aborted"])
async def test_a_pause_ends_when_nobody_gains_by_it(
    end: str, until_octets: bool
) -> None:
    async with stream_pair() as (one, other):
        wait = one.pause(3600 * SECOND_US, until_octets=until_octets)
        pausing = asyncio.create_task(wait)
        await asyncio.sleep(0)
        match end:
            case "interrupted":
                one.interrupt()
            case "ended":
                other.close()
            case "lost":
                other.abort()
            case _:
                one.abort()
        assert await pausing is False
        if end == "interrupted":
            with pytest.raises(StreamInterrupted):
                await one.read()


async def test_a_cancelled_pause_leaves_the_stream_usable() -> None:
    async with stream_pair() as (one, other):
        pausing = asyncio.create_task(one.pause(3600 * SECOND_US, until_octets=True))
        await asyncio.sleep(0)
        pausing.cancel()
        await asyncio.gather(pausing, return_exceptions=True)
        other.write(b"NOOP\r\n")
        assert await one.read() == b"NOOP\r\n"


@pytest.mark.usefixtures("fast_sweeper")
async def test_a_connection_ends_at_its_end_whatever_deadlines_say() -> None:
    async with stream_pair() as (one, other):
        one.end_at(read_mono_us() + 5_000)
        one.allow(3600 * SECOND_US)

        async def listen() -> None:
            while True:  # a peer that keeps talking
                other.write(b"NOOP\r\n")
                await one.read()

        with pytest.raises(StreamOverstayed):
            await listen()


@pytest.mark.usefixtures("fast_sweeper")
async def test_a_peer_slower_than_demanded_is_told_from_one_that_is_silent() -> None:
    async with stream_pair() as (one, _):
        one.allow(3600 * SECOND_US)
        one.demand(Demand(1_000_000, 5_000, lambda: True))
        with pytest.raises(StreamTooSlow):
            await one.read()


@pytest.mark.usefixtures("fast_sweeper")
async def test_nothing_is_demanded_of_a_peer_that_owes_nothing() -> None:
    async with stream_pair() as (one, _):
        looked = asyncio.Event()

        def owes() -> bool:
            looked.set()
            return False

        one.allow(3600 * SECOND_US)
        one.demand(Demand(1, 1, owes))
        reading = asyncio.create_task(one.read())
        await looked.wait()
        await asyncio.sleep(0)
        assert not reading.done()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


S = SECOND_US


@pytest.mark.parametrize(
    ("looks", "failed_at"),
    [
        pytest.param([(10, S)] * 10, [], id="just-fast-enough"),
        pytest.param([(9, S)] * 10, [3, 7], id="a-bit-too-slow"),
        pytest.param([(0, S), (0, S), (0, S), (40, S)], [], id="a-pause-within"),
        pytest.param([(0, 5 * S)], [0], id="late-sweeps-count-in-full"),
        pytest.param([(200, S)] + [(0, S)] * 7, [7], id="credit-is-not-kept"),
        pytest.param([(0, S // 2)] * 8, [7], id="only-waiting-counts"),
    ],
)
def test_the_rate_is_an_average_over_waiting_time(
    looks: list[tuple[int, int]], failed_at: list[int]
) -> None:
    demand, total, failed = Demand(10, 4 * S, lambda: True), 0, []
    for number, (octets, waited_us) in enumerate(looks):
        total += octets
        if demand.is_failed(total, waited_us):
            failed.append(number)
    assert failed == failed_at
