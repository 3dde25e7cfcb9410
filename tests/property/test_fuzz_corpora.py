"""What the fuzzers begin with, and what they found, is tried without them."""

import pytest
from fuzz.targets import CORPUS, TARGETS, corpus


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    tried = 0
    for path in corpus(name):
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"corpus/{name}/{path.name}: {error!r}") from error
        tried += 1
    assert tried >= 5


def test_no_corpus_is_forgotten() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
