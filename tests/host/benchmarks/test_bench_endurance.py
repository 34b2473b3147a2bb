"""``bench endurance`` in small: real servers, a few runs and a few cancelled ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from equipoise.benchmarks.core.graph_server import checkout


@pytest.mark.parametrize("variable", ["COMFYUI_PATH", "COMFYUI_FLOOR_PATH"])
def test_a_server_holds_its_memory_and_forgets_cancelled_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    from equipoise.benchmarks.host import endurance

    path = checkout(variable, {"COMFYUI_PATH": "~/ComfyUI", "COMFYUI_FLOOR_PATH": "~/ComfyUI-0.3.64"}[variable])
    if not (path / "main.py").is_file():
        pytest.skip(f"no ComfyUI at {path}")
    monkeypatch.setenv("COMFYUI_PATH", str(path))
    out = endurance.run(folder=tmp_path, runs=8, cancels=4)
    assert out["identical_after"] == out["cancelled"] == 4, "the next run gives the bits of a fresh server"
    at_once, in_passes = out["parts"]["fresh"]["digests"]
    held = out["parts"]["memory"]["resident_mb"]
    assert at_once and in_passes and len(held) == 8
    assert held[-1] < 1.05 * held[3], "four runs later; the full benchmark is stricter"
    assert not list((tmp_path / "server_memory" / "output" / "equipoise").glob("unfinished/*")), "nothing is left of runs that ended"
    assert json.dumps(out, allow_nan=False) and endurance.run(folder=tmp_path, runs=8, cancels=4) == out
