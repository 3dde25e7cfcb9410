"""What ``postroom check`` finds."""

import grp
import os
import stat
import sys
from pathlib import Path

import pytest

from postroom.auth.file import User, add_user
from postroom.config import check, check_files, check_listen
from postroom.config.check import CheckReport, run_check
from postroom.config.findings import problem
from postroom.config.load import parse

FOREIGN_GROUP = next(
    one.gr_name
    for one in grp.getgrall()
    if one.gr_gid not in (os.getegid(), *os.getgroups()) and not one.gr_mem
)
GOOD = """
hostname = "mx.whizzer.test"
users_file = "users"
run_directory = "run"
drop_directory = "drop"
[process]
user = "USER"
[[listen]]
address = "127.0.0.1:2525"
[route]
aliases = "aliases"
[spool]
directory = "spool"
[mailbox]
path = "mail/{user}"
"""


class SiteFolder:
    """A folder with a good configuration, and ways to spoil it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("run", "drop", "spool", "mail"):
            (path / name).mkdir()
        self.write("aliases", "postmaster: joe\n")
        add_user(str(path / "users"), User("joe"))
        self.config = GOOD.replace('user = "USER"', "")

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.write_text(text)
        file.chmod(0o644)
        return file

    def check(self) -> CheckReport:
        return run_check(str(self.write("postroom.toml", self.config)))

    def set(self, section: str, line: str) -> None:
        head = f"[{section}]\n"
        if head in self.config:
            self.config = self.config.replace(head, f"{head}{line}\n")
        elif section:
            self.config += f"{head}{line}\n"
        else:
            self.config = f"{line}\n{self.config}"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteFolder:
    # As an ordinary user would see it, whoever runs the tests.
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1000)
    monkeypatch.setattr(check_listen, "_UNPRIVILEGED_PORTS", "/nonexistent")
    monkeypatch.setattr(check_listen, "_OWN_RIGHTS", "/nonexistent")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    return SiteFolder(tmp_path)


def test_all_is_well(site: SiteFolder) -> None:
    report = site.check()
    assert report == CheckReport(True, (), (), report.effective_toml)
    config = parse(report.effective_toml, "/x")
    assert config.users_file == str(site.path / "users")


def test_a_configuration_that_cannot_be_read(site: SiteFolder) -> None:
    site.set("", "host = 1")
    site.set("smtp", "errors_max = ''")
    report = site.check()
    assert not report.ok
    assert len(report.problems) == 2
    assert report.effective_toml == ""


# What is set, and what is then found.
PROBLEMS = {
    "an unknown user": ("process", 'user = "nobody-here"', "there is no system user"),
    "root": ("process", 'user = "root"', "mail is never handled as root"),
    "the same address": (
        "[listen]",
        'address = "127.0.0.1:2525"\n[[listen]]',
        "listen: 127.0.0.1:2525 is there twice",
    ),
    "a missing module": ("policy", 'module = "none.py"', "none.py: cannot be read"),
    "missing aliases": ("route", 'routes = "none"', "route.routes: "),
    "a smart host": ("route", 'smart_host = "a b"', "route: "),
    "an unknown setting": ("", "x = 1", "there is no such setting"),
}


def test_directories_of_another_user_are_not_judged(site: SiteFolder) -> None:
    site.set("process", 'user = "daemon"')
    report = site.check()
    assert any("only root can tell" in one for one in report.warnings)
    assert not any("spool.directory" in one for one in report.problems)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems(name: str, site: SiteFolder) -> None:
    section, line, expected = PROBLEMS[name]
    site.set(section, line)
    report = site.check()
    assert not report.ok
    assert any(expected in one for one in report.problems), report.problems


WARNINGS = {
    "a short name": ('"mx.whizzer.test"', '"mx"', 'hostname: "mx" is not fully'),
    "nothing listens": (
        '[[listen]]\naddress = "127.0.0.1:2525"\n',
        "",
        "listen: nothing listens",
    ),
    "a low port": (":2525", ":25", "listen: 127.0.0.1:25 needs root"),
    "an open relay": (
        "[spool]",
        '[policy]\nrelay_networks = ["::/0"]\n[spool]',
        '"::/0" is everybody: this is an open relay',
    ),
    "a wide relay": (
        "[spool]",
        '[policy]\nrelay_networks = ["64.0.0.0/2"]\n[spool]',
        "strangers may relay",
    ),
    "mailboxes by domain": (
        'aliases = "aliases"\n[spool]\ndirectory = "spool"\n[mailbox]\npath = "mail/',
        'local_domains = ["whizzer.test"]\naliases = "aliases"\n'
        '[spool]\ndirectory = "spool"\n[mailbox]\npath = "mail/{domain}/',
        'finds the mailbox in "mx.whizzer.test": set it, for example to "whizzer.test"',
    ),
    "POP3 for others": (
        '127.0.0.1:2525"',
        '0.0.0.0:2110"\nservice = "pop3"',
        'pop3.plaintext: is "loopback"',
    ),
    "POP3 in the clear": (
        '127.0.0.1:2525"',
        '[::]:2110"\nservice = "pop3"\n[pop3]\nplaintext = "always"',
        "passwords cross the network readable at [::]:2110",
    ),
    "a reserve smaller than the logs": (
        "[spool]",
        '[spool]\nreserve_octets = "100MiB"',
        "spool.reserve_octets: 100MiB is less than the logs of 4 workers may take"
        " (128MiB)",
    ),
    "logs larger than the reserve": (
        "[process]",
        "[process]\nworkers = 9",
        "256MiB is less than the logs of 9 workers may take (288MiB)",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings(name: str, site: SiteFolder) -> None:
    old, new, expected = WARNINGS[name]
    site.config = site.config.replace(old, new)
    report = site.check()
    assert report.ok
    assert len(report.warnings) == 1
    assert expected in report.warnings[0]


def test_a_low_port_is_no_matter_with_the_right_to_it(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.config = site.config.replace(":2525", ":25")
    rights = tmp_path / "status"
    monkeypatch.setattr(check_listen, "_OWN_RIGHTS", str(rights))
    for held, count in (("0000000000000400", 0), ("0000000000000bff", 1)):
        rights.write_text(f"Name:\tx\nCapEff:\t{held}\nCapBnd:\tffff\n")
        assert len(site.check().warnings) == count


def test_a_low_port_is_no_matter_for_root(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.config = site.config.replace(":2525", ":25")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    report = site.check()
    assert report.warnings == ()
    assert [one.partition(":")[0] for one in report.problems] == ["process.user"]


def test_the_policy_module_is_tried(site: SiteFolder) -> None:
    site.set("policy", 'module = "policy.py"')
    module = site.write("policy.py", "x = y\n")
    assert f"policy.module: {module}:1: NameError" in site.check().problems[0]
    module.write_text("x = 1\n")
    assert site.check().warnings == (f"policy.module: {module} declares no hook",)
    module.write_text("from postroom import hook\n@hook.rcpt\ndef a(s, r): ...\n")
    assert site.check().warnings == ()


def test_postmaster_has_to_reach_somebody(site: SiteFolder) -> None:
    site.write("aliases", "root: joe\n")
    assert "postmaster reaches nobody" in site.check().problems[0]
    site.set("route", 'postmaster = "joe"')
    assert site.check().ok


def test_aliases_are_followed(site: SiteFolder) -> None:
    site.write(
        "aliases", "postmaster: joe\nlist: joe, nosuch\na: b\nb: a\nprog: |/bin/cat\n"
    )
    report = site.check()
    assert report.ok
    found = "\n".join(report.warnings)
    for expected in ("list: nosuch: User unknown", "a: b: ", "|/bin/cat"):
        assert expected in found


def test_lists_in_files_are_followed(site: SiteFolder) -> None:
    site.set("route", "includes = true")
    for name, text in (
        ("good", "joe\n"),
        ("bad", "joe, nosuch\n"),
        ("broken", "a b\n"),
    ):
        site.write(name, text)
    site.write("open", "joe\n").chmod(0o666)
    names = ("good", "bad", "broken", "open", "missing")
    lists = "".join(f"{name}: :include:{site.path}/{name}\n" for name in names)
    site.write("aliases", f"postmaster: joe\n{lists}")
    found = "\n".join(one for one in site.check().warnings if "include" in one)
    for expected in (
        "bad: nosuch: User unknown",
        "broken:1: ",
        "others may write",
        "missing: No such file",
    ):
        assert expected in found
    assert "good" not in found
    assert len(found.splitlines()) == 4
    site.write("aliases", f"postmaster: :include:{site.path}/good\n")
    assert site.check().ok
    site.write("aliases", f"postmaster: :include:{site.path}/missing\n")
    assert any("postmaster" in one for one in site.check().problems)


def test_many_dead_ends_are_cut_short(site: SiteFolder) -> None:
    many = "".join(f"list{n}: nosuch{n}\n" for n in range(100))
    site.write("aliases", f"postmaster: joe\n{many}")
    assert len(site.check().warnings) == 21


def test_an_aliases_file_with_an_error(site: SiteFolder) -> None:
    site.write("aliases", "postmaster: joe\nno colon here\n")
    report = site.check()
    assert any("aliases:2: error" in one for one in report.problems)


def test_the_users_file(site: SiteFolder) -> None:
    users = site.path / "users"
    users.chmod(0o644)
    assert "others may read or change it: chmod 600" in site.check().warnings[0]
    users.chmod(0o600)
    users.write_text("joe nonsense$x\n")
    assert f"users_file: {users}:1: has a credential" in site.check().problems[0]
    users.write_text("# nobody\n")
    site.write("aliases", "postmaster: joe@gonzo.test\n")
    assert "has no users: postroom user add" in site.check().warnings[0]
    users.unlink()
    assert "does not exist: postroom user add" in site.check().warnings[0]


@pytest.mark.parametrize("name", ["aliases", "policy.py", "postroom.toml"])
def test_files_that_anybody_may_change(name: str, site: SiteFolder) -> None:
    site.write("policy.py", "from postroom import hook\n@hook.rcpt\ndef a(s, r): ...\n")
    site.set("policy", 'module = "policy.py"')
    assert site.check().warnings == ()
    (site.path / name).chmod(0o666)
    report = run_check(str(site.path / "postroom.toml"))
    assert len(report.warnings) == 1
    assert f"{name}: anybody may change it" in report.warnings[0]


def test_directories_that_cannot_be(site: SiteFolder) -> None:
    site.config = site.config.replace('"spool"', '"aliases/spool"')
    assert f"spool.directory: {site.path / 'aliases'} is no" in site.check().problems[0]


def test_rights_by_mode(tmp_path: Path) -> None:
    def allowed(mode: int, user: int, group: int, wanted: int) -> bool:
        status = os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, 10, 20, 0, 0, 0, 0))
        return check_files._allows(status, (user, frozenset([group])), wanted)

    assert allowed(0o700, 10, 99, 3)
    assert not allowed(0o077, 10, 20, 3)
    assert allowed(0o070, 11, 20, 3)
    assert not allowed(0o707, 11, 20, 3)
    assert allowed(0o003, 11, 21, 3)
    assert not allowed(0o774, 11, 21, 3)
    assert allowed(0o774, 11, 21, 4)


def test_the_log_of_a_server_that_root_starts(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    worker = (os.getuid() + 4711, frozenset({os.getgid() + 4711}))
    monkeypatch.setattr(check_files, "worker", lambda config: worker)
    directory = site.path / "log"

    def found() -> list[str]:
        return [one for one in site.check().problems if one.startswith("log.to")]

    site.set("log", 'to = "log/mail.log"')
    assert found() == [f"log.to: {directory} is no directory: make it"]
    directory.mkdir()
    directory.chmod(0o755)  # root's own: it makes the file there
    assert found() == []
    directory.chmod(0o700)
    assert "cannot be entered" in found()[0]


def test_directories_without_leave_to_write(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.path / "spool").rmdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    problems = site.check().problems
    assert len(problems) == 4
    assert f"{site.path / 'spool'} does not exist and cannot be made" in problems[0]
    assert f"{site.path / 'run'} is not writable by" in problems[1]


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        pytest.param(
            "process",
            'group = "no-such-group"',
            'process.group: there is no group "no-such-group"',
            id="group",
        ),
        pytest.param(
            "process",
            'operator_group = "no-such-group"',
            "only root and the server's user can look at the queue",
            id="operators",
        ),
        pytest.param(
            "process",
            f'operator_group = "{FOREIGN_GROUP}"',
            f'is not in the group "{FOREIGN_GROUP}"',
            id="operators-without-us",
        ),
        pytest.param(
            "",
            f'run_directory = "/{"x" * 100}"',
            "is 10 octets too long for the sockets",
            id="run-directory-too-long",
        ),
        pytest.param("log", 'to = "spool"', "is a directory: name a file", id="log"),
        pytest.param(
            "history",
            'directory = "aliases"',
            "history.directory: ",
            id="history-is-a-file",
        ),
        pytest.param(
            "",
            '[[listen]]\naddress = "0.0.0.0:2525"',
            "another [[listen]] has all addresses at port 2525",
            id="all-addresses",
        ),
    ],
)
def test_what_a_server_could_not_do(
    site: SiteFolder, section: str, line: str, said: str
) -> None:
    if line.startswith("run_directory"):
        site.config = site.config.replace('run_directory = "run"', "")
    if line.startswith("[["):
        site.config += f"{line}\n"
    else:
        site.set(section, line)
    report = site.check()
    assert any(said in text for text in (*report.problems, *report.warnings))


def test_all_addresses_of_the_other_kind_are_no_hindrance(site: SiteFolder) -> None:
    site.config += '[[listen]]\naddress = "[::]:2525"\n'
    assert site.check().ok


@pytest.mark.parametrize("name", ["spool", "run"])
def test_directories_that_strangers_may_change(site: SiteFolder, name: str) -> None:
    (site.path / name).chmod(0o777)
    (warned,) = site.check().warnings
    assert f"anybody may write in {site.path / name}" in warned
    (site.path / name).chmod(0o700)
    assert site.check().warnings == ()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_directories_of_somebody_else(site: SiteFolder) -> None:
    os.chown(site.path / "spool", 4711, -1)
    (warned,) = site.check().warnings
    assert "belongs to user 4711, who can change what is in it" in warned


def test_files_that_root_can_read_and_workers_cannot(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    worker = (os.getuid() + 4711, frozenset({os.getgid() + 4711}))
    monkeypatch.setattr(check_files, "worker", lambda config: worker)
    above = {site.path, *site.path.parents}
    stat_of = Path.stat

    def open_above(path: Path, **more: bool) -> os.stat_result:
        """Temporary directories are the owner's alone, as a rule."""
        found = stat_of(path, **more)
        if path not in above:
            return found
        return os.stat_result((found.st_mode | 0o011, *tuple(found)[1:]))

    monkeypatch.setattr(Path, "stat", open_above)

    def found(name: str) -> list[str]:
        return [one for one in site.check().problems if one.startswith(name)]

    assert "users_file: " in found("users_file")[0]  # 0600
    (site.path / "users").chmod(0o644)
    assert found("users_file") == []
    assert found("route.aliases") == []
    (site.path / "aliases").chmod(0o640)
    assert "aliases cannot be read by" in found("route.aliases")[0]
    closed = site.path / "closed"
    closed.mkdir()
    closed.chmod(0o755)  # whatever the umask
    site.write("closed/policy.py", "from postroom import hook\n")
    site.set("policy", 'module = "closed/policy.py"')
    assert found("policy") == []
    closed.chmod(0o700)
    assert f"who may not enter {closed}" in found("policy")[0]
    site.config = site.config.replace('"spool"', '"closed/spool"')
    assert f"who may not enter {closed}" in found("spool")[0]


