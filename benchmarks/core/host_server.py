"""Start a ComfyUI server for a benchmark and queue graphs on it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .server_process import ServerProcess


@dataclass(frozen=True)
class Ended:
    """Result of a queued prompt."""

    outputs: dict[str, Any]
    """Outputs of the nodes, by node id."""
    error: str
    """Error message, "" if there was none."""
    interrupted: bool
    """Whether the run was cancelled."""


class HostServer(ServerProcess):
    """Run the ComfyUI checkout that COMFYUI_PATH names (default ~/ComfyUI), without previews.

    See :class:`.server_process.ServerProcess`. Raises ValueError if there is no checkout.
    """

    def __init__(self, base: Path, user: Path | None = None, output: Path | None = None) -> None:
        path = Path(os.environ.get("COMFYUI_PATH") or "~/ComfyUI").expanduser()
        if not (path / "main.py").is_file():
            raise ValueError(f"This benchmark needs ComfyUI, but there is none at '{path}'. Set COMFYUI_PATH to a checkout.")
        super().__init__(path, base, user=user, output=output, arguments=("--preview-method", "none"))

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue a graph in API form and return its prompt id.

        Raises RuntimeError if the server refuses the graph.
        """
        answer = self.post("/prompt", {"prompt": graph})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise RuntimeError(f"The server refused the graph: {json.dumps(answer)[:2000]}")
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, limit: float = 600.0) -> Ended:
        """Wait until a queued prompt ends. Raises TimeoutError after ``limit`` seconds."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                messages = dict(entry["status"]["messages"])
                error = messages.get("execution_error", {}).get("exception_message", "").strip()
                return Ended(entry["outputs"], error, "execution_interrupted" in messages)
            time.sleep(0.02)
        raise TimeoutError(f"A prompt did not end within {limit:.0f} s. Read {self.log}.")

    def finish(self, prompt_id: str, limit: float = 600.0) -> None:
        """Wait for a queued prompt that must succeed.

        Raises RuntimeError if it failed, TimeoutError after ``limit`` seconds.
        """
        ended = self.wait(prompt_id, limit)
        if ended.error or ended.interrupted:
            raise RuntimeError(f"A queued graph failed: {ended.error or 'it was interrupted'}. Read {self.log}.")

    def resident_megabytes(self) -> float:
        """Return the server's resident memory now, in 10^6 bytes.

        It uses psutil, which ComfyUI requires.
        """
        import psutil

        return psutil.Process(self.pid).memory_info().rss / 1e6
