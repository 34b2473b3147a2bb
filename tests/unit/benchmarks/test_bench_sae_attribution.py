"""The benchmark of attribution, on a small set: its keys, and that what it compares is compared rightly."""

from __future__ import annotations

from pathlib import Path

import torch
from equipoise.benchmarks.bias_features import sae_attribution
from equipoise.benchmarks.bias_features.sae_attribution import attribution_figures, sample_codes
from equipoise.methods.adp.train import train_adp
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, open_feature_set
from equipoise.methods.labels.labels import LabelSet
from equipoise.models.sae import SaeFile, SparseAutoencoder

LEVELS = torch.tensor([-4.0, 0.0, 4.0])


def small(folder: Path) -> tuple[FeatureSet, LabelSet, SaeFile]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.rand(60, 3, 6, 4, 4, generator=generator)
    x[:, :, 0] += y[:, None, None, None]
    names = tuple(f"{i}.png" for i in range(60))
    meta = {"base_model": "tiny", "site": "middle", "channels": 6, "map": [4, 4]}
    FeatureSetWriter(folder, meta).add(x, LEVELS, names, [0] * 60, [""] * 60)
    sae = SparseAutoencoder(6, 24, 3, LEVELS).eval().requires_grad_(False)
    return open_feature_set(folder), LabelSet({"hair": ("short", "long")}, names, {"hair": torch.eye(2)[y]}), SaeFile(sae, "middle", "tiny")


def test_figures_of_attribution(tmp_path: Path, monkeypatch: object) -> None:
    features, labels, sae = small(tmp_path)
    reader = train_adp(features, labels, "linear", 8).predictor
    monkeypatch.setattr(sae_attribution, "EXACT_SAMPLES", 20)
    found = attribution_figures(features, labels, sae, reader, ["hair"], samples=40)
    assert found["samples"] == 40 and found["attribution_speedup"] > 0
    assert found["attribution_error"] < 1e-4 and found["completeness_error"] < 1e-5
    # Ten points by the left rule are not exact, or the comparison would show nothing.
    assert found["by_attribute"]["hair"]["autograd_10_completeness"] > 1e-4
    assert set(found["ablation"]["hair"]) == {"short", "long"} and len(found["ablation"]["hair"]["long"]["difference"]) == 3


def test_samples_are_of_different_images_and_levels(tmp_path: Path) -> None:
    features, _, sae = small(tmp_path)
    z, level = sample_codes(features, sae.sae, 50)
    assert z.shape == (50, 24, 4, 4) and set(level.tolist()) == set(LEVELS.tolist()) and (z.flatten(1).sum(1) > 0).all()
    again = sample_codes(features, sae.sae, 50)
    assert torch.equal(z, again[0]) and torch.equal(level, again[1])