def test_what_is_found_twice_is_told_once(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "outbound.logins_file: logins cannot be read by joe: chown joe logins"
    twice = (problem(told), problem(told))
    monkeypatch.setattr(check, "outbound_findings", lambda config: twice)
    assert site.check().problems == (told,)


def test_a_program_that_workers_cannot_reach(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    worker = (os.getuid() + 4711, frozenset({os.getgid() + 4711}))
    monkeypatch.setattr(check_files, "worker", lambda config: worker)
    closed = site.path / "venv"
    closed.mkdir()
    closed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(closed / "bin" / "python3"))
    (closed / "bin").mkdir()
    (closed / "bin").chmod(0o755)

    def found() -> list[str]:
        all_found = site.check().problems
        return [one for one in all_found if f"may not enter {closed}" in one]

    assert found() == []
    closed.chmod(0o700)
    above = {closed.parent, *closed.parent.parents}
    stat_of = Path.stat

    def open_above(path: Path, **more: bool) -> os.stat_result:
        mode = 0o011 if path in above else 0
        found = stat_of(path, **more)
        return os.stat_result((found.st_mode | mode, *tuple(found)[1:]))

    monkeypatch.setattr(Path, "stat", open_above)
    (told,) = found()
    assert "python3, a part of the program, cannot be reached" in told


def test_the_remedy_never_spoils_a_directory_that_is_there(
    site: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.path / "drop").rmdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    problems = "\n".join(site.check().problems)
    assert f"-m 3733 {site.path / 'drop'}" in problems
    assert f'{site.path / "run"}" if it is for nothing else' in problems
    assert "-m 700" not in problems
