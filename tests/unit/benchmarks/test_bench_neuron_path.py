"""``bench neuron-path`` at a size that takes seconds: both sides agree, and every key of the contract is there."""

from __future__ import annotations

import torch
from equipoise.benchmarks.neuron_path import path_speed
from equipoise.benchmarks.neuron_path.neuron_path import neuron_path_result
from equipoise.benchmarks.neuron_path.path_speed import Shape, compare_with_naive, extrapolate
from pytest import MonkeyPatch

SMALL = Shape(depth=3, width=24, mlp=48, heads=3, side=2, images=2)


def test_both_sides_find_the_same_paths(monkeypatch: MonkeyPatch) -> None:
    # In this process: starting others takes longer than the work.
    monkeypatch.setattr(path_speed, "run_in_child", lambda job, *args: job(*args))
    threads = torch.get_num_threads()
    speed = compare_with_naive(SMALL, threads)
    assert speed["paths_equal_share"] == 1.0 and speed["joint_error"] < 1e-3
    assert speed["speedup_left20"] > 0 and speed["tokens"] == 5 and speed["images"] == 2
    large = extrapolate(SMALL, threads, "gauss-4")
    assert large["naive_seconds_extrapolated"] > 0 and large["depth"] == 3
    part = {"change": [-0.1, -0.2, 0.0]}
    effects = {"eyeglasses, probability": {"paper": {"removal": part, "doubling": part}, "seconds": 1.0, "commit": None}}
    out = neuron_path_result(speed, {}, effects, 64)
    wanted = {"model", "images", "paths_equal_share", "speedup_left20", "speedup_gauss4", "jas_ratio_to_activation", "peak_mb"}
    assert wanted | {"removal", "enhancement"} <= set(out)
    assert out["removal"] == {"paper": -0.1}
