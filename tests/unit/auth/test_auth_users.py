"""The users file: several credentials, atomic changes, and who may log in."""

import os
import re
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from postroom.auth import cram
from postroom.auth.credentials import (
    Credential,
    check_password,
    make_argon2,
    make_credentials,
)
from postroom.auth.file import (
    User,
    UsersError,
    add_user,
    change_user,
    check_name,
    read_users,
    remove_user,
)
from postroom.auth.scram import derive
from postroom.auth.settings import AuthSettings
from postroom.auth.users import Users
from postroom.mail.units import Duration, Size

CHEAP = AuthSettings(argon2_memory=Size(8192), argon2_passes=1, scram_iterations=4096)
HASH = make_argon2(b"right", CHEAP)
OTHER_HASH = make_argon2(b"other", CHEAP)
VERIFIER = Credential("SCRAM-SHA-256", derive(b"right", b"s" * 16, 4096).to_text())


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "users")


def in_force(path: str, *domains: str) -> Users:
    users = Users(path, CHEAP, domains)
    assert users.refresh() is None
    return users


def test_strangers_have_one_salt_for_each_spelling_as_users_have(path: str) -> None:
    add_user(path, User("joe", (HASH, VERIFIER)))
    users = in_force(path, "gonzo.test")
    for name in ("joe", "nobody"):
        spellings = (name, name.upper(), f"{name}@gonzo.test", f"{name}@GONZO.test")
        assert len({users.scram_verifier(one).salt for one in spellings}) == 1
        assert len({users.cram_secret(one) for one in spellings}) == 1
    other = users.scram_verifier("nobody@elsewhere.test")
    assert other.salt != users.scram_verifier("nobody").salt


# Credentials


def test_a_new_password_has_a_hash_and_a_verifier() -> None:
    made = make_credentials(b"right", CHEAP)
    assert [one.scheme for one in made] == ["argon2id", "SCRAM-SHA-256"]
    for one in made:
        assert Credential.from_text(one.to_text()) == one
        assert one.matches(b"right")
        assert not one.matches(b"wrong")
    assert make_credentials(b"right", CHEAP) != made


def test_the_verifier_can_be_left_out() -> None:
    made = make_credentials(b"right", AuthSettings(scram=False))
    assert [one.scheme for one in made] == ["argon2id"]


def test_the_default_costs() -> None:
    (one,) = make_credentials(b"right", AuthSettings(scram=False))
    assert one.to_text().startswith("argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        (b"", "is empty"),
        (b"x" * 1025, "longer than 1024"),
        (b"a\r\nb", "control character"),
        (b"a\0b", "control character"),
    ],
)
def test_passwords_that_cannot_be(password: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_password(password)


BAD_CREDENTIALS = {
    "no scheme": ("plain", 'unknown scheme "plain"'),
    "another scheme": ("plain$secret", 'unknown scheme "plain"'),
    "argon2i": ("argon2i$v=19$m=8,t=1,p=1$AAAA$AAAA", "unknown scheme"),
    "torn": ("argon2id$v=19$m=8", "malformed"),
    "no number": ("argon2id$v=19$m=x,t=1,p=1$AAAA$AAAA", "malformed"),
    "another version": ("argon2id$v=16$m=8,t=1,p=1$AAAA$AAAA", "malformed"),
    "all memory": ("argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA", "costs too much"),
    "for ever": ("argon2id$v=19$m=8,t=9999,p=1$AAAA$AAAA", "costs too much"),
    "no verifier": ("SCRAM-SHA-256$4096:x", "no SCRAM verifier"),
}


@pytest.mark.parametrize("name", BAD_CREDENTIALS)
def test_credentials_that_cannot_be(name: str) -> None:
    text, reason = BAD_CREDENTIALS[name]
    with pytest.raises(ValueError, match=reason):
        Credential.from_text(text)


def test_a_hash_that_is_no_base64_matches_nothing() -> None:
    odd = Credential.from_text("argon2id$v=19$m=8,t=1,p=1$!!!!$!!!!")
    assert not odd.matches(b"right")


@pytest.mark.parametrize(
    "values",
    [
        {"scram_iterations": 4095},
        {"argon2_passes": 0},
        {"argon2_memory": Size(1)},
        {"argon2_lanes": 0},
        {"waiting_max": -1},
    ],
)
def test_settings_that_cannot_be(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"below|must be"):
        AuthSettings(**values)  # type: ignore[arg-type]


# The file


@pytest.mark.parametrize("name", ["joe", "JOE", "joe.doe", "j-o_e", "0", "a1"])
def test_names(name: str) -> None:
    assert check_name(name) == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".joe",
        "joe.",
        "a..b",
        "a/b",
        "../joe",
        "a b",
        "a+b",
        "a@b",
        "é",
        "#x",
        "a\n",
        "a\0",
        "-joe",
        "x" * 65,
        "\u212a",
    ],
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no user's name|at most 64"):
        check_name(name)


