"""Every queue command on a running server and with the server down.

Two hosts are filled alike with mail for a host that does not answer; one goes on
running, the other is stopped. Each test has its own messages, known by their
recipient's name.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from postroom.testing.host import Host
from postroom.testing.ledger import entries_of, mail_of
from postroom.testing.world import World, until

POLICY = """
from postroom import accept, hook, quarantine

@hook.message
def odd(session, subject):
    if b"Subject: odd" in subject.message.header:
        return accept(quarantine("odd subject"))
"""
NAMES = (
    *("shown", "held", "retried", "removed", "piped", "bounced", "dry", "exported"),
    *("boxed", "listed", "listed2", "big", "counted", "still", "moved"),
)
ODD = ("odd1", "odd2")
DOMAINS = {"still": "still.test", "moved": "gone.test"}
LETTER = b"From: Betty <betty@%s>\nSubject: %s\nMessage-Id: <%s@x.test>\n\n"
BODY = b"From the start\n.dot\n\xe9 not UTF-8\nend without newline"
SERVED = {"live": 41, "down": 42}


class Place(NamedTuple):
    """A filled host; ``ids`` by recipient's name."""

    host: Host
    live: bool
    ids: dict[str, str]

    def run(self, *words: str, text: bytes = b"") -> tuple[int, str, str]:
        done = self.host.run("postroom", *words, text=text)
        out = done.stdout.decode(errors="replace")
        return done.returncode, out, done.stderr.decode()

    def queue(self, *words: str) -> str:
        status, out, err = self.run("queue", *words)
        assert (status, err) == (0, ""), (status, out, err)
        return out

    def entry(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = one(self.queue("list", "--json", self.ids[name]))
        return entry

    def states(self, name: str) -> list[str]:
        return [each["state"] for each in self.entry(name)["recipients"]]


def one(text: str) -> Any:
    (line,) = text.splitlines()
    return json.loads(line)


def fill(host: Host, domain: str) -> dict[str, str]:
    for name in (*NAMES, *ODD):
        subject = b"odd" if name in ODD else name.encode()
        head = LETTER % (domain.encode(), subject, name.encode())
        body = BODY * 200 if name == "big" else BODY
        address = f"{name}@{DOMAINS.get(name, 'dead.test')}"
        done = host.run("sendmail", "-i", "-f", "betty", address, text=head + body)
        assert done.returncode == 0, done

    def tried() -> bool:
        found = entries_of(host)
        waits = [one["status_text"] for e in found for one in e["recipients"]]
        return len(found) == len(NAMES) + len(ODD) and all(waits)

    until("everything tried", tried, host)
    return {e["recipients"][0]["address"].split("@")[0]: e["queue_id"] for e in
            entries_of(host)}  # fmt: skip


@pytest.fixture(scope="module", params=list(SERVED))
def place(request: pytest.FixtureRequest, world: World) -> Iterator[Place]:
    mode: str = request.param
    domain, number = f"{mode}.test", SERVED[mode]
    world.name(domain, number)
    world.name("dead.test", 19)
    world.name("gone.test", 19)
    world.name("still.test", 19)
    settings = {
        "policy": {"module": "policy.py"},
        "route": {"aliases": "aliases", "routes": "routes"},
        "deliver": {"scan_interval": "1s"},
        "schedule.retry": {"first_wait": "5m", "longest_wait": "5m"},
    }
    host = world.host(domain, number, settings)
    (host.directory / "policy.py").write_text(POLICY)
    (host.directory / "routes").write_text("other.test discard:\n")
    host.give_away()
    with host:
        ids = fill(host, domain)
        if mode == "down":
            host.stop()
        yield Place(host, mode == "live", ids)


def test_list_chooses_by_everything(place: Place) -> None:
    def found(*words: str) -> set[str]:
        lines = place.queue("list", "--json", *words).splitlines()
        ids = {json.loads(line)["queue_id"] for line in lines}
        return {name for name, queue_id in place.ids.items() if queue_id in ids}

    untouched = {"listed", "listed2", "big", "still", "odd2"}
    assert found("--recipient", "listed@") == {"listed"}
    assert found("--recipient", "LISTED*@dead.test") == {"listed", "listed2"}
    assert found("--recipient", "big@", "--recipient", "still@") == {"big", "still"}
    assert found("--domain", "still.test") == {"still"}
    assert found("--hop", "dead*", "--larger", "5KiB") == {"big"}
    assert found("--smaller", "5KiB", "--hop", "still.test") == {"still"}
    assert set(ODD) >= found("--state", "quarantined") >= {"odd2"}
    assert found("--state", "quarantined", "--error", "odd*") >= {"odd2"}
    assert found("--error", "refused", "--domain", "still.test") == {"still"}
    assert found("--sender", "betty@", "--recipient", "big@") == {"big"}
    assert found("--sender", "nobody@") == set()
    assert found("--id", place.ids["big"][4:]) >= {"big"}
    assert found("--older", "1d") == set()
    assert found("--younger", "1d") >= untouched
    others = found("--recipient", "!*@dead.test", "--recipient", "!*@gone.test")
    assert others == {"still"}


def test_list_as_a_table(place: Place) -> None:
    table = place.queue("list", place.ids["still"])
    assert "still@still.test" in table
    assert "Connection refused" in table
    largest = place.queue("list", "--json", "--sort", "size", "--limit", "1")
    assert one(largest)["queue_id"] == place.ids["big"]
    assert "no messages" in place.queue("list", "--sender", "nobody")
    assert "QUARANTINE: odd subject" in place.queue("list", "--mailq")


def test_show_tells_why_and_what_was_tried(place: Place) -> None:
    shown = place.queue("show", place.ids["shown"])
    assert "Subject        shown" in shown
    assert "shown@dead.test" in shown
    still = place.queue("show", place.ids["still"])
    assert "next at 20" in still
    assert "Connection refused by mx.still.test." in still
    assert "accepted from <betty@" in shown
    content = place.queue("show", place.ids["shown"], "--content")
    assert "From the start" in content
    as_json = json.loads(place.queue("show", place.ids["shown"], "--json"))
    assert as_json["entry"]["queue_id"] == place.ids["shown"]
    assert as_json["header"]["Subject"] == "shown"
    assert [event["type"] for event in as_json["history"]][:1] == ["MessageQueued"]
    assert bool(as_json["hops"]) == place.live


def test_ids_that_are_not_there(place: Place) -> None:
    unknown = "0" * 11
    for act in ("hold", "release", "retry", "requeue", "remove", "bounce"):
        status, out, err = place.run("queue", act, unknown)
        assert (status, err) == (1, f"postroom: {unknown} is not in the queue\n"), act
        assert out.startswith("0 messages ")
    assert place.run("queue", "show", unknown)[0] == 1
    assert place.run("queue", "export", unknown, "--mbox", "-")[0] == 1
    assert place.run("trace", unknown)[0] == 1
    assert place.run("queue", "remove", "nonsense")[0] == 2
    assert place.run("queue", "remove")[0] == 2


def test_hold_and_release(place: Place) -> None:
    queue_id = place.ids["held"]
    assert place.queue("hold", queue_id, "--reason", "wait") == "1 message held\n"
    (recipient,) = place.entry("held")["recipients"]
    assert (recipient["state"], recipient["status_text"]) == (
        "held",
        "held by root: wait",
    )
    status, _, err = place.run("queue", "hold", queue_id)
    assert status == 1
    assert err.startswith(f"postroom: {queue_id} is not in a state to hold it")
    assert queue_id in place.queue("list", "--state", "held")
    released = place.queue("release", "--recipient", "held@", "--json")
    assert one(released) == {"queue_id": queue_id, "result": "released"}
    assert place.states("held") == ["ready"]


def test_what_is_quarantined_is_released_by_name_only(place: Place) -> None:
    queue_id = place.ids["odd1"]
    assert place.run("queue", "retry", queue_id)[0] == 1
    assert place.states("odd1") == ["held"]
    released = place.queue("release", "--state", "quarantined", queue_id)
    assert released == "1 message released\n"
    assert place.states("odd1") == ["ready"]
    assert place.states("odd2") == ["held"]


def test_retry_tries_now(place: Place) -> None:
    tries = place.entry("retried")["recipients"][0]["tries"]
    assert place.queue("retry", "--recipient", "retried@") == "1 message made due\n"
    if not place.live:
        shown = place.queue("show", place.ids["retried"])
        assert "due; no server runs" in shown
        return
    until(
        "one more try",
        lambda: place.entry("retried")["recipients"][0]["tries"] > tries,
        place.host,
    )


def test_remove(place: Place) -> None:
    queue_id = place.ids["removed"]
    assert place.queue("remove", queue_id, "-v") == (
        f"{queue_id} removed\n1 message removed\n"
    )
    assert place.run("queue", "show", queue_id)[0] == 1
    status, out, _ = place.run("queue", "remove", "-", text=place.ids["piped"].encode())
    assert (status, out) == (0, "1 message removed\n")
    assert place.run("queue", "remove", "-", text=b"")[0] == 2

    def trace() -> str:
        return place.run("trace", queue_id)[1]

    until("the history", lambda: "removed by root" in trace(), place.host)
    assert "still in the queue" not in trace()


def test_dry_run_counts_and_changes_nothing(place: Place) -> None:
    for act in ("hold", "release", "retry", "requeue", "remove", "bounce"):
        out = place.queue(act, "--recipient", "dry@", "--dry-run", "--json")
        estimate = one(out)
        assert (estimate["act"], estimate["messages"]) == (act, 1)
    assert place.states("dry") == ["ready"]


def test_bounce_returns_to_the_sender(place: Place) -> None:
    queue_id = place.ids["bounced"]
    out = place.queue("bounce", queue_id, "--reason", "nobody lives there")
    assert out == "1 message returned\n"
    assert place.run("queue", "show", queue_id)[0] == 1
    by_whom, report = "bounce by root: nobody lives there", f"(report of {queue_id})"

    def is_told() -> bool:
        """A worker writes its history from time to time."""
        told = place.run("trace", queue_id)[1]
        return by_whom in told and report in told

    until("the history", is_told, place.host)
    told = place.run("trace", queue_id)[1]
    if place.live:
        until("the report", lambda: reports(place.host), place.host)
    else:
        assert "still in the queue for betty@down.test" in told


def reports(host: Host) -> list[bytes]:
    found = [letter for letter in mail_of(host, "betty") if b"report-type" in letter]
    return [letter for letter in found if b"nobody lives there" in letter]


def test_export_is_faithful(place: Place, tmp_path: Path) -> None:
    queue_id = place.ids["exported"]
    place.run("queue", "export", queue_id, "--directory", str(tmp_path))
    content = (tmp_path / f"{queue_id}.eml").read_bytes()
    body = BODY.replace(b"\n", b"\r\n")
    assert content.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") == body
    assert content.startswith(b"Received: ")
    sidecar = json.loads((tmp_path / f"{queue_id}.json").read_text())
    assert sidecar["envelope"]["sender"]["local"] == "betty"
    assert sidecar["entry"]["recipients"][0]["address"] == "exported@dead.test"
    place.run("queue", "export", queue_id, "--raw", "--directory", str(tmp_path))
    raw = (tmp_path / f"{queue_id}.eml").read_bytes()
    assert content.endswith(raw)
    assert not raw.startswith(b"Received: ")
    boxes = place.host.run(
        "postroom", "queue", "export", place.ids["boxed"], queue_id, "--mbox", "-"
    ).stdout
    assert boxes.count(b"\nX-Postroom-Id: ") == 2
    assert boxes.count(b"\n>From the start\n") == 2
    assert b"\nX-Envelope-To: <boxed@dead.test>\n" in boxes


def test_stat(place: Place) -> None:
    found = json.loads(place.queue("stat", "--json"))
    hops = {hop["hop"]: hop for hop in found["hops"]}
    assert sum(hops["still.test"]["by_age"]) == 1
    assert hops["dead.test"]["stopped"] >= 1
    assert (
        sum(sum(hop["by_age"]) for hop in hops.values())
        == (found["totals"]["recipients"])
    )
    domain = "live.test" if place.live else "down.test"
    senders = {sender["domain"]: sender for sender in found["senders"]}
    assert senders[domain]["messages"] >= 10
    assert "Destination" in place.queue("stat")


def test_mailq_and_its_choice(place: Place) -> None:
    listed = place.host.run("mailq", "-qRcounted", "-qI" + place.ids["counted"])
    lines = listed.stdout.decode().splitlines()
    assert lines[-1] == "\t\tTotal requests: 1"
    assert lines[2].startswith(place.ids["counted"])
    others = place.host.run("mailq", "-q!Rcounted").stdout.decode()
    assert place.ids["counted"] not in others
    odd = place.host.run("sendmail", "-bp", "-qQ").stdout.decode()
    assert "QUARANTINE: odd subject" in odd
    assert place.ids["counted"] not in odd


def test_sendmail_runs_the_queue(place: Place) -> None:
    interval = place.host.run("sendmail", "-q30m")
    run = place.host.run("sendmail", "-qRcounted")
    if not place.live:
        assert (interval.returncode, run.returncode) == (75, 75)
        return
    assert interval.returncode == 0
    assert b"runs its queue by itself" in interval.stdout
    assert (run.returncode, run.stdout) == (0, b"1 message will be tried now\n")

    def quarantined() -> bool:  # not while it is being tried
        done = place.host.run("sendmail", "-qRcounted", "-Qstrange")
        return done.stdout == b"1 message quarantined\n"

    until("it is quarantined", quarantined, place.host)
    (recipient,) = place.entry("counted")["recipients"]
    assert (recipient["state"], recipient["status_text"]) == ("held", "strange")
    freed = place.host.run("sendmail", "-qQstrange", "-Q")
    assert freed.stdout == b"1 message released\n"


def test_requeue_takes_changed_routes(place: Place) -> None:
    (place.host.directory / "routes").write_text("gone.test discard:\n")
    queue_id = place.ids["moved"]
    if place.live:
        until(
            "the new table",
            lambda: "discard" in place.run("explain", "moved@gone.test")[1],
            place.host,
        )
    assert place.queue("requeue", "--domain", "gone.test") == "1 message requeued\n"
    if not place.live:
        assert place.states("moved") == ["expanding"]
        place.host.start()
    until(
        "the message gone",
        lambda: place.run("queue", "show", queue_id)[0] == 1,
        place.host,
    )
    until("its end", lambda: "delivered" in place.run("trace", queue_id)[1], place.host)
    if not place.live:
        place.host.stop()


def test_what_is_put_aside(world: World, tmp_path: Path) -> None:
    """An entry that cannot be read is listed, shown, exported, let go and removed."""
    world.name("dead.test", 19)
    host = world.host("aside.test", 43)
    with host:
        host.run("sendmail", "-f", "betty", "x@dead.test", text=b"Subject: x\n\nbody\n")
        until("the entry", lambda: entries_of(host), host)
    (entry,) = entries_of(host)
    queue_id = entry["queue_id"]
    damage(host, entry["shard"])
    for live in (True, False):
        if live:
            host.start()
            host.run("postroom", "queue", "retry", queue_id)
        place = Place(host, live, {"x": queue_id})
        put_aside = partial(is_put_aside, place)
        until("it is put aside", put_aside, host)
        assert "shunted" in place.queue("list", "--state", "shunted")
        shown = place.queue("show", queue_id)
        assert "put aside: body has 6 octets instead of 999" in shown
        assert "cannot be read" in shown
        out = tmp_path / str(live)
        status, _, err = place.run("queue", "export", queue_id, "--directory", str(out))
        assert status == 0
        assert "cannot be read" in err
        assert b"body\r\n" in (out / f"{queue_id}.eml").read_bytes()
        status, _, err = place.run("queue", "bounce", queue_id)
        assert (status, err) == (1, f"postroom: {queue_id} cannot be read\n")
        assert place.queue("release", queue_id) == "1 message released\n"
        if live:
            until("it is again", put_aside, host)
            host.stop()
    assert host.run("postroom", "queue", "remove", queue_id).returncode == 0
    assert entries_of(host) == []


def is_put_aside(place: Place) -> bool:
    return place.states("x") == ["shunted"]


def damage(host: Host, shard: int) -> None:
    path = host.directory / "spool" / f"shard-{shard:03}" / "queue.db"
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE bodies SET size = 999")
    connection.close()
    host.give_away()


def test_history_can_be_switched_off(world: World) -> None:
    host = world.host("silent.test", 44, {"history": {"enabled": False}})
    with host:
        host.run("sendmail", "joe", text=b"Subject: x\n\nbody\n")
        until("the letter", lambda: mail_of(host, "joe"), host)
        done = host.run("postroom", "trace", "--recipient", "joe")
        assert done.returncode == 1
        assert b"no history is kept" in done.stderr
    assert not (host.directory / "spool" / "history").exists()


def test_trace_of_what_has_left(world: World, gonzo: Host) -> None:
    text = b"Subject: traced\nMessage-Id: <traced@x.test>\n\nbody\n"
    assert gonzo.run("sendmail", "joe", text=text).returncode == 0

    def told(*words: str) -> str:
        return gonzo.run("postroom", "trace", *words).stdout.decode()

    until("the trace", lambda: "delivered" in told("--message-id", "traced@"), gonzo)
    story = json.loads(told("--message-id", "<traced@*", "--json"))
    assert [event["type"] for event in story["events"]] == [
        "MessageQueued",
        "AttemptDone",
    ]
    assert "delivered" in told(story["queue_id"])
    assert story["queue_id"] in told("--recipient", "joe@gonzo.test", "--since", "5m")
    assert told("--message-id", "traced@", "--until", "1h") == ""
