"""What ``bench overhead`` makes of its parts; the parts take half an hour and a host."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from equipoise.benchmarks.host import full_width, overhead
from equipoise.benchmarks.host.full_width import GUIDANCE, PLAIN, STEERING, TWO_PASS, UNIVERSAL, VARIANTS
from equipoise.benchmarks.host.overhead import GROUPS, MODELS, Part


def timed(plain: list[float], **others: list[float]) -> dict[str, Any]:
    both = {PLAIN: plain, **others}
    return {"processor": both, "clock": {k: [2 * s for s in v] for k, v in both.items()}, "commit": "a" * 40}


def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """Times and memory of both models, all measured."""
    first = timed([1.0, 2.0, 4.0], guidance=[1.01, 2.04, 4.4], steering=[1.05, 2.0, 4.1])
    second = timed([1.0, 1.0], **{TWO_PASS: [2.0, 2.2], UNIVERSAL: [3.0, 3.0]})
    times = {m: {GUIDANCE: first, STEERING: first, TWO_PASS: second, UNIVERSAL: second} for m in MODELS}
    memory = {m: {v: {"peak_mb": 4000.0 + 40 * i, "commit": "a" * 40} for i, v in enumerate((PLAIN, *VARIANTS))} for m in MODELS}
    return times, memory


def test_the_contracts_keys(tmp_path: Path) -> None:
    out = overhead.overhead_result(*parts(), False, tmp_path)
    for model in MODELS:
        assert set(out[model]) >= set(VARIANTS)
        for variant in VARIANTS:
            assert out[model][variant]["time_ratio"] > 0 and out[model][variant]["memory_ratio"] > 1
    guidance = out["sd15"][GUIDANCE]
    assert guidance["time_ratio"] == pytest.approx(1.02), "the median of ratios, not the ratio of medians or means"
    assert guidance["clock_ratio"] == pytest.approx(1.02) and guidance["pairs"] == 3
    assert guidance["memory_ratio"] == pytest.approx(1.01) and out["sd15"][UNIVERSAL]["peak_mb"] == 4160
    assert out["sd15"]["plain_seconds_per_step"] == 1.0
    assert not [k for k in out["notes"] if "." in k] and "commit" not in out["notes"]
    assert (tmp_path / "overhead.png").stat().st_size > 10_000 and json.dumps(out, allow_nan=False)


def test_what_is_missing_is_null_with_the_reason(tmp_path: Path) -> None:
    times, memory = parts()
    reason = "null: needs 14.0 GB of free memory, and there were 9.1"
    for table in (times, memory):
        table["sdxl"][UNIVERSAL] = reason
    memory["sd15"][STEERING] = {"peak_mb": None, "commit": "b" * 40}
    times["sd15"][TWO_PASS] = "null: a part of the benchmark failed"
    out = overhead.overhead_result(times, memory, False, tmp_path)
    assert out["sdxl"][UNIVERSAL]["time_ratio"] is None is out["sdxl"][UNIVERSAL]["memory_ratio"]
    assert out["notes"]["sdxl.universal.time_ratio"] == reason == out["notes"]["sdxl.universal.memory_ratio"]
    assert "does not tell" in out["notes"]["sd15.steering.memory_ratio"] and out["sd15"][STEERING]["time_ratio"]
    assert "failed" in out["notes"]["sd15.two-pass.time_ratio"] and "bbbbbbbbb" in out["notes"]["commit"]


def test_quick_leaves_sdxl_out_and_says_so(tmp_path: Path) -> None:
    times, memory = ({"sd15": table["sd15"]} for table in parts())
    out = overhead.overhead_result(times, memory, True, tmp_path)
    assert out["sdxl"][GUIDANCE]["time_ratio"] is None and out["notes"]["sdxl.guidance.time_ratio"] == "null: left out of --quick"


def test_what_does_not_fit_is_not_tried() -> None:
    able, reasons = overhead.fitting("sdxl", "float32", VARIANTS, 2e9)
    assert not able and set(reasons) == set(VARIANTS) and "2.0 GB were free" in reasons[GUIDANCE]
    assert overhead.fitting("sdxl", "float32", VARIANTS, float("inf")) == (VARIANTS, {})
    half, left_out = overhead.fitting("sdxl", "float16", VARIANTS, 10e9)
    assert half == (GUIDANCE, STEERING, TWO_PASS) and "needs 20.0 GB" in left_out[UNIVERSAL]
    assert [full_width.dtype_for("sdxl", free) for free in (20e9, 10e9, 1e9)] == ["float32", "float16", "float16"]
    assert full_width.dtype_for("sd15", 1e9) == "float32"
    assert overhead.free_bytes() > 0


def test_every_variant_is_timed_in_enough_pairs() -> None:
    assert sorted(v for group in GROUPS for v in group) == sorted(VARIANTS)
    assert all(full >= 20 > few for full, few in GROUPS.values())
    names = [p.name for m in MODELS for p in (*(Part(m, g, n) for g, (n, _) in GROUPS.items()), *(Part(m, (v,)) for v in VARIANTS))]
    assert len(set(names)) == len(names)
    assert Part("sd15", (GUIDANCE,)).facts != Part("sd15", (GUIDANCE,), 5).facts


def test_parts_that_are_kept_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Part] = []
    monkeypatch.setattr(overhead, "host_version", lambda: "0.0")
    monkeypatch.setattr(overhead, "free_bytes", lambda: float("inf"))
    monkeypatch.setattr(overhead, "FullWidth", lambda name, dtype: SimpleNamespace(name=name))
    monkeypatch.setattr(overhead, "peak", lambda bed, what, steps: {"peak_mb": 10.0, "reset": True})

    def rounds(bed: Any, variants: tuple[str, ...], pairs: int, steps: int, say: Any) -> dict[str, Any]:
        times = {v: [1.0] * pairs for v in (PLAIN, *variants)}
        return {"processor": times, "clock": times}

    def here(work: Any, tasks: list[Part], workers: int, method: str) -> None:
        made.extend(tasks)
        if tasks[0].variants == (TWO_PASS,) and len(made) < 20:
            raise ChildProcessError("killed")
        work(tasks[0])

    monkeypatch.setattr(overhead, "rounds", rounds)
    monkeypatch.setattr(overhead, "in_children", here)
    first = overhead.run(True, tmp_path)
    assert first["sd15"][GUIDANCE]["time_ratio"] == 1.0 and first["notes"]["sd15.two-pass.memory_ratio"] == "null: killed"
    count = len(made)
    assert count == len(VARIANTS) + 1 + len(GROUPS)
    overhead.run(True, tmp_path)
    assert made[count:] == [Part("sd15", (TWO_PASS,))], "only what failed"


def test_a_round_alternates_and_counts_the_calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: list[tuple[str, int]] = []

    class Watch:
        """A variant whose calls take as long as its name says."""

        def __init__(self, model: str) -> None:
            self.model, self.processor, self.clock = model, [], []

    watches = {}

    def watch(model: str) -> Watch:
        watches[model] = Watch(model)
        return watches[model]

    def sample(model: str, steps: int, seed: int) -> None:
        sampled.append((model, seed))
        for _ in range(steps):
            watches[model].processor.append(float(len(model)))
            watches[model].clock.append(1.0)

    monkeypatch.setattr(full_width, "Watch", watch)
    bed = SimpleNamespace(name="sd15", variant=lambda what: what, sample=sample)
    said: list[str] = []
    found = full_width.rounds(bed, (GUIDANCE, STEERING), 3, 2, said.append)
    assert found["processor"] == {GUIDANCE: [8.0] * 3, PLAIN: [5.0] * 3, STEERING: [8.0] * 3} and found["clock"][PLAIN] == [1.0] * 3
    orders = [[m for m, seed in sampled if seed == number] for number in range(4)]
    assert orders[1] == orders[3] == orders[0][::-1] == orders[2][::-1] and orders[0][1] == PLAIN
    assert len(said) == 4, "a round before the first warms up and is not counted"
