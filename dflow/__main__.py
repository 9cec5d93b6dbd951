"""``python -m dflow``: the command line."""

import sys

from dflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
