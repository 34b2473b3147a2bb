"""Show progress on a terminal."""

from __future__ import annotations

import sys
import time

from ..methods.core.trainer import Progress


def progress_bar(name: str) -> Progress:
    """Show progress on standard error.

    One line that a terminal rewrites; a line every ten seconds elsewhere.
    """
    started = time.monotonic()
    last = started - 10.0
    first: int | None = None

    def report(done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal last, first
        first = done if first is None else first  # a resumed run took the steps before at another time
        terminal, now = sys.stderr.isatty(), time.monotonic()
        if not terminal and done < total and now - last < 10:
            return
        last = now
        left = f", {(now - started) / (done - first) * (total - done):.0f} s left" if done > first else ""
        extra = " ".join(f"{k} {v:.4g}" for k, v in figures.items())
        print(
            f"\r{name}: {done}/{total}{left} {extra}".ljust(79),
            end="" if terminal and done < total else "\n",
            file=sys.stderr,
            flush=True,
        )

    return report
