"""Fuzzes one target in this process: ``python -m fuzz.one commands DIRECTORY ...``.

What stands behind the name goes to libFuzzer. Only here is atheris needed.
"""

import sys

import atheris


def main() -> None:
    """Fuzz until libFuzzer has had enough; a crash ends the process."""
    name = sys.argv[1]
    with atheris.instrument_imports(include=["postroom"]):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
