"""A ComfyUI server of one's own: started with the pack linked in, asked over HTTP, stopped at the end."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from equipoise.benchmarks.server_process import ServerProcess
from equipoise.tests.equipoise_patience import PATIENCE
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
ODD_NAME = "equi poise-v0.1 (copy)"
"""The pack's folder in custom_nodes: a space, a dot, a bracket and a dash, none of which a Python package may have."""


def checkout(variable: str, default: str) -> Path:
    """Where a ComfyUI checkout should be, from the environment or the default."""
    return Path(os.environ.get(variable) or default).expanduser()


@dataclass(frozen=True)
class Outcome:
    """What became of a queued prompt. ``outputs``: node id -> what the history holds; ``error``: the exception's message, "" where none."""

    prompt_id: str
    outputs: dict[str, Any]
    error: str
    cached: list[str]


class Server(ServerProcess):
    """Use as a context manager. ``log``: the file with all that the server printed since it was started last; ``startup``: what it had
    printed when it was up. ``models``: a folder of diffusion models to copy into ``base``."""

    def __init__(self, path: Path, base: Path, models: Path | None = None, arguments: tuple[str, ...] = ()) -> None:
        super().__init__(path, base, ODD_NAME, arguments=("--preview-method", "latent2rgb", *arguments))
        self.startup = ""
        if models is not None:
            folder = base / "models" / "equipoise" / "diffusion"
            folder.mkdir(parents=True)
            for file in models.iterdir():
                shutil.copy(file, folder / file.name)

    def start(self, limit: float = PATIENCE) -> None:
        """Start it and wait until it answers; RuntimeError with the end of its log where it does not."""
        self.log.unlink(missing_ok=True)
        super().start(limit)
        self.startup = self.text()

    def queue(self, graph: dict[str, Any], limit: float = PATIENCE) -> Outcome:
        """Queue a graph in API form and wait for its end. AssertionError where the server refuses it, TimeoutError past ``limit``."""
        answer = self.post("/prompt", {"prompt": graph})
        assert "prompt_id" in answer and not answer.get("node_errors"), f"the server refused the graph: {json.dumps(answer)[:2000]}"
        return self.wait(answer["prompt_id"], limit)

    def wait(self, prompt_id: str, limit: float = PATIENCE) -> Outcome:
        """Wait for the end of a queued prompt. TimeoutError past ``limit`` seconds, and the prompt is interrupted."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history and history[prompt_id].get("status"):
                return self._outcome(prompt_id, history[prompt_id])
            time.sleep(0.1)
        self.post("/interrupt", {})
        raise TimeoutError(f"the prompt did not end within {limit} s; the log ends:\n{self.text()[-2000:]}")

    @staticmethod
    def _outcome(prompt_id: str, entry: dict[str, Any]) -> Outcome:
        error, cached = "", []
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                error = message["exception_message"].strip()
            elif kind == "execution_cached":
                cached = message["nodes"]
        return Outcome(prompt_id, entry["outputs"], error, cached)

    def images(self, outcome: Outcome, node_id: str) -> np.ndarray:
        """The pictures that a node saved or showed, uint8 [N, H, W, 3]."""
        pictures = []
        for image in outcome.outputs[node_id]["images"]:
            query = urllib.parse.urlencode({k: image[k] for k in ("filename", "subfolder", "type")})
            with urllib.request.urlopen(f"{self.url}/view?{query}", timeout=PATIENCE) as answer:
                pictures.append(np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")))
        return np.stack(pictures)