def test_adding_changing_removing(path: str) -> None:
    add_user(path, User("joe", (HASH,)))
    add_user(path, User("betty"))
    assert read_users(path) == {"joe": User("joe", (HASH,)), "betty": User("betty")}
    change_user(path, User("betty", (OTHER_HASH, VERIFIER)))
    assert read_users(path)["betty"].credentials == (OTHER_HASH, VERIFIER)
    remove_user(path, "joe")
    assert list(read_users(path)) == ["betty"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_what_people_wrote_survives(path: str) -> None:
    Path(path).write_text(
        "# Sales\n\nsales\n  # People\nJoe   " + HASH.to_text() + "\n"
    )
    change_user(path, User("joe", (OTHER_HASH,)))
    add_user(path, User("betty"))
    assert Path(path).read_text() == (
        f"# Sales\n\nsales\n  # People\njoe {OTHER_HASH.to_text()}\nbetty\n"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: add_user(path, User("joe")), 'there is a user "joe" already'),
        (lambda path: change_user(path, User("x")), 'there is no user "x"'),
        (lambda path: remove_user(path, "x"), 'there is no user "x"'),
    ],
)
def test_changes_that_cannot_be(change: object, reason: str, path: str) -> None:
    add_user(path, User("joe"))
    before = Path(path).read_bytes()
    with pytest.raises(UsersError, match=reason):
        change(path)  # type: ignore[operator]
    assert Path(path).read_bytes() == before
    assert sorted(os.listdir(Path(path).parent)) == ["users", "users.lock"]


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(UsersError, match="cannot be changed: No such file"):
        add_user(str(tmp_path / "none" / "users"), User("joe"))


def test_a_failed_write_leaves_the_old_file(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(path, User("joe"))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsersError, match="No space left"):
        add_user(path, User("betty"))
    assert list(read_users(path)) == ["joe"]
    assert sorted(os.listdir(Path(path).parent)) == ["users", "users.lock"]


def test_changes_at_the_same_time_are_all_made(path: str) -> None:
    names = [f"user{n}" for n in range(20)]
    threads = [
        threading.Thread(target=add_user, args=(path, User(name))) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_users(path)) == sorted(names)


