"""Run parts of a benchmark in their own processes, to measure the memory of each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any


def start_method() -> str:
    """Choose how child processes start: "fork" on Linux, else "spawn".

    A forked child can use the models that its parent has loaded.
    """
    return "fork" if sys.platform.startswith("linux") else "spawn"


def in_children(work: Callable[[Any], None], tasks: Sequence[Any], workers: int, method: str | None = None) -> None:
    """Call ``work(task)`` for every task in a new process, ``workers`` at a time.

    ``work`` writes its results to disk. Do not fork from a process that has used torch's threads. Raises ChildProcessError if a child
    fails, after the other children have ended; the child has printed its own error.
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
        raise ChildProcessError(f"A part of the benchmark failed: {failed[0]}. Its message stands above. Run it again to resume.")


def peak_megabytes() -> float | None:
    """Return this process's peak resident memory, in 10^6 bytes; None if unknown.

    A forked child starts counting from the memory of its parent.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def reset_peak() -> bool:
    """Restart the count of :func:`current_peak_megabytes`; return False if the system cannot (only Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def current_peak_megabytes() -> float | None:
    """Return the peak resident memory since :func:`reset_peak`, in 10^6 bytes.

    Where that is unknown, return the peak of the process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return peak_megabytes()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def cores() -> int:
    """Count the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
