"""``python -m equipoise COMMAND ...``, and ``torchrun -m equipoise COMMAND ...`` for several processes."""

from __future__ import annotations

import sys

from .embedded.cli import main

if __name__ == "__main__":
    sys.exit(main())
