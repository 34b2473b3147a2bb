"""The benchmark of the planted leak: what it draws and counts, and that a training goes on where it was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equipoise.benchmarks.neuron_path import planted_leak as bench
from equipoise.factory.portraits import ATTRIBUTES
from equipoise.models.attribute_classifier import AttributeClassifier
from equipoise.tests.equipoise_planted_leak import planted


def test_training_labels_go_together_as_often_as_stated() -> None:
    labels = bench.correlated_labels(4000, torch.Generator().manual_seed(0))
    same = (labels["eyeglasses"] == 0) == (labels["hair"] == 1)
    assert float(same.float().mean()) == pytest.approx(bench.AGREE, abs=0.01)
    assert float((labels["hair"] == 1).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((labels["skin_tone"][labels["hair"] == 1] == 2).float().mean()) == pytest.approx(1 / 3, abs=0.04)


def test_pairs_differ_in_the_hair_alone() -> None:
    images, truth = bench.hair_pairs(6, 5)
    short, long = images.split(6)
    assert torch.equal(*truth.split(6)) and not torch.equal(short, long)
    same = (short - long).abs().amax(1) < 1e-5
    assert 0.5 < float(same.float().mean()) < 1 and bool(same[:, 15:18, 14:18].all()), "between the eyes nothing differs"


def test_training_resumes_and_ends_where_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "POOL", 16)
    monkeypatch.setattr(bench, "BATCH", 4)

    def stop(step: int, total: int, figures: dict[str, float]) -> None:
        raise KeyboardInterrupt

    whole = bench.planted(tmp_path / "whole", 2)
    with pytest.raises(KeyboardInterrupt):
        bench.planted(tmp_path / "parts", 2, stop)
    again = bench.planted(tmp_path / "parts", 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_whole_run_on_a_leak_that_was_planted_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leaky: AttributeClassifier = planted()
    monkeypatch.setattr(bench, "planted", lambda folder, steps, progress: leaky)
    monkeypatch.setattr(bench, "ATTRIBUTES", {a: ATTRIBUTES[a] for a in ("eyeglasses", "hair")})
    for name, value in (("AUDITED", 24), ("CHOSEN", 40), ("PAIRS", 48), ("NATURAL", 96), ("SAMPLED", 48)):
        monkeypatch.setattr(bench, name, value)
    drawn = bench.independent(48, 9)[0]
    monkeypatch.setattr(bench, "sample_images", lambda folder, n: drawn[:n])
    found = bench.run(True, tmp_path)
    assert ["hair", "eyeglasses"] in found["planted"]["flagged"] and found["clean"]["flagged"] == []
    assert found["leak_left"] < 0.5 and found["after"]["leak"][0] < found["before"]["leak"][0]
    assert found["accuracy_change"] > -0.01 and found["rare_accuracy_change"] > 0.05 and found["before"]["rare"] > 5
    assert found["quick"] if "quick" in found else found["notes"]["quick"]
    before, after = (found["samples_labelled"][k] for k in ("before", "after"))
    assert before["all"][3] == 12 and before["rare"][3] + before["common"][3] == 12
    assert after["rare"][0] > before["rare"][0]
