"""``python -m alligator`` is the command ``alligator``."""

import sys

from alligator.cli import main

if __name__ == "__main__":
    sys.exit(main())
