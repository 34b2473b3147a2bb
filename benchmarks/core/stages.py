"""Keep finished parts of a benchmark as JSON, so that an interrupted run resumes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...cli.publish import as_json, git
from ...models.files import write_text


def load_or_make(folder: Path, name: str, facts: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of one part from ``folder``, or call ``make()`` and store its result.

    Stored figures count only if they were made with the same ``facts``. Adds ``seconds`` and the ``commit`` at which they were made. A file
    that cannot be read is made again.
    """
    path, wanted = folder / f"{name}.json", json.loads(json.dumps(as_json(facts)))
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["facts"] == wanted:
            return dict(stored["figures"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    started = time.monotonic()
    figures = {**as_json(make()), "seconds": round(time.monotonic() - started, 1), "commit": git("rev-parse", "HEAD")}
    print(f"{name}: {figures['seconds']:.0f} s", file=sys.stderr, flush=True)
    write_text(path, json.dumps({"facts": wanted, "figures": figures}, indent=1, allow_nan=False) + "\n")
    return figures
