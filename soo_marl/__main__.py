"""``python -m soo_marl`` is ``soo-marl``."""

import sys

from soo_marl.cli import main

if __name__ == "__main__":
    sys.exit(main())
