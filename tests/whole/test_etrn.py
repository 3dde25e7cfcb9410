"""ETRN on a real host with two workers: it reaches what waits in either's queue."""

from postroom.testing.caller import Caller
from postroom.testing.ledger import entries_of, letter
from postroom.testing.world import World, until

SETTINGS = {"smtp": {"etrn": True}}
MESSAGES = 8


def etrn(world: World, node: str) -> int:
    """Ask for the mail of a node in a session of its own."""
    with Caller(world.ip(8), world.smtp_port) as caller:
        caller.hello()
        return caller.ask(f"ETRN {node}").code


def test_etrn_has_the_mail_of_all_workers_tried(world: World) -> None:
    """Mail waits for a host that is not there; then it is, and ETRN fetches it."""
    world.name("keeper.test", 8)
    world.name("away.test", 9)
    with world.host("keeper.test", 8, SETTINGS) as host:
        for number in range(MESSAGES):  # the kernel deals connections out to workers
            with Caller(world.ip(8), world.smtp_port) as caller:
                caller.hello()
                text = letter(f"etrn-{number}")
                said = caller.give("betty@keeper.test", ["joe@away.test"], text)
                assert said.code == 250, said
        until("it waits", lambda: len(entries_of(host)) == MESSAGES, host)
        assert etrn(world, "nobody.test") == 251
        with world.peer(9) as peer:
            codes = []

            def has_arrived() -> bool:
                codes.append(etrn(world, "away.test"))  # again, for what was in hand
                return len(peer.messages) == MESSAGES

            until("it arrives", has_arrived, host)
            assert 253 in codes
            assert set(codes) <= {251, 253}
            until("nothing is left", lambda: not entries_of(host), host)
