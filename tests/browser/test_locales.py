"""locales/ in the real front ends of both supported hosts: what nodes are called in each language, and that English names find them.

Needs Chromium, Node, and playwright-core in the folder that PLAYWRIGHT_PATH names (npm install playwright-core); skipped where one is
missing. The oldest host's front end is the static folder of the comfyui-frontend-package that it asks for, in COMFYUI_FLOOR_FRONTEND
(default: comfyui_frontend_package-1.27.10/static in Equipoise's cache folder).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("locales.mjs")
LANGUAGES = ("en", "zh", "ja", "ko", "es", "de", "fr")


@pytest.fixture(scope="module")
def browser() -> tuple[str, str]:
    """Folder of playwright-core, and Chromium."""
    folder, chromium = os.environ.get("PLAYWRIGHT_PATH", ""), shutil.which("chromium") or shutil.which("google-chrome")
    if not folder or not chromium or not shutil.which("node"):
        pytest.skip("set PLAYWRIGHT_PATH to a folder with playwright-core, and install Node and Chromium, to see languages in a browser.")
    return folder, chromium


@pytest.fixture(scope="module")
def servers(load_module: Callable[[Path, str], Any], repository: Path) -> Any:
    return load_module(repository / "tests" / "host" / "equipoise_server.py", "equipoise_server_for_locales")


def seen(browser: tuple[str, str], server: Any, locales: Path) -> dict[str, Any]:
    """What the script says of every language."""
    command = ["node", str(SCRIPT), server.url, *browser, str(locales), *LANGUAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    found = {s["language"]: s for s in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(found) == list(LANGUAGES) and all(s["nodes"] > 60 for s in found.values())
    return found


def test_the_current_front_end(browser: tuple[str, str], servers: Any, repository: Path, tmp_path: Path) -> None:
    path = servers.checkout("COMFYUI_PATH", "~/ComfyUI")
    if not (path / "main.py").is_file():
        pytest.skip(f"no ComfyUI at {path}: set COMFYUI_PATH to a checkout.")
    with servers.Server(path, tmp_path) as server:
        found = seen(browser, server, repository / "locales")
    assert all(s["shown"] == language for language, s in found.items() if language != "de")  # it has no German: there it shows English


def test_the_oldest_front_end(browser: tuple[str, str], servers: Any, dev: Any, repository: Path, tmp_path: Path) -> None:
    path = servers.checkout("COMFYUI_FLOOR_PATH", "~/ComfyUI-0.3.64")
    pages = servers.checkout("COMFYUI_FLOOR_FRONTEND", str(dev.cache_folder() / "comfyui_frontend_package-1.27.10" / "static"))
    if not (path / "main.py").is_file() or not (pages / "index.html").is_file():
        pytest.skip(f"no ComfyUI at {path}, or no front end at {pages}: set COMFYUI_FLOOR_PATH and COMFYUI_FLOOR_FRONTEND.")
    with servers.Server(path, tmp_path, arguments=("--front-end-root", str(pages))) as server:
        found = seen(browser, server, repository / "locales")
    assert all(s["shown"] == language for language, s in found.items())
