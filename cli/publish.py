"""Publish figures as JSON, with the commit, the machine and the duration."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..models.files import write_text

ROOT = Path(__file__).resolve().parent.parent


def git(*words: str) -> str | None:
    """Run a git command in this repository; return its output, None outside of a repository."""
    if not (ROOT / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def host_version() -> str | None:
    """Return the version of the ComfyUI at COMFYUI_PATH (default ~/ComfyUI); None without one."""
    path = os.environ.get("COMFYUI_PATH", "~/ComfyUI")
    file = Path(path).expanduser() / "comfyui_version.py"
    if not path or not file.is_file():
        return None
    match = re.search(r"__version__\s*=\s*[\"']([^\"']+)", file.read_text(encoding="utf-8"))
    return match.group(1) if match else None


def machine() -> dict[str, Any]:
    """Return the cores that this process may use, torch and host versions, Python and platform."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "torch": torch.__version__,
        "host": host_version(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def with_record(figures: Mapping[str, Any], started: float) -> dict[str, Any]:
    """Add ``commit``, ``uncommitted_changes``, ``machine``, ``date`` (UTC) and ``seconds`` since ``started`` (time.monotonic())."""
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {
        **figures,
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changes is None else bool(changes),
        "machine": machine(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": round(time.monotonic() - started, 2),
    }


def as_json(value: Any) -> Any:
    """Convert a value for JSON.

    Tensors and arrays become lists or numbers; numbers that are not finite become null.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def publish(figures: Mapping[str, Any], file: str | os.PathLike[str] | None) -> None:
    """Write one JSON object to ``file`` and print it as the last line.

    ``file`` may be None.
    """
    line = json.dumps(as_json(figures), allow_nan=False)
    if file:
        write_text(file, line + "\n")
    print(line, flush=True)
