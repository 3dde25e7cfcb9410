"""Says whether a user may send from an address. Pure: what must be known is asked for.

An address is a user's own when it is their name in a domain of ours, with or without a
detail and whoever else gets its mail, or an alias that stands for them alone; or when
the table of senders gives it to them. Whatever cannot be looked up now is a failure,
never a yes.
"""

from postroom.mail.address import Address
from postroom.route.drive import Asking
from postroom.route.questions import SENDERS, Failed, Found, Lookup
from postroom.route.router import Router
from postroom.route.routing import LocalAlias, LocalUser, RoutingFailed


def owns(router: Router, login: str, address: Address) -> Asking[bool | RoutingFailed]:
    """Say whether ``login`` may send from an address.

    The null sender belongs to everybody: users' programs send reports of their own
    (RFC 5321 §4.5.5).
    """
    if address.is_null:
        return True
    user = _user_of(router, login)
    granted = yield from _granted(router, user, login.lower(), address)
    if granted is not False:
        return granted
    routing = yield from router.classify(address)
    match routing:
        case LocalUser(name):
            return name == user
        case LocalAlias(name, targets):
            if name == user:
                return True  # their own name, though others get their mail, too
            target = targets[0].removeprefix("\\")  # the user, no further alias
            return len(targets) == 1 and _user_of(router, target) == user
        case RoutingFailed():
            return routing
        case _:
            return f"{address.local}@{address.domain_key}".lower() == login.lower()


def _granted(
    router: Router, user: str, login: str, address: Address
) -> Asking[bool | RoutingFailed]:
    local, domain = address.local.lower(), address.domain_key
    keys = [f"{local}@{domain}", f"@{domain}"]
    if router.is_local(domain):
        keys.insert(1, local)
    for key in keys:
        answer = yield Lookup(SENDERS, key)
        if isinstance(answer, Failed):
            return RoutingFailed(answer.reason)
        if isinstance(answer, Found):
            names = answer.value.lower().replace(",", " ").split()
            if not {user, login}.isdisjoint(names):
                return True
    return False


def _user_of(router: Router, login: str) -> str:
    """Return the user that a login means: without the domain, if that is ours."""
    local, at, domain = login.strip().lower().rpartition("@")
    return local if at and router.is_local(domain) else login.strip().lower()