BAD_FILES = {
    "a name": (b"joe\n../x\n", 2, "is no user's name"),
    "twice": (b"joe\n# x\nJOE\n", 3, "is there twice"),
    "a credential": (b"joe secret\n", 1, "unknown scheme"),
    "too many": (b"joe " + b" ".join([HASH.to_text().encode()] * 9), 1, "more than 8"),
    "no text": (b"joe\n\xff\n", 2, "is not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be(name: str, path: str) -> None:
    data, line, reason = BAD_FILES[name]
    Path(path).write_bytes(data)
    with pytest.raises(UsersError, match=reason) as caught:
        read_users(path)
    assert caught.value.line == line
    with pytest.raises(UsersError, match=reason):
        add_user(path, User("new"))
    assert Path(path).read_bytes() == data


def test_a_lock_that_leads_elsewhere_is_not_followed(path: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    os.symlink(elsewhere, f"{path}.lock")
    with pytest.raises(UsersError, match=r"users\.lock"):
        add_user(path, User("joe"))
    assert not elsewhere.exists()
    assert not os.path.exists(path)


# In force


def test_who_exists(path: str) -> None:
    add_user(path, User("joe"))
    users = in_force(path)
    assert users.exists("joe")
    assert users.exists("JOE")
    assert not users.exists("joe+detail")
    assert users.names() == ("joe",)


def test_passwords(path: str) -> None:
    add_user(path, User("joe", (OTHER_HASH, HASH)))
    add_user(path, User("scram", (VERIFIER,)))
    add_user(path, User("sales"))
    users = in_force(path, "whizzer.test")
    assert users.verify("joe", b"right")
    assert users.verify("JOE@Whizzer.TEST", b"other")
    assert users.verify("scram", b"right")
    for login, password in (
        ("joe", b"wrong"),
        ("joe", b""),
        ("joe@gonzo.test", b"right"),
        ("scram", b"wrong"),
        ("sales", b""),
        ("nobody", b"right"),
        ("", b"right"),
    ):
        assert users.verify(login, password) is None, login


def test_who_does_not_exist_costs_the_same(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(path, User("joe", (HASH, OTHER_HASH)))
    add_user(path, User("betty", (HASH,)))
    add_user(path, User("sales"))
    users = in_force(path)
    counted: list[str] = []
    matches = Credential.matches

    def count(credential: Credential, password: bytes) -> bool:
        counted.append(credential.scheme)
        return matches(credential, password)

    monkeypatch.setattr(Credential, "matches", count)
    for login in ("joe", "betty", "sales", "nobody"):
        counted.clear()
        assert users.verify(login, b"wrong") is None
        assert counted == ["argon2id"] * 2, login


def test_who_does_not_exist_costs_what_most_cost_though_the_settings_changed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dearer = msgspec.structs.replace(CHEAP, argon2_passes=3)
    new = make_argon2(b"new", dearer)
    for name, made in (("joe", HASH), ("betty", OTHER_HASH), ("ann", new)):
        add_user(path, User(name, (VERIFIER, made)))
    users = Users(path, dearer)
    assert users.refresh() is None
    counted: list[str] = []
    matches = Credential.matches

    def count(credential: Credential, password: bytes) -> bool:
        counted.append(credential.cost)
        return matches(credential, password)

    monkeypatch.setattr(Credential, "matches", count)
    for login, password in (("joe", b"wrong"), ("nobody", b"wrong")):
        assert users.verify(login, password) is None
    assert counted == ["m=8,t=1,p=1"] * 2
    assert users.verify("nobody", b"right") is None  # though joe's is like that
    for name in ("joe", "betty", "ann"):
        change_user(path, User(name, (VERIFIER,)))
    assert users.refresh() is None
    counted.clear()
    assert users.verify("nobody", b"wrong") is None
    assert counted == ["4096"]


def test_a_changed_file_comes_into_force(path: str) -> None:
    add_user(path, User("joe", (HASH,)))
    users = in_force(path)
    change_user(path, User("joe", (OTHER_HASH,)))
    add_user(path, User("betty"))
    assert not users.exists("betty")
    assert users.refresh() is None
    assert users.exists("betty")
    assert users.verify("joe", b"other")


def test_a_broken_file_leaves_the_old_users_and_is_told_once(path: str) -> None:
    add_user(path, User("joe"))
    users = in_force(path)
    Path(path).write_text("joe\njoe\n")
    problem = users.refresh()
    assert problem is not None
    assert problem.line == 2
    assert users.refresh() is None
    assert users.exists("joe")
    os.unlink(path)
    assert "No such file" in str(users.refresh())
    assert users.refresh() is None
    assert users.exists("joe")
    add_user(path, User("betty"))
    assert users.refresh() is None
    assert users.names() == ("betty",)


@pytest.mark.parametrize("broken", ["joe\njoe\n", "no such scheme$$\n", "directory"])
def test_without_any_good_version_nobody_can_say_who_exists(
    path: str, broken: str
) -> None:
    """Else a restart with a broken file would bounce the mail of every user."""
    os.mkdir(path) if broken == "directory" else Path(path).write_text(broken)
    users = Users(path, CHEAP)
    problem = users.refresh()
    assert problem is not None
    assert "mail for users waits" in problem.reason
    assert users.refresh() is None  # told once
    with pytest.raises(OSError, match=re.escape(path)):
        users.exists("joe")
    os.rmdir(path) if broken == "directory" else os.unlink(path)
    assert users.refresh()  # that it is not there
    assert not users.exists("joe")
    add_user(path, User("joe"))
    assert users.refresh() is None
    assert users.exists("joe")
    assert not users.exists("betty")
    Path(path).write_text("joe\njoe\n")
    assert users.refresh()
    assert not users.exists("betty")


def test_a_file_that_is_not_there_has_no_users(path: str) -> None:
    users = Users(path, CHEAP)
    assert "No such file" in str(users.refresh())
    assert not users.exists("joe")
    assert not users.fault


def test_how_old_the_last_look_is(path: str) -> None:
    users = Users(path, CHEAP)
    assert users.is_older_than(Duration.from_text("1h"))
    users.refresh()
    assert not users.is_older_than(Duration.from_text("1h"))
    assert users.is_older_than(Duration(0))


def test_verifiers_for_scram(path: str) -> None:
    add_user(path, User("joe", (HASH, VERIFIER)))
    add_user(path, User("betty", (HASH,)))
    users = in_force(path)
    assert users.scram_verifier("Joe").matches(b"right")
    for login in ("betty", "nobody"):
        one = users.scram_verifier(login)
        assert one == users.scram_verifier(login)
        assert not one.matches(b"right")


def test_strangers_have_as_many_iterations_as_most_users(path: str) -> None:
    old = Credential("SCRAM-SHA-256", derive(b"x", b"s" * 16, 5000).to_text())
    add_user(path, User("joe", (VERIFIER,)))
    for name in ("ann", "betty"):
        add_user(path, User(name, (old,)))
    users = in_force(path)
    assert users.scram_verifier("nobody").iterations == 5000
    assert len(users.scram_verifier("nobody").salt) == 16


def test_strangers_are_the_same_to_workers_with_one_secret(path: str) -> None:
    add_user(path, User("joe", (VERIFIER,)))
    first, second = (Users(path, CHEAP, (), b"one secret") for _ in range(2))
    other = Users(path, CHEAP, (), b"another")
    for login in ("nobody", "NoBody"):
        assert first.scram_verifier(login) == second.scram_verifier("nobody")
        assert first.cram_secret(login) == second.cram_secret("nobody")
    assert first.scram_verifier("nobody") != other.scram_verifier("nobody")
    assert first.cram_secret("nobody") != first.cram_secret("nobody2")


def test_secrets_for_cram_md5(path: str) -> None:
    made = Credential("CRAM-MD5", cram.to_text(cram.make_secret(b"right")))
    add_user(path, User("joe", (HASH, made)))
    add_user(path, User("betty", (made,)))
    users = in_force(path)
    assert users.schemes == {"argon2id", "CRAM-MD5"}
    assert users.cram_secret("joe") == cram.make_secret(b"right")
    assert users.verify("betty", b"right") == User("betty", (made,))
    assert users.verify("betty", b"wrong") is None
    for text in ("CRAM-MD5$", "CRAM-MD5$x", "CRAM-MD5$" + "A" * 20):
        with pytest.raises(ValueError, match="malformed"):
            Credential.from_text(text)
