"""What ``sendmail``, ``mailq`` and ``newaliases`` say to ``--help``.

Answered without the server, since it is often asked for when that does not run.
Imported by the courier only when needed; imports as little as the courier does.
"""

from postroom.cli.sendmail import EX_OK, show

_SENDMAIL = """\
Usage: sendmail [OPTION...] [ADDRESS...] < LETTER

  Give a letter to the mail server. With status 0 it is in the queue, on disk.

  -t           Recipients from To, Cc and Bcc of the letter.
  -i           A line with a lone dot does not end the letter.
  -f ADDRESS   The sender, where errors go; <> for none.
  -F NAME      The full name for a From field that is missing.
  -v           Show the delivery as it happens.
  -N WHEN      Reports: never, or success,failure,delay.
  -bv          Say where mail for the addresses would go.
  -bs          Speak SMTP on standard input and output.
  -bp          List the queue, as mailq does.
  -bi          Read the aliases anew, as newaliases does.
  -q           Try now all that waits; -qRPART, -qSPART, -qIPART: what matches.

Statuses: 64 misuse, 65 content, 67 no such user, 68 no such host, 75 try
again, 77 not permitted. Other options of sendmail are taken, or refused with
what is there instead: docs/sendmail.md. The server itself is "postroom serve".
"""
_MAILQ = """\
Usage: mailq [-v] [-qRRECIPIENT] [-qSSENDER] [-qIID] [-qQ]

  List what waits in the queue; users see their own letters. -v tells more,
  -q... lists what has this part only, -qQ what is held. "postroom queue" can
  do more.
"""
_NEWALIASES = """\
Usage: newaliases

  Have the server read its aliases anew, and say what is wrong with them.
"""


def answer(argv: list[str]) -> int:
    """Print the usage of the program in ``argv``; returns the exit code."""
    name = argv[0].rpartition("/")[2]
    show(1, {"mailq": _MAILQ, "newaliases": _NEWALIASES}.get(name, _SENDMAIL))
    return EX_OK
