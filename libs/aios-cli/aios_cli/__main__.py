"""`python -m aios_cli`."""

import sys

from aios_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
