"""A ComfyUI server in a process of its own, for benchmarks: started with this pack, asked over HTTP, ended or killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class BenchServer:
    """A context manager. ``base``: its base directory; ``user``: its user folder, which several may share (default: in ``base``);
    ``output``: its output folder, likewise.

    Raises ValueError where COMFYUI_PATH holds no ComfyUI, RuntimeError where it does not start.
    """

    def __init__(self, base: Path, user: Path | None = None, output: Path | None = None) -> None:
        self.path = Path(os.environ.get("COMFYUI_PATH", "~/ComfyUI")).expanduser()
        if not (self.path / "main.py").is_file():
            raise ValueError(f"this benchmark runs through ComfyUI, and there is none at '{self.path}': set COMFYUI_PATH to a checkout.")
        self.base, self.user, self.output = base, user or base / "user", output or base / "output"
        for folder in (base / "custom_nodes", base / "models", base / "input", base / "temp", self.user, self.output):
            folder.mkdir(parents=True, exist_ok=True)
        pack = base / "custom_nodes" / "equipoise"
        if not pack.exists():
            try:
                pack.symlink_to(ROOT, target_is_directory=True)
            except OSError:  # Windows without the right to make links
                shutil.copytree(ROOT, pack, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "out", "runs"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> BenchServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, limit: float = 300.0) -> None:
        """Start it and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(self.path / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--base-directory", str(self.base), "--user-directory", str(self.user), "--output-directory", str(self.output)]
        command += ["--database-url", f"sqlite:///{(self.base / 'comfyui.db').as_posix()}", "--disable-auto-launch"]
        command += ["--disable-api-nodes", "--preview-method", "none"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONSAFEPATH", None)
        with (self.base / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + limit
        while True:
            try:
                self.ask("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    end = (self.base / "server.log").read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise RuntimeError(f"ComfyUI at {self.path} did not start; its log ends:\n{end}") from None
                time.sleep(0.3)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL: it ends at whatever it does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, path: str, body: Any = None) -> Any:
        """JSON of a GET request, or of a POST request with a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue a graph in API form; the server's id of it. RuntimeError where it is refused."""
        answer = self.ask("/prompt", {"prompt": graph})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise RuntimeError(f"the server refused the graph: {json.dumps(answer)[:1000]}")
        return answer["prompt_id"]

    def wait(self, prompt_id: str, limit: float = 600.0) -> None:
        """Wait for the end of a queued graph. RuntimeError where it failed, TimeoutError past ``limit`` seconds."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            entry = self.ask(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                for kind, message in entry["status"]["messages"]:
                    if kind in ("execution_error", "execution_interrupted"):
                        raise RuntimeError(f"a queued graph failed: {message.get('exception_message', kind)}")
                return
            time.sleep(0.05)
        raise TimeoutError(f"a queued graph did not end within {limit:.0f} s.")
