"""A site's own Python as the keeper of accounts."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from postroom.auth.module import ModuleAccounts, load
from postroom.auth.sasl import Known, Unavailable, Unknown
from postroom.auth.settings import AuthSettings
from postroom.mail.units import Duration

SITE = """
import threading
gate = threading.Event()

def check_password(login, password):
    match login:
        case "boom":
            raise RuntimeError("directory is down")
        case "odd":
            return 7
        case "worse":
            return "no/name"
        case "slow":
            gate.wait(60)
    return login.lower() if password == "right" else None

check_password.gate = gate
"""
FINDS = (
    SITE
    + """
def find_user(name):
    return "betty" if name == "b@whizzer.test" else None
"""
)


def accounts(
    directory: Path, text: str = SITE, timeout: str = "60s", waiting_max: int = 200
) -> ModuleAccounts:
    path = directory / "logins.py"
    path.write_text(text)
    settings = AuthSettings(
        backend="python",
        module=str(path),
        module_timeout=Duration.from_text(timeout),
        waiting_max=waiting_max,
    )
    return ModuleAccounts(settings, 1)


async def test_what_the_module_says(tmp_path: Path) -> None:
    site = accounts(tmp_path)
    assert await site.check_password("Betty", b"right") == Known("betty")
    assert isinstance(await site.check_password("betty", b"wrong"), Unknown)
    assert isinstance(await site.check_password("betty", b"\xff"), Unknown)
    for login, why in [
        ("boom", "directory is down"),
        ("odd", "gave 7"),
        ("worse", "no user's name"),
    ]:
        found = await site.check_password(login, b"right")
        assert isinstance(found, Unavailable)
        assert why in found.reason
    assert isinstance(await site.find_user("betty"), Unknown)
    site.close()


async def test_finding_users(tmp_path: Path) -> None:
    site = accounts(tmp_path, FINDS)
    assert await site.find_user("b@whizzer.test") == Known("betty")
    assert isinstance(await site.find_user("joe"), Unknown)
    site.close()


async def test_a_module_that_takes_too_long(tmp_path: Path) -> None:
    site = accounts(tmp_path, timeout="50ms", waiting_max=0)
    gate: threading.Event = vars(site._check)["gate"]
    found = await site.check_password("slow", b"right")
    assert isinstance(found, Unavailable)
    assert "took more than" in found.reason
    # Its thread is still taken, so nobody else gets in line.
    found = await site.check_password("betty", b"right")
    assert found == Unavailable("too many password checks wait")
    gate.set()
    site._pool.submit(int).result(60)  # behind it in the one thread
    await asyncio.sleep(0)
    patient = Duration.from_text("60s")  # the thread may be slow on a busy machine
    site._settings = msgspec.structs.replace(site._settings, module_timeout=patient)
    assert await site.check_password("betty", b"right") == Known("betty")
    site.close()


MODULES = {
    "not there": (None, "logins.py"),
    "broken": ("def (", "SyntaxError"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "without the function": ("x = 1", "no check_password"),
    "with something else of that name": ("check_password = 1", "no check_password"),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_are_none(name: str, tmp_path: Path) -> None:
    text, why = MODULES[name]
    path = tmp_path / "logins.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=why):
        load(str(path))
