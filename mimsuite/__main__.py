"""``python -m mimsuite`` is the command line."""

import sys

from mimsuite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
