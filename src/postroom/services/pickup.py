"""The submission service: answers the ``sendmail`` command on its Unix socket.

Who calls is known from the kernel, not from what the caller says. A call is a letter
(``letter``) or an errand; whatever happens the caller gets an exit code and, if it is
not 0, a reason. If the server fails in the middle, the caller learns nothing and
reports a temporary failure: nothing was acknowledged.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

from postroom.mail.address_list import parse_address_list
from postroom.mail.envelope import Origin
from postroom.mail.now import SECOND_US
from postroom.net.stream import Stream, StreamError
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.services.answer import Answer
from postroom.services.frames import Caller, FrameError
from postroom.services.letter import Desk, Letter
from postroom.services.people import People, Person
from postroom.services.submission import (
    EX_NOPERM,
    EX_OK,
    EX_SOFTWARE,
    EX_TEMPFAIL,
    Invocation,
    Mode,
    UsageError,
    parse_argv,
    parse_mailbox,
)
from postroom.services.submitter import Errands

ARGUMENTS_WAIT_US = 30 * SECOND_US
"""How long a caller may take to say what it was called with."""
_FAILED = "sendmail: the mail server failed; the log says how. Nothing was sent"
_NO_QUEUE_RUN = "You do not have permission to process the queue"


class PickupService:
    """Serves the submission socket of one worker.

    ``desk`` and ``errands`` may be swapped at a reload; calls keep theirs.
    """

    def __init__(
        self, desk: Desk, errands: Errands, emit: Callable[[AnyEvent], None]
    ) -> None:
        self.desk = desk
        self.errands = errands
        self.people = People()
        self._emit = emit
        self._places = asyncio.Semaphore(desk.settings.sessions_max)

    async def serve(self, stream: Stream) -> None:
        """Serve one call to its end."""
        async with self._places:
            caller = Caller(stream)
            try:
                await self._serve(stream, caller)
            except (StreamError, FrameError) as error:
                caller.err(f"sendmail: {error}")
                caller.exit(EX_TEMPFAIL)
            except Exception as error:  # our mistake must not take the worker down
                self._tell(f"submission failed: {error!r}")
                caller.err(_FAILED)
                caller.exit(EX_SOFTWARE)
            finally:
                await stream.aclose()

    async def _serve(self, stream: Stream, caller: Caller) -> None:
        person = await self.people.find(stream.peer_credentials().uid)
        # A place is not for who says nothing; input may take as long as it likes.
        stream.allow(ARGUMENTS_WAIT_US)
        argv = await caller.arguments()
        stream.set_deadline(None)
        try:
            invocation = parse_argv(argv)
            exit_code = await self._do(invocation, person, caller)
        except UsageError as error:
            caller.out(str(error))
            exit_code = error.exit_code
        caller.exit(exit_code)

    async def _do(self, invocation: Invocation, person: Person, caller: Caller) -> int:
        errands = self.errands
        match invocation.mode:
            case Mode.DELIVER:
                return await Letter(self.desk, person, invocation, caller).submit()
            case Mode.SMTP:
                return await self._converse(person, caller)
            case Mode.MAILQ:
                lines = errands.mailq(
                    invocation.verbose, person.login, invocation.selection
                )
                async for line in lines:
                    caller.out(line)
                    await caller.drain()
                return EX_OK
            case Mode.NEWALIASES:
                return await self._answer(caller, await errands.newaliases())
            case Mode.RUN_QUEUE:
                if person.login not in self.desk.settings.trusted_users:
                    raise UsageError(_NO_QUEUE_RUN, EX_NOPERM)
                answer = await errands.run_queue(invocation.selection, person.login)
                return await self._answer(caller, answer)
            case Mode.VERIFY:
                return await self._verify(invocation, caller)
            case Mode.NOTHING:
                return EX_OK
            case _:
                assert_never(invocation.mode)

    async def _converse(self, person: Person, caller: Caller) -> int:
        origin = Origin(protocol="local", login=person.login, listener="submit")
        caller.speak_smtp()
        await self.errands.converse(caller, origin)
        return EX_OK

    async def _verify(self, invocation: Invocation, caller: Caller) -> int:
        found = parse_address_list(", ".join(invocation.recipients))
        if found.problem:
            raise UsageError(f"Cannot read the addresses: {found.problem}")
        if not found.mailboxes:
            raise UsageError("Recipient names must be specified")
        exit_code = EX_OK
        for mailbox in found.mailboxes:
            address = parse_mailbox(mailbox, self.desk.domain)
            answer = await self.errands.verify(address, invocation.verbose)
            answered = await self._answer(caller, answer)
            exit_code = exit_code or answered
        return exit_code

    async def _answer(self, caller: Caller, answer: Answer) -> int:
        caller.out(*answer.lines)
        await caller.drain()
        return answer.exit_code

    def _tell(self, what: str) -> None:
        now = self.desk.clock()
        self._emit(Lifecycle(utc_us=now.utc_us, what=what, level="error"))
