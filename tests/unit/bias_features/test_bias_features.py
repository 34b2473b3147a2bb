"""Files of bias features: round trip, what they say, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from equipoise.models.bias_features import (
    CLASS_DIFFERENCE,
    LEARNED,
    AttributeFeatures,
    BiasFeatures,
    Profile,
    check_sae,
    load_bias_features,
    save_bias_features,
)
from equipoise.models.files import read_safetensors, write_safetensors


def _profile(classes: int, features: int, source: str = CLASS_DIFFERENCE, rows: int = 1) -> Profile:
    generator = torch.Generator().manual_seed(rows)
    delta = torch.randn(3, classes, rows, features, 4, 4, generator=generator).half().float()
    return Profile(torch.tensor([-2.0, 0.0, 3.0]), delta, torch.ones(3, classes), source=source)


def _attribute(classes: tuple[str, ...] = ("no", "yes"), features: int = 5) -> AttributeFeatures:
    k, generator = len(classes), torch.Generator().manual_seed(0)
    scores = torch.randn(3, k, features, generator=generator)
    held = {"assign": "reading", "relative": False, "doubt": 2.0}
    return AttributeFeatures(
        classes,
        torch.tensor([7, 0, 31, 4, 19])[:features],
        scores.mean(0),
        scores,
        torch.rand(k, features, generator=generator),
        torch.rand(features, generator=generator),
        torch.full((k, features), float("nan")),
        torch.tensor([-2.0, 0.0, 3.0]),
        {CLASS_DIFFERENCE: _profile(k, features), LEARNED: replace(_profile(k, features, LEARNED, k), **held)},
        LEARNED,
    )


def _file() -> BiasFeatures:
    both = {"eyeglasses": _attribute(), "skin tone": _attribute(("light", "medium", "dark"), 4)}
    return BiasFeatures(both, "output.1", "equipoise-portraits", "abc123", 6, 32, {"images": 10, "licence": "GPL-3.0"})


@dataclass(frozen=True)
class _Sae:
    digest: str
    site: str = "output.1"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made, path = _file(), tmp_path / "features.safetensors"
    save_bias_features(made, path)
    back = load_bias_features(path)
    assert (back.site, back.base_model, back.sae_digest, back.channels, back.latents) == (
        "output.1",
        "equipoise-portraits",
        "abc123",
        6,
        32,
    )
    assert back.info == made.info and list(back.attributes) == list(made.attributes)
    for name, a in made.attributes.items():
        b = back.attribute(name)
        assert (b.classes, b.default) == (a.classes, a.default)
        for part in ("features", "scores", "scores_by_level", "stability", "side_effect", "causal", "knots"):
            assert torch.equal(getattr(a, part).nan_to_num(-9), getattr(b, part).nan_to_num(-9)), part
        for source, p in a.profiles.items():
            q = b.profiles[source]
            assert torch.equal(p.delta, q.delta) and torch.equal(p.sizes, q.sizes) and torch.equal(p.knots, q.knots)
            assert (p.assign, p.source, p.relative, p.doubt) == (q.assign, q.source, q.relative, q.doubt)
    assert read_safetensors(path)[1]["licence"] == "GPL-3.0"


def test_what_the_file_says_of_itself() -> None:
    file = _file()
    text = file.text()
    a = file.attribute("eyeglasses")
    assert "equipoise-portraits at output.1" in text and "learned (default)" in text
    assert f"yes {int((a.scores[1] > 0).sum())}" in text


def test_the_best_features_of_a_class_come_in_order_and_speak_for_it() -> None:
    a = _attribute()
    scores = a.scores[1, a.best("yes")]
    assert (scores > 0).all() and scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert len(a.best("yes", 1)) == 1 and len(a.best("no")) + len(a.best("yes")) >= 1


def test_a_profile_by_default_and_by_name() -> None:
    a = _attribute()
    assert a.profile().source == LEARNED and a.profile(CLASS_DIFFERENCE).source == CLASS_DIFFERENCE
    assert replace(a, default="").profile().source == LEARNED, "uncalibrated: what was learned comes first"
    read_off = {CLASS_DIFFERENCE: a.profiles[CLASS_DIFFERENCE]}
    assert replace(a, default="", profiles=read_off).profile().source == CLASS_DIFFERENCE
    with pytest.raises(ValueError, match="no profile 'x'; they have: class-difference, learned"):
        a.profile("x")


def test_the_window_of_a_profile_reaches_to_the_next_knots() -> None:
    p = replace(_profile(2, 5), sizes=torch.tensor([[0.0, 0], [0, 0], [1, 1]]))
    assert p.window == (0.0, 3.0)
    assert replace(p, sizes=torch.zeros(3, 2)).window[0] == float("inf")


def test_an_attribute_or_class_that_is_not_there_is_told_with_those_that_are() -> None:
    file = _file()
    with pytest.raises(ValueError, match="no bias features of 'age'.*eyeglasses, skin tone"):
        file.attribute("age")
    with pytest.raises(ValueError, match="no class 'maybe'.*no, yes"):
        file.attribute("eyeglasses").class_index("maybe")


def test_features_of_another_autoencoder_are_refused() -> None:
    check_sae(_file(), _Sae("abc123"))
    with pytest.raises(ValueError, match="autoencoder abc123 at output.1, and the connected autoencoder is fff at middle: load"):
        check_sae(_file(), _Sae("fff", "middle"))


def test_files_of_another_kind_version_or_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.zeros(1)}, {"format": "equipoise-adp"})
    with pytest.raises(ValueError, match="holds no bias features.*'equipoise-adp'"):
        load_bias_features(path)
    save_bias_features(_file(), path)
    tensors, meta = read_safetensors(path)
    write_safetensors(path, tensors, meta | {"format_version": "9"})
    with pytest.raises(ValueError, match="version '9'"):
        load_bias_features(path)
    write_safetensors(path, {k: v for k, v in tensors.items() if k != "eyeglasses.scores"}, meta)
    with pytest.raises(ValueError, match="does not fit its own metadata.*eyeglasses.scores"):
        load_bias_features(path)
    write_safetensors(path, tensors | {"eyeglasses.scores": torch.zeros(2, 9)}, meta)
    with pytest.raises(ValueError, match="scores of 5 features"):
        load_bias_features(path)
    write_safetensors(path, tensors | {"eyeglasses.features": torch.tensor([7, 0, 31, 4, 99])}, meta)
    with pytest.raises(ValueError, match="numbers beyond the 32 latents"):
        load_bias_features(path)
