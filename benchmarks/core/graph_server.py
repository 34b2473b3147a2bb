"""Start, query and stop a ComfyUI server with the pack linked in."""

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
from PIL import Image

from .server_process import ServerProcess

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 3600.0
"""Limit of a wait in seconds: whatever takes longer hangs."""
ODD_NAME = "equi poise-v0.1 (copy)"
"""The pack's folder in custom_nodes: a space, a dot, a bracket and a dash, none of which a Python package may have."""


def checkout(variable: str, default: str) -> Path:
    """Return the path of a ComfyUI checkout from the environment, or the default."""
    return Path(os.environ.get(variable) or default).expanduser()


@dataclass(frozen=True)
class PromptOutcome:
    """Result of a queued prompt."""

    prompt_id: str
    """Its id."""
    outputs: dict[str, Any]
    """Node id -> outputs in the history."""
    error: str
    """Message of the exception, "" if there was none."""
    cached: list[str]
    """Ids of the nodes whose outputs came from the cache."""


class Server(ServerProcess):
    """Run a server as a context manager.

    ``log``: file with everything that the server printed since its last start; ``startup``: what it had printed when it was up.
    ``models``: a folder of diffusion models to copy into ``base``.
    """

    def __init__(self, path: Path, base: Path, models: Path | None = None, arguments: tuple[str, ...] = ()) -> None:
        super().__init__(path, base, ODD_NAME, arguments=("--preview-method", "latent2rgb", *arguments))
        self.startup = ""
        if models is not None:
            folder = base / "models" / "equipoise" / "diffusion"
            folder.mkdir(parents=True)
            for file in models.iterdir():
                shutil.copy(file, folder / file.name)

    def start(self, limit: float = PATIENCE) -> None:
        """Start the server and wait until it answers.

        Raises RuntimeError with the end of its log if it does not start.
        """
        self.log.unlink(missing_ok=True)
        super().start(limit)
        self.startup = self.text()

    def queue(self, graph: dict[str, Any], limit: float = PATIENCE) -> PromptOutcome:
        """Queue a graph in API form and wait until it ends.

        Raises AssertionError if the server refuses it, TimeoutError after ``limit`` seconds.
        """
        answer = self.post("/prompt", {"prompt": graph})
        assert "prompt_id" in answer and not answer.get("node_errors"), f"the server refused the graph: {json.dumps(answer)[:2000]}"
        return self.wait(answer["prompt_id"], limit)

    def wait(self, prompt_id: str, limit: float = PATIENCE) -> PromptOutcome:
        """Wait until a queued prompt ends.

        Interrupts the prompt and raises TimeoutError after ``limit`` seconds.
        """
        until = time.monotonic() + limit
        while time.monotonic() < until:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history and history[prompt_id].get("status"):
                return self._outcome(prompt_id, history[prompt_id])
            time.sleep(0.1)
        self.post("/interrupt", {})
        raise TimeoutError(f"the prompt did not end within {limit} s; the log ends:\n{self.text()[-2000:]}")

    @staticmethod
    def _outcome(prompt_id: str, entry: dict[str, Any]) -> PromptOutcome:
        error, cached = "", []
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                error = message["exception_message"].strip()
            elif kind == "execution_cached":
                cached = message["nodes"]
        return PromptOutcome(prompt_id, entry["outputs"], error, cached)

    def images(self, outcome: PromptOutcome, node_id: str) -> np.ndarray:
        """Read the pictures that a node saved or showed, uint8 [N, H, W, 3]."""
        pictures = []
        for image in outcome.outputs[node_id]["images"]:
            query = urllib.parse.urlencode({k: image[k] for k in ("filename", "subfolder", "type")})
            with urllib.request.urlopen(f"{self.url}/view?{query}", timeout=PATIENCE) as answer:
                pictures.append(np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")))
        return np.stack(pictures)
