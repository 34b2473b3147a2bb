"""Parts of a benchmark in processes of their own, so that each one's peak of memory is its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any


def start_method() -> str:
    """How children are started: "fork" where they may go on with what their parent has loaded, else "spawn"."""
    return "fork" if sys.platform.startswith("linux") else "spawn"


def in_children(work: Callable[[Any], None], tasks: Sequence[Any], workers: int, method: str | None = None) -> None:
    """Call ``work(task)`` for every task, each in a new process, up to ``workers`` at a time; results are what it writes.

    Forked from a process that has not used torch's threads. Raises ChildProcessError where a child ends with an error (which it has
    printed), after the others have ended.
    """
    context, running, failed = get_context(method or start_method()), {}, []

    def reap() -> None:
        for sentinel in wait(list(running)):
            process, task = running.pop(sentinel)
            process.join()
            if process.exitcode:
                failed.append(f"{task} (exit code {process.exitcode})")

    try:
        for task in tasks:
            if len(running) >= max(1, workers):
                reap()
            if failed:
                break
            process = context.Process(target=work, args=(task,))
            process.start()
            running[process.sentinel] = process, task
        while running:
            reap()
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()
    if failed:
        raise ChildProcessError(f"a part of the benchmark failed: {failed[0]}; its message stands above. Run it again to go on.")


def peak_megabytes() -> float | None:
    """Peak resident memory of this process so far, in 10^6 bytes; None where the system does not tell.

    A forked child counts from what its parent held.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def reset_peak() -> bool:
    """Let the peak of :func:`current_peak_megabytes` begin anew; False where the system cannot (only Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def current_peak_megabytes() -> float | None:
    """Peak resident memory since :func:`reset_peak`, in 10^6 bytes; where that is not known, that of the process."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return peak_megabytes()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
