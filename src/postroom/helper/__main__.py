"""``python -m postroom.helper``: started by the supervisor, and by nobody else."""

import sys

from postroom.helper.root import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
