"""Help pages in the real front end: opened from the node as a user does, with the picture loaded; and every picture is served.

Needs a ComfyUI, Chromium, Node, and playwright-core in the folder that PLAYWRIGHT_PATH names (npm install playwright-core); skipped where
one is missing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("help.mjs")
PAGES = {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "web" / "docs").glob("*.md"))}
OPENED = ("EquipoiseDistributionGuidance", "EquipoiseFindNeuronPath", "EquipoiseLoadQuickstartTextModel", "EquipoiseResetLedger")


def server_module() -> ModuleType:
    """tests/host/equipoise_server.py of this test's own, with a folder name that has no dot: the front end cuts the name off there."""
    spec = importlib.util.spec_from_file_location("equipoise_help_server", ROOT / "tests" / "host" / "equipoise_server.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.ODD_NAME = "equipoise"
    return module


@pytest.fixture(scope="module", params=["current", "floor"])
def server(request: pytest.FixtureRequest, dev: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The current host, and the oldest that is supported, with the front end that belongs to it."""
    module, arguments = server_module(), ()
    host = module.checkout("COMFYUI_PATH", "~/ComfyUI")
    if request.param == "floor":
        host = module.checkout("COMFYUI_FLOOR_PATH", "~/ComfyUI-0.3.64")
        pages = module.checkout("COMFYUI_FLOOR_FRONTEND", str(dev.cache_folder() / "comfyui_frontend_package-1.27.10" / "static"))
        arguments = ("--front-end-root", str(pages))
        if not (pages / "index.html").is_file():
            pytest.skip(f"no front end at '{pages}': set COMFYUI_FLOOR_FRONTEND to its folder.")
    if not (host / "main.py").is_file():
        pytest.skip(f"no ComfyUI at '{host}': set COMFYUI_PATH and COMFYUI_FLOOR_PATH to look at help pages in front ends.")
    with module.Server(host, tmp_path_factory.mktemp("help"), arguments=arguments) as running:
        yield running


def fetched(server: Any, path: str) -> bytes:
    with urllib.request.urlopen(f"{server.url}/extensions/equipoise/docs/{path}", timeout=30) as answer:
        return answer.read()


def test_every_page_and_its_picture_are_served(server: Any) -> None:
    for node, page in PAGES.items():
        assert fetched(server, f"{node}.md").decode() == page
        (picture,) = re.findall(r"^!\[.+\]\((.+)\)$", page, flags=re.M)
        data = fetched(server, picture)
        assert data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    with pytest.raises(urllib.error.HTTPError):
        fetched(server, "img/EquipoiseNoSuchNode.webp")


def test_help_opens_from_the_node_with_its_picture(server: Any, tmp_path: Path) -> None:
    folder, chromium = os.environ.get("PLAYWRIGHT_PATH", ""), shutil.which("chromium") or shutil.which("google-chrome")
    if not folder or not chromium or not shutil.which("node"):
        pytest.skip("set PLAYWRIGHT_PATH to a folder with playwright-core, and install Node and Chromium, to look at help in a browser.")
    command = ["node", str(SCRIPT), server.url, folder, chromium, f"{tmp_path}/", *OPENED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {s["id"]: s for s in map(json.loads, done.stdout.splitlines())}
    assert list(seen) == list(OPENED)
    for node, found in seen.items():
        assert found["title"] == PAGES[node].splitlines()[0][2:]
        assert found["headings"] == re.findall(r"^## (.+)$", PAGES[node], flags=re.M)
        (picture,) = found["pictures"]
        assert picture["src"] == f"/extensions/equipoise/docs/img/{node}.webp"
        assert picture["width"] >= 400 and picture["shown"] >= 150 and picture["alt"]
        # the front end asks for a page in the user's language first, and takes this one where there is none
        assert [e for e in found["errors"] if not re.search(rf"/docs/{node}/\w+(-\w+)?\.md$", e)] == []
