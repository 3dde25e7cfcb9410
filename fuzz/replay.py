"""Gives one file to a target: ``python -m fuzz.replay commands .fuzz/crashes/...``."""

import sys
from pathlib import Path

from fuzz.targets import TARGETS


def main() -> None:
    """Raise what the target raises."""
    name, *paths = sys.argv[1:]
    for path in paths:
        data = Path(path).read_bytes()
        print(path, data)
        TARGETS[name](data)


if __name__ == "__main__":
    main()
