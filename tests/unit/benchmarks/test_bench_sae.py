"""The benchmark of autoencoders without a host and without other libraries: its parts, its keys, and that nothing is done twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from equipoise.benchmarks.bias_features import sae, sae_peer
from equipoise.methods.data.feature_set import SPATIAL
from equipoise.models.sae import load_sae

CONTRACT = {"ours", "peer", "peer_name", "spliced_agreement", "attribution_speedup", "attribution_error", "completeness_error", "notes"}
SIZES = sae.SaeSizes(images=16, spliced=16, steps=4, samples=8)
ATTRIBUTION = {"attribution_speedup": 30.0, "attribution_error": 1e-6, "completeness_error": 1e-7, "samples": 8}


def test_all_parts_but_those_that_need_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, set[str], str]] = []

    def attributed(features: Any, labels: Any, file: Any, samples: int) -> dict[str, Any]:
        asked.append((len(features.entries), set(labels.attributes), file.site))
        assert set(labels.files) == {e.file for e in features.entries}
        return ATTRIBUTION

    monkeypatch.setattr(sae, "host_version", lambda: None)
    monkeypatch.setattr(sae, "measure_attribution", attributed)
    monkeypatch.setattr(sae_peer, "LIBRARIES", {"no-such-library": "no_such_library"})
    found = sae.measure_parts(tmp_path, SIZES, True)
    assert set(found) >= CONTRACT and asked == [(16, {"eyeglasses", "hair", "skin_tone", "profession"}, "output.1")]
    assert set(found["ours"]) >= {"fvu", "tokens_per_second", "dead_share", "l0"} and found["attribution_speedup"] == 30.0
    assert found["peer"] is None and found["peer_name"] is None and found["peer_at_its_defaults"] is None
    assert "no-such-library is not installed" in found["notes"]["peer"]
    assert found["spliced_agreement"] is None and "no ComfyUI" in found["notes"]["spliced_agreement"]
    features, _ = sae.record_training_set(tmp_path, 16)
    assert features.meta["kind"] == SPATIAL and features.meta["map"] == [8, 8] and features.entries[0].spatial_rows == sae.STEPS
    made = load_sae(tmp_path / sae.OURS).sae
    assert (made.channels, made.latents, made.k) == (96, 1536, 48)
    assert sae.measure_parts(tmp_path, SIZES, True) == found and len(asked) == 1, "everything was kept"
    (tmp_path / sae.OURS).unlink()
    again = sae.measure_parts(tmp_path, SIZES, True)
    assert (tmp_path / sae.OURS).is_file() and again["ours"]["fvu"] == found["ours"]["fvu"] and len(asked) == 1


def test_libraries_are_imported_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sae_peer, "LIBRARIES", {"torch": "torch", "no-such-library": "no_such_library"})
    assert set(sae_peer.versions()) == {"torch"}
    monkeypatch.setattr(sae, "compare_on_one_thread", lambda *given: {"where": "here"})
    monkeypatch.setattr(sae, "compare_in_child", lambda *given: {"where": "apart"})
    features = SimpleNamespace(entries=[])
    assert sae.train_all(tmp_path, features, SIZES.settings)["where"] == "apart"  # type: ignore[arg-type]
    monkeypatch.setattr(sae_peer, "LIBRARIES", {})
    assert sae.train_all(tmp_path, features, SIZES.settings)["where"] == "here"  # type: ignore[arg-type]


def test_the_object_names_the_least_and_the_commits() -> None:
    figures = {"fvu": 0.05, "tokens_per_second": 60000, "dead_share": 0.01, "l0": 24.0}
    settings = {"threads": 1}
    own, other = sae_peer.DEFAULTS, sae_peer.OURS
    peers = {f"a ({own})": {**figures, "fvu": 0.06}, f"a ({other})": figures, f"b ({own})": {"fvu": 0.07}}
    training = {"ours": figures, "peer": figures, "peer_name": "a", "peer_notes": ["b is missing"], "peers": peers}
    training["peer_settings"], training["commit"] = settings, "a" * 40
    spliced = {"agreement": {"hair": 0.99, "skin_tone": 0.98}, "n": 384, "commit": "b" * 40}
    found = sae.sae_result(training, spliced, {**ATTRIBUTION, "commit": "a" * 40}, sae.SaeSizes(), False)
    assert found["spliced_agreement"] == 0.98 and found["peer"] is figures and "quick" not in found["notes"]
    assert found["peer_at_its_defaults"] == {"name": f"a ({own})", **figures, "fvu": 0.06}
    assert found["notes"]["peers"] == "b is missing" and found["notes"]["commit"].endswith("aaaaaaaaa, bbbbbbbbb")
