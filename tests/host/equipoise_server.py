"""A ComfyUI server of one's own: started with the pack linked in, asked over HTTP, stopped at the end."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
ODD_NAME = "equi poise-v0.1 (copy)"
"""The pack's folder in custom_nodes: a space, a dot, a bracket and a dash, none of which a Python package may have."""


def checkout(variable: str, default: str) -> Path:
    """Where a ComfyUI checkout should be, from the environment or the default."""
    return Path(os.environ.get(variable) or default).expanduser()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Outcome:
    """What became of a queued prompt. ``outputs``: node id -> what the history holds; ``error``: the exception's message, "" where none."""

    prompt_id: str
    outputs: dict[str, Any]
    error: str
    cached: list[str]


class Server:
    """Use as a context manager. ``base`` is the base directory, ``log`` the file with all that the server printed, ``startup`` what
    it had printed when it was up."""

    def __init__(self, path: Path, base: Path, models: Path | None = None, arguments: tuple[str, ...] = ()) -> None:
        self.path, self.base, self.log = path, base, base / "server.log"
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.startup = ""
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        pack = base / "custom_nodes" / ODD_NAME
        try:
            pack.symlink_to(REPOSITORY, target_is_directory=True)
        except OSError:  # Windows without the right to make links
            shutil.copytree(REPOSITORY, pack, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "out", "runs"))
        if models is not None:
            folder = base / "models" / "equipoise" / "diffusion"
            folder.mkdir(parents=True)
            for file in models.iterdir():
                shutil.copy(file, folder / file.name)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, limit: float = 180.0) -> None:
        """Start it and wait until it answers; RuntimeError with the end of its log where it does not."""
        command = [sys.executable, str(self.path / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", self.url.rsplit(":", 1)[1]]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{(self.base / 'user' / 'comfyui.db').as_posix()}"]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--preview-method", "latent2rgb", *self._arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONSAFEPATH", None)
        if stand_ins := self._stand_ins():
            environment["PYTHONPATH"] = os.pathsep.join([str(stand_ins), *filter(None, [environment.get("PYTHONPATH")])])
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + limit
        while True:
            try:
                self.get("/system_stats")
                self.startup = self.text()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(f"ComfyUI at {self.path} did not start; its log ends:\n{self.text()[-4000:]}") from None
                time.sleep(0.2)

    @property
    def pid(self) -> int:
        """Number of the server's process."""
        assert self._process is not None
        return self._process.pid

    def _stand_ins(self) -> Path | None:
        """Folder with an empty comfyui_workflow_templates, for hosts that cannot start with the newer one of the test environment.

        They serve the package's folder ``templates``, which newer versions of the package no longer have.
        """
        source = (self.path / "app" / "frontend_management.py").read_text(encoding="utf-8")
        if "comfyui_workflow_templates" not in source or "iter_templates" in source:
            return None
        package = self.base / "stand_ins" / "comfyui_workflow_templates"
        (package / "templates").mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        return package.parent

    def stop(self) -> None:
        """End the server that this object started."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def text(self) -> str:
        """What the server has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """A GET request's JSON."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        """A POST request's JSON; for a refusal (HTTP 4xx) the JSON of the refusal, under its own keys."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def queue(self, graph: dict[str, Any], limit: float = 180.0) -> Outcome:
        """Queue a graph in API form and wait for its end. AssertionError where the server refuses it, TimeoutError past ``limit``."""
        answer = self.post("/prompt", {"prompt": graph})
        assert "prompt_id" in answer and not answer.get("node_errors"), f"the server refused the graph: {json.dumps(answer)[:2000]}"
        return self.wait(answer["prompt_id"], limit)

    def wait(self, prompt_id: str, limit: float = 180.0) -> Outcome:
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
            with urllib.request.urlopen(f"{self.url}/view?{query}", timeout=30) as answer:
                pictures.append(np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")))
        return np.stack(pictures)
