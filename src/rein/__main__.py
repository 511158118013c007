"""`python -m rein` is the same program as `rein`."""

import sys

from rein.cli import main

if __name__ == "__main__":
    sys.exit(main())
