"""Every setting, phase and word of policy is documented."""

from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

import postroom
from postroom.config.load import parse
from postroom.config.reference import MARKER, Setting, renewed, settings_of
from postroom.config.settings import PATHS, Config, Listen
from postroom.policy import session
from postroom.policy.builtin import Guards
from postroom.policy.hooks import PHASES
from postroom.policy.settings import PolicySettings
from postroom.testing.policy import PolicyTest

DOCS = Path(__file__).parents[3] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()
POLICY = (DOCS / "policy.md").read_text()


def structs(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    below = [
        one
        for one in get_type_hints(kind).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct)
    ]
    return [kind, *(deep for one in below for deep in structs(one))]


ALL: list[type[msgspec.Struct]] = [*structs(Config), Listen]

SETTINGS = [
    pytest.param(struct, one, id=f"{struct.__name__}.{one.name}")
    for struct in ALL
    for one in settings_of(struct)
]


@pytest.mark.parametrize(("struct", "setting"), SETTINGS)
def test_each_setting_has_a_meaning(struct: type, setting: Setting) -> None:
    assert len(setting.meaning) > 10, "a docstring belongs under it"


def test_the_reference_is_up_to_date() -> None:
    assert renewed(CONFIGURATION) == CONFIGURATION, (
        "run: python -m postroom.config.reference docs/configuration.md"
    )


def test_a_document_without_a_place_for_it() -> None:
    with pytest.raises(ValueError, match="has no line"):
        renewed("# Configuration\n")
    assert renewed(f"a\n{MARKER}\nold").startswith(f"a\n{MARKER}\n\n### Top level")


def test_the_example_works() -> None:
    text = CONFIGURATION.split("```toml\n")[1].split("```")[0]
    config = parse(text, "/etc/postroom/postroom.toml")
    assert len([line for line in text.splitlines() if line]) <= 15
    assert config.route.local_domains == ("whizzer.test",)
    assert [one.service for one in config.listen] == ["smtp", "pop3"]


def test_paths_are_settings() -> None:
    for keys in PATHS:
        kind: Any = Config
        for key in keys:
            if get_origin(kind) is tuple:  # a list of tables
                kind = get_args(kind)[0]
            kind = get_type_hints(kind)[key]
        assert kind in (str, str | None)


def test_each_phase_is_documented_with_what_its_subject_has() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line
        for line in POLICY.splitlines()
        if line.startswith("| `")
    }
    for phase in PHASES:
        name = {"message": "MessageSubject", "route": "RouteSubject"}.get(
            phase, "OutcomeSubject" if phase == "outcome" else phase.title()
        )
        row = next(
            line for line in POLICY.splitlines() if line.startswith(f"| `{phase}` |")
        )
        for field in getattr(session, name).__struct_fields__:
            assert f"`{field}`" in row, f"{phase}: {field}"
    assert rows


def test_what_a_policy_module_may_import_is_documented() -> None:
    for name in postroom.__all__:
        if name not in ("Address", "Envelope"):
            assert name in POLICY, name
        assert getattr(postroom, name)


def test_each_guard_is_documented() -> None:
    settings = PolicySettings(
        connection_rate="1/1h", message_rate="1/1h", recipient_rate="1/1h"
    )
    for one in Guards(settings, 0).hooks():
        assert f"| `{one.phase}` | `{one.name}` |" in POLICY


def test_the_examples_of_the_document_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, typed, tests = (
        part.split("```")[0] for part in POLICY.split("```python\n")[1:]
    )
    monkeypatch.chdir(tmp_path)
    Path("policy.py").write_text(module)
    Path("typed.py").write_text(typed)
    bulk = PolicyTest("typed.py").message("Precedence: Bulk\n\nhi\n")
    assert bulk.held == "bulk mail"
    assert not PolicyTest("typed.py").message("Precedence: list\n\nhi\n").held
    found: dict[str, Any] = {}
    exec(compile(tests, "policy.md", "exec"), found)
    found["test_spam_traps"]()
