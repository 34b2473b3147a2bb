"""The comparison with other libraries, as far as it goes without them: our side, and a stand-in whose weights are put behind our format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equipoise.benchmarks.bias_features import sae_peer
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, open_feature_set
from equipoise.methods.sae.training import SaeSettings
from equipoise.models.sae import BATCH_TOPK, load_sae

SETTINGS = SaeSettings(latents=16, k=2, steps=12, batch=64, warmup=2)


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    writer = FeatureSetWriter(tmp_path / "set", {"base_model": "tiny", "site": "middle", "map": [4, 4]})
    x = torch.randn(12, 3, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    writer.add(x, torch.tensor([-5.0, 0.0, 5.0]), [f"{i}.png" for i in range(12)], [0] * 12, [""] * 12)
    return open_feature_set(tmp_path / "set")


def test_without_a_library_the_peer_is_null_with_the_reason(
    features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_peer, "LIBRARIES", {"no-such-library": "no_such_library"})
    found = sae_peer.compare_trainers(tmp_path, features, SETTINGS)
    assert found["peer"] is None and found["peer_name"] is None and found["peers"] == {}
    assert found["peer_notes"] == ["no-such-library is not installed in this interpreter"]
    assert found["ours"].keys() == {"fvu", "tokens_per_second", "dead_share", "l0", "processor_seconds"}
    assert load_sae(tmp_path / "ours.safetensors").info["fvu"] == found["ours"]["fvu"] and found["ours"]["l0"] <= 2
    assert found["peer_settings"]["tokens"] == 12 * 64


def test_the_best_peer_is_measured_on_the_same_tokens(features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {}

    def make(settings: SaeSettings, channels: int, own: bool) -> sae_peer.PeerTrainer:
        name = f"stand-in ({sae_peer.DEFAULTS if own else sae_peer.OURS})"
        batches = seen.setdefault(name, [])
        atoms = torch.zeros(16, channels)
        if not own:  # one that knows the axes, and so does better than one that knows nothing
            atoms[:6], atoms[6:12] = torch.eye(6), -torch.eye(6)
        return sae_peer.PeerTrainer(name, batches.append, lambda: (atoms, torch.zeros(16), atoms, torch.zeros(channels)))

    monkeypatch.setattr(sae_peer, "LIBRARIES", {"stand-in": "json"})
    monkeypatch.setattr(sae_peer, "MAKERS", {"stand-in": make})
    monkeypatch.setattr(sae_peer, "installed", lambda: {"stand-in": "1"})
    found = sae_peer.compare_trainers(tmp_path, features, SETTINGS)
    assert found["peer_name"] == "stand-in (our rate and schedule)" and len(found["peers"]) == 2
    assert found["peers"]["stand-in (its defaults)"]["fvu"] > 0.95 > found["peer"]["fvu"]
    first, second = seen.values()
    assert len(first) == 12 and all(torch.equal(a, b) and a.shape == (64, 6) for a, b in zip(first, second, strict=True))
    assert abs(float(torch.cat(first).pow(2).mean()) - 1) < 0.1  # normalised
    with pytest.raises(ValueError, match="TopK per position"):
        sae_peer.compare_trainers(tmp_path, features, SaeSettings(latents=16, k=2, activation=BATCH_TOPK))
