"""Start ComfyUI inside this process, on the CPU, from the checkout at COMFYUI_PATH."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def boot_host(base: Path | None = None) -> Any:
    """Start ComfyUI once and return its ``nodes`` module.

    ``base``: its base directory, for output and models (default: a temporary one). Raises ValueError if COMFYUI_PATH (default ~/ComfyUI)
    holds no ComfyUI.
    """
    path = Path(os.environ.get("COMFYUI_PATH", "~/ComfyUI")).expanduser()
    if not (path / "main.py").is_file():
        raise ValueError(f"This command needs ComfyUI, but there is none at '{path}'. Set COMFYUI_PATH to a checkout.")
    if "comfy" not in sys.modules:
        sys.path.insert(0, str(path))
        folder = base.resolve() if base else tempfile.mkdtemp(prefix="equipoise-bench-")
        arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(folder), "--preview-method", "none"]
        try:
            import comfy.options

            comfy.options.enable_args_parsing()
            import comfy.cli_args  # noqa: F401  reads sys.argv
        finally:
            sys.argv = arguments
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    import nodes as host_nodes

    return host_nodes
