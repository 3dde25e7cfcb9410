"""The agent that hands mail to a mail store by LMTP (RFC 2033).

It is the SMTP agent with another greeting: the content gets a reply per recipient, no
MX is asked for, and what is taken is delivered, not passed on. Hops are
``unix:/run/store/lmtp``, ``[127.0.0.1]:2424`` or ``store.example`` (port 24).
"""

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import Links, SmtpAgent
from postroom.dns.answer import NameService
from postroom.dns.own import OwnNames


def lmtp_agent(
    settings: SmtpAgentSettings,
    resolver: NameService,
    hostname: str,
    links: Links | None = None,
) -> SmtpAgent:
    """Make an agent that speaks LMTP.

    A store on this machine is no loop, so no address counts as our own.
    """
    return SmtpAgent(settings, resolver, hostname, OwnNames(), links, lmtp=True)
