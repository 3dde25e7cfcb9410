"""Whatever is set, the printed whole reads back the same; nonsense never crashes."""

import tomllib
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from postroom.config.load import parse
from postroom.config.problems import ConfigError
from postroom.config.render import to_toml
from postroom.config.settings import Config, Listen
from postroom.config.units import toml_key, toml_text, toml_value
from postroom.mail.units import Duration, Size

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=20)
# No configuration may hold a NUL, nor wait for a client for 0 s or for 100 years.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="{}\0"), max_size=20)
DURATIONS = st.integers(1, 3 * 10**15).map(Duration)
SIZES = st.integers(0, 1 << 50).map(Size)
HOSTS = st.from_regex(r"[a-z][a-z0-9]{0,7}(\.[a-z][a-z0-9]{0,7}){0,2}", fullmatch=True)


@given(TEXTS)
def test_any_text_survives_toml(text: str) -> None:
    assert tomllib.loads(f"a = {toml_text(text)}") == {"a": text}


@given(
    st.recursive(
        TEXTS | st.integers(-(2**63), 2**63 - 1) | st.booleans(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_value_survives_toml(value: Any) -> None:
    assert tomllib.loads(f"a = {toml_value(value)}") == {"a": value}


@given(HOSTS, WORDS, DURATIONS, SIZES, st.dictionaries(WORDS, WORDS))
def test_a_configuration_survives_printing(
    host: str, text: str, duration: Duration, size: Size, users: dict[str, str]
) -> None:
    replace = msgspec.structs.replace
    config = Config(hostname=host, listen=(Listen(address="[::1]:2525"),))
    config = replace(
        config,
        receive=replace(config.receive, banner=text, command_timeout=duration),
        smtp=replace(config.smtp, message_octets_max=size),
        submission=replace(config.submission, users=users),
    )
    assert parse(to_toml(config), "/etc/postroom/postroom.toml") == config


NONSENSE = st.recursive(
    TEXTS | st.integers(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["address", "errors_max", "retry", ""]), inner
        )
    ),
)


@given(st.dictionaries(TEXTS | st.sampled_from(Config.__struct_fields__), NONSENSE))
def test_nonsense_is_refused_in_words(values: dict[str, Any]) -> None:
    text = "".join(f"{toml_key(k)} = {toml_value(v)}\n" for k, v in values.items())
    for line in refused(text):
        assert line.startswith("/p.toml")
        assert line.isprintable()


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    assert all(line.startswith("/p.toml") for line in refused(text))


def refused(text: str) -> list[str]:
    """Return what is wrong with a configuration, one line each."""
    try:
        parse(text, "/p.toml")
    except ConfigError as error:
        return str(error).split("\n")
    return []
