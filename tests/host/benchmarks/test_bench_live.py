"""``bench live`` in small: one pair of runs in each host's server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import checkout


@pytest.mark.parametrize(("variable", "default"), [("COMFYUI_PATH", "~/ComfyUI"), ("COMFYUI_FLOOR_PATH", "~/ComfyUI-0.3.64")])
def test_the_bar_costs_little_and_shows_much(monkeypatch: pytest.MonkeyPatch, variable: str, default: str) -> None:
    from equipoise.benchmarks.host import live

    path = checkout(variable, default)
    if not (path / "main.py").is_file():
        pytest.skip(f"no ComfyUI at {path}")
    monkeypatch.setenv("COMFYUI_PATH", str(path))
    monkeypatch.setattr(live, "PAIRS", {False: 1})
    out = live.run()
    assert json.dumps(out, allow_nan=False)
    assert out["met"] and out["states"]["fewest"] >= 5 and out["messages"]["most"] <= 20
    assert 0 < out["share_of_sampling"]["largest"] <= 0.01 >= out["short_runs"]["share_of_sampling"]["largest"]
    assert out["microseconds_per_message"]["write_to_the_socket"] > 0 and out["bytes_per_message"] < 1000
    assert out["share_without_a_client"]["largest"] < 0.005


def test_figures() -> None:
    from equipoise.benchmarks.host.live import live_figures

    def drawn(sampling: float, **more: Any) -> dict[str, Any]:
        return {"sampling": [[2 * sampling, sampling]], "tell": [], "send": [], "bytes": [], "messages": 0, "states": 0, **more}

    told = {"tell": [[0.1, 0.01], [0.1, 0.01]], "send": [[0.2, 0.02]], "bytes": [300, 500], "messages": 2, "states": 2}
    out = live_figures([(drawn(2.0, **told), drawn(1.0)), (drawn(4.0, **told), drawn(4.0))])
    assert out["share_of_sampling"] == {"median": pytest.approx(0.015), "largest": pytest.approx(0.02)}
    assert out["share_of_sampling_by_the_wall"]["largest"] == pytest.approx(0.1)
    assert out["states"] == {"fewest": 2, "most": 2} and out["bytes_per_message"] == 400 and not out["met"]
    assert out["microseconds_per_message"] == {"compose_and_hand_over": pytest.approx(1e4), "write_to_the_socket": pytest.approx(1e4)}
    assert out["ratio_with_to_without"]["median"] == pytest.approx(1.5) and out["share_without_a_client"]["largest"] == 0
