"""What every figure that a command prints carries: the commit and the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """``commit`` (None outside a git checkout) and ``machine``: cores, torch version, host version (None without a host)."""
    host = Path(os.environ.get("COMFYUI_PATH", "~/ComfyUI")).expanduser() / "comfyui_version.py"
    version = host.read_text(encoding="utf-8").split('"')[1] if host.is_file() else None
    return {"commit": commit(), "machine": {"cores": os.cpu_count(), "torch": torch.__version__, "host": version}}


def commit() -> str | None:
    """Hash of the checked-out commit."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
