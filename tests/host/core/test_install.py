"""The pack as it arrives: unpacked without git, on a host without matplotlib. Every node registers, and charts say what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equipoise.benchmarks.core.graph_server import ODD_NAME, REPOSITORY, Server

BLOCKED = "raise ModuleNotFoundError(\"No module named 'matplotlib'\", name='matplotlib')\n"
AMBER = (0xFF, 0xF6, 0xDF)
"""charts/core/missing.py: BACKGROUND."""


def git(*words: str) -> set[str]:
    command = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY), *words]
    listed = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    return set(filter(None, listed.split("\0")))


def unpack(pack: Path, registry: bool) -> None:
    """The tracked files as they are now, as a downloaded zip holds them; ``registry``: without those that .comfyignore names."""
    files = git("ls-files", "-z")
    if registry:
        files -= git("ls-files", "-z", "--cached", "--ignored", "--exclude-from=.comfyignore")
    for name in files:
        source, copy = REPOSITORY / name, pack / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


@pytest.fixture(scope="module", params=["current", "floor"])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A host with an unpacked archive in custom_nodes and no matplotlib: the registry's on the newer host, the whole one on the floor."""
    if not (REPOSITORY / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no git clone, so it is not known which files belong to the pack.")
    base = tmp_path_factory.mktemp("install")
    path = request.getfixturevalue("host").path if request.param == "current" else request.getfixturevalue("floor_path")
    server = Server(path, base)
    pack, blocker = base / "custom_nodes" / ODD_NAME, base / "blocked"
    pack.unlink() if pack.is_symlink() else shutil.rmtree(pack)
    unpack(pack, registry=request.param == "current")
    blocker.mkdir()
    (blocker / "matplotlib.py").write_text(BLOCKED, encoding="utf-8")
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(blocker), earlier]))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        os.environ.pop("PYTHONPATH") if earlier is None else os.environ.update(PYTHONPATH=earlier)


def test_every_node_registers(unpacked: Server, host: Any) -> None:
    from equipoise.nodes import all_nodes

    assert not list((unpacked.base / "custom_nodes").glob("*/.git"))
    found = {name for name in unpacked.get("/object_info") if name.startswith("Equipoise")}
    assert found == {node.GET_SCHEMA().node_id for node in all_nodes()} and len(found) >= 61
    assert "IMPORT FAILED" not in unpacked.startup and "could not be loaded" not in unpacked.startup
    assert unpacked.get("/workflow_templates")[ODD_NAME], "the host finds the templates"


def test_a_chart_says_what_is_missing_and_the_figures_are_there(unpacked: Server, host: Any) -> None:
    graph = {
        "images": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 3, "color": 0}},
        "judge": {"class_type": "EquipoiseLoadAttributeClassifier", "inputs": {"classifier_name": "portraits_judge.safetensors"}},
        "count": {
            "class_type": "EquipoiseAttributeHistogram",
            "inputs": {"images": ["images", 0], "classifier": ["judge", 0], "attribute": "eyeglasses", "batch_size": 1},
        },
    }
    outcome = unpacked.queue(graph)
    assert not outcome.error
    (chart,) = unpacked.images(outcome, "count")
    assert chart.shape[1] == 960 and (chart[0, 0] == AMBER).all() and np.any(chart.max(-1) < 128)
    assert "eyeglasses:" in "".join(outcome.outputs["count"]["text"])
    log = unpacked.text()
    assert "matplotlib cannot be imported (No module named 'matplotlib')" in log and "-m pip install matplotlib" in log
