"""What a benchmark has measured already, kept in its folder as JSON: a run that was cut off goes on, and no part is done twice."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...cli.publish import git, plain
from ...models.files import write_text


def load_or_make(folder: Path, name: str, facts: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one part: those in ``folder`` where they were made with the same ``facts``, else those of ``make()``.

    ``seconds`` and the ``commit`` at which they were made are added. What cannot be read is made again.
    """
    path, wanted = folder / f"{name}.json", json.loads(json.dumps(plain(facts)))
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["facts"] == wanted:
            return dict(stored["figures"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    started = time.monotonic()
    figures = {**plain(make()), "seconds": round(time.monotonic() - started, 1), "commit": git("rev-parse", "HEAD")}
    print(f"{name}: {figures['seconds']:.0f} s", file=sys.stderr, flush=True)
    write_text(path, json.dumps({"facts": wanted, "figures": figures}, indent=1, allow_nan=False) + "\n")
    return figures
