"""Spliced images of ``bench sae``, through the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def test_what_an_autoencoder_loses_is_seen_in_the_images(prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.benchmarks.bias_features import sae as bench
    from equipoise.models.sae import SaeFile, SparseAutoencoder

    monkeypatch.setattr(bench, "boot_host", lambda: None)
    monkeypatch.setattr(bench, "STEPS", 6)
    whole = SparseAutoencoder(96, 192, 192, torch.zeros(1)).requires_grad_(False)
    axes = torch.cat([torch.eye(96), -torch.eye(96)])  # both directions of every channel: nothing is lost
    whole.encoder.copy_(axes)
    whole.decoder.copy_(axes)
    found = bench.measure_splicing(SaeFile(whole, bench.SITE, "equipoise-portraits"), 16)
    assert set(found["agreement"]) == {"eyeglasses", "hair", "skin_tone", "profession"} and found["n"] == 16
    assert min(found["agreement"].values()) == 1.0 and found["similarity"] > 0.999
    nothing = SparseAutoencoder(96, 192, 1, torch.zeros(1)).requires_grad_(False)
    nothing.scale.mul_(1e-3)
    nothing.decoder.zero_()
    lost = bench.measure_splicing(SaeFile(nothing, bench.SITE, "equipoise-portraits"), 16)
    assert min(lost["agreement"].values()) < 1.0 and lost["similarity"] < found["similarity"] - 0.05
