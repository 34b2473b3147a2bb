"""A ComfyUI server of a benchmark's own, with this pack linked in: started, asked over HTTP, stopped."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """What became of a queued prompt: ``outputs`` of its nodes, ``error`` ("" where none), and whether it was ``interrupted``."""

    outputs: dict[str, Any]
    error: str
    interrupted: bool


class HostServer:
    """Use as a context manager. ``base``: its base directory, which is made; COMFYUI_PATH (default ~/ComfyUI) names the checkout.
    ``user``, ``output``: its folders of that name (default: in ``base``), which several servers may share.

    Raises ValueError where there is no checkout, RuntimeError with the end of its log where it does not start.
    """

    def __init__(self, base: Path, user: Path | None = None, output: Path | None = None) -> None:
        self.base, self.log = base, base / "server.log"
        self.user, self.output = user or base / "user", output or base / "output"
        self.path = Path(os.environ.get("COMFYUI_PATH") or "~/ComfyUI").expanduser()
        if not (self.path / "main.py").is_file():
            raise ValueError(f"this benchmark runs through ComfyUI, and there is none at '{self.path}': set COMFYUI_PATH to a checkout.")
        for folder in (*(base / name for name in ("custom_nodes", "models", "input", "temp")), self.user, self.output):
            folder.mkdir(parents=True, exist_ok=True)
        self._link(base / "custom_nodes" / "equipoise")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _link(pack: Path) -> None:
        if pack.exists():
            return
        try:
            pack.symlink_to(PACK, target_is_directory=True)
        except OSError:  # Windows without the right to make links
            shutil.copytree(PACK, pack, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "out", "runs"))

    def __enter__(self) -> HostServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Number of the server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self, limit: float = 600.0) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, str(self.path / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--user-directory", str(self.user), "--output-directory", str(self.output)]
        command += ["--database-url", f"sqlite:///{(self.base / 'comfyui.db').as_posix()}"]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--preview-method", "none"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONSAFEPATH", None)
        if stand_ins := self._stand_ins():
            environment["PYTHONPATH"] = os.pathsep.join([str(stand_ins), *filter(None, [environment.get("PYTHONPATH")])])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + limit
        while True:
            try:
                self.ask("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    end = self.log.read_text(encoding="utf-8", errors="replace")[-4000:]
                    raise RuntimeError(f"ComfyUI at {self.path} did not start; its log ends:\n{end}") from None
                time.sleep(0.2)

    def _stand_ins(self) -> Path | None:
        """A folder with an empty comfyui_workflow_templates, for older hosts, which cannot start with a newer one."""
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
                self.kill()

    def kill(self) -> None:
        """SIGKILL: it ends at whatever it does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, path: str, body: Any = None) -> Any:
        """A request's JSON, None where the answer is empty: GET, or POST where there is a body. For a refusal (HTTP 4xx) its JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read()
        return json.loads(said) if said else None

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue a graph in API form; its prompt id. RuntimeError where the server refuses it."""
        answer = self.ask("/prompt", {"prompt": graph})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise RuntimeError(f"the server refused the graph: {json.dumps(answer)[:2000]}")
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, limit: float = 600.0) -> Ended:
        """Wait for the end of a queued prompt. TimeoutError past ``limit`` seconds."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            entry = self.ask(f"/history/{prompt_id}").get(prompt_id)
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
