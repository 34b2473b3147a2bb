"""``python -m equipoise COMMAND ...``, and ``torchrun -m equipoise COMMAND ...`` for several processes."""

from __future__ import annotations

import os
import sys

from .cli.main import main

if __name__ == "__main__":
    code = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Gloo's threads may outlive their process group; torch 2.11 then now and then aborts while the interpreter is taken down
        # ("terminate called without an active exception"), and torchrun reports a failure after all has been written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
