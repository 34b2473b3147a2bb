"""A ComfyUI server of a benchmark's own, which is queued on."""

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
    """What became of a queued prompt: ``outputs`` of its nodes, ``error`` ("" where none), and whether it was ``interrupted``."""

    outputs: dict[str, Any]
    error: str
    interrupted: bool


class HostServer(ServerProcess):
    """The checkout that COMFYUI_PATH names (default ~/ComfyUI), with no previews; see :class:`.server_process.ServerProcess`.

    Raises ValueError where there is no checkout.
    """

    def __init__(self, base: Path, user: Path | None = None, output: Path | None = None) -> None:
        path = Path(os.environ.get("COMFYUI_PATH") or "~/ComfyUI").expanduser()
        if not (path / "main.py").is_file():
            raise ValueError(f"this benchmark runs through ComfyUI, and there is none at '{path}': set COMFYUI_PATH to a checkout.")
        super().__init__(path, base, user=user, output=output, arguments=("--preview-method", "none"))

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue a graph in API form; its prompt id. RuntimeError where the server refuses it."""
        answer = self.post("/prompt", {"prompt": graph})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise RuntimeError(f"the server refused the graph: {json.dumps(answer)[:2000]}")
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, limit: float = 600.0) -> Ended:
        """Wait for the end of a queued prompt. TimeoutError past ``limit`` seconds."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                messages = dict(entry["status"]["messages"])
                error = messages.get("execution_error", {}).get("exception_message", "").strip()
                return Ended(entry["outputs"], error, "execution_interrupted" in messages)
            time.sleep(0.02)
        raise TimeoutError(f"a prompt did not end within {limit:.0f} s; see {self.log}.")

    def finish(self, prompt_id: str, limit: float = 600.0) -> None:
        """Wait for a queued prompt that is to end well. RuntimeError where it failed, TimeoutError past ``limit`` seconds."""
        ended = self.wait(prompt_id, limit)
        if ended.error or ended.interrupted:
            raise RuntimeError(f"a queued graph failed: {ended.error or 'it was interrupted'}; see {self.log}.")

    def resident_megabytes(self) -> float:
        """Memory that the server's process holds now, in 10^6 bytes. The host requires psutil."""
        import psutil

        return psutil.Process(self.pid).memory_info().rss / 1e6
