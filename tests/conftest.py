"""How properties are tested: the same examples every time, unless one goes looking.

``make test`` must say the same of the same code, so its examples are derived from the
tests themselves. ``make search`` draws new ones, many more, in a new order.
"""

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile(
    "search",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("POSTROOM_EXAMPLES", "repeatable"))

# A shell that starts the tests in the background lets them ignore INT, and so would the
# commands that are tried.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
