"""Run the real front ends of both supported hosts in Chromium.

The tests need Chromium, Node, and playwright-core in the folder that PLAYWRIGHT_PATH names (npm install playwright-core); they are skipped
if one is missing. The oldest host's front end is the static folder of the comfyui-frontend-package that it asks for. COMFYUI_FLOOR_FRONTEND
names it (default: comfyui_frontend_package-1.27.10/static in Equipoise's cache folder).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from equipoise.tests.equipoise_patience import PATIENCE

FOLDER = "equipoise"
"""Of the pack in custom_nodes, as it is installed. The hosts serve no web files of a folder whose name has a space or a bracket, and their
front ends look for help pages in vain where it has a dot."""
HERE = Path(__file__).resolve().parent
Script = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def chromium() -> tuple[str, str]:
    """Return the folder of playwright-core and the path of Chromium."""
    folder, found = os.environ.get("PLAYWRIGHT_PATH", ""), shutil.which("chromium") or shutil.which("google-chrome")
    if not folder or not found or not shutil.which("node"):
        pytest.skip("set PLAYWRIGHT_PATH to a folder with playwright-core, and install Node and Chromium, to use nodes in a browser.")
    return folder, found


@pytest.fixture(scope="session")
def script(chromium: tuple[str, str]) -> Script:
    """Return script(name, *words), which returns a script's JSON lines.

    The script must exit with ``code``.
    """

    def run(name: str, *words: object, code: int = 0) -> list[dict[str, Any]]:
        command = ["node", str(HERE / name), *chromium, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def server_files(load_module: Callable[[Path, str], Any], repository: Path) -> Any:
    """Load benchmarks/core/graph_server.py, with a folder name whose web files are served."""
    path = repository / "benchmarks" / "core" / "graph_server.py"
    module = load_module(path, "equipoise.benchmarks.core.graph_server_of_browser_tests")
    module.ODD_NAME = FOLDER
    return module


@pytest.fixture(scope="session")
def page_current(chromium: Any, server_files: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a server of the host at COMFYUI_PATH."""
    path = server_files.checkout("COMFYUI_PATH", "~/ComfyUI")
    if not (path / "main.py").is_file():
        pytest.skip(f"no ComfyUI at {path}: set COMFYUI_PATH to a checkout.")
    with server_files.Server(path, tmp_path_factory.mktemp("page_current")) as server:
        yield server


@pytest.fixture(scope="session")
def page_floor(chromium: Any, server_files: Any, dev: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a server of the oldest supported host with its own front end."""
    path = server_files.checkout("COMFYUI_FLOOR_PATH", "~/ComfyUI-0.3.64")
    pages = server_files.checkout("COMFYUI_FLOOR_FRONTEND", str(dev.cache_folder() / "comfyui_frontend_package-1.27.10" / "static"))
    if not (path / "main.py").is_file() or not (pages / "index.html").is_file():
        pytest.skip(f"no ComfyUI at {path}, or no front end at {pages}: set COMFYUI_FLOOR_PATH and COMFYUI_FLOOR_FRONTEND.")
    with server_files.Server(path, tmp_path_factory.mktemp("page_floor"), arguments=("--front-end-root", str(pages))) as server:
        yield server
