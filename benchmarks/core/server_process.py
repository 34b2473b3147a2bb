"""Start, query over HTTP and stop a ComfyUI server that has this pack linked in.

Benchmarks and tests use it.
"""

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
from types import TracebackType
from typing import Any, TypeVar

PACK = Path(__file__).resolve().parents[2]
ANSWER = 600.0
"""Limit of an answer in seconds: a server on a busy machine answers late."""
Process = TypeVar("Process", bound="ServerProcess")


class ServerProcess:
    """Run a ComfyUI server as a context manager.

    ``path``: the checkout. ``base``: the base directory, which is created and also holds the server's ``log``. ``pack``: name of the pack's
    folder in custom_nodes. ``user``, ``output``: folders that several servers may share (default: in ``base``). ``arguments``: more of them
    for main.py. The server uses one thread and asks no model hub.

    Raises RuntimeError with the end of the log if the server does not start.
    """

    def __init__(
        self,
        path: Path,
        base: Path,
        pack: str = "equipoise",
        user: Path | None = None,
        output: Path | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.path, self.base, self.log = path, base, base / "server.log"
        self.user, self.output = user or base / "user", output or base / "output"
        for folder in (*(base / name for name in ("custom_nodes", "models", "input", "temp")), self.user, self.output):
            folder.mkdir(parents=True, exist_ok=True)
        _link(base / "custom_nodes" / pack)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self: Process) -> Process:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the server's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, limit: float = 600.0) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, str(self.path / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--user-directory", str(self.user), "--output-directory", str(self.output)]
        command += ["--database-url", f"sqlite:///{(self.base / 'comfyui.db').as_posix()}"]
        command += ["--disable-auto-launch", "--disable-api-nodes", *self._arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONSAFEPATH", None)
        if stand_ins := self._stand_ins():
            environment["PYTHONPATH"] = os.pathsep.join([str(stand_ins), *filter(None, [environment.get("PYTHONPATH")])])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + limit
        while True:
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(f"ComfyUI at {self.path} did not start; its log ends:\n{self.text()[-4000:]}") from None
                time.sleep(0.2)

    def _stand_ins(self) -> Path | None:
        """Make an empty comfyui_workflow_templates for ComfyUI versions that need the old package.

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
                self.kill()

    def kill(self) -> None:
        """Kill the server with SIGKILL, whatever it is doing."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def text(self) -> str:
        """Return what the server has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """Send a GET request and return its JSON. Raises urllib.error.HTTPError if the server refuses it."""
        with urllib.request.urlopen(self.url + path, timeout=ANSWER) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        """Send a POST request and return its JSON, None if the answer is empty.

        If the server refuses the request (HTTP 4xx), return the JSON of the refusal.
        """
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                body_text = answer.read()
        except urllib.error.HTTPError as error:
            body_text = error.read()
        return json.loads(body_text) if body_text else None


def _link(pack: Path) -> None:
    if pack.exists():
        return
    try:
        pack.symlink_to(PACK, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(PACK, pack, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "out", "runs"))
