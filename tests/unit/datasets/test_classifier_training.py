"""Training of attribute classifiers: what is learnt, what is drawn how often, exact resume, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.methods.datasets.augment import AUGMENTATIONS, augmentation
from equipoise.methods.datasets.classifier_training import (
    ARCHITECTURES,
    ClassifierSettings,
    Examples,
    decisions,
    drawing_weights,
    held_out_accuracy,
    new_classifier,
    save_trained,
    train_classifier,
)
from equipoise.models.attribute_classifier import load_classifier
from equipoise.models.files import read_metadata

TINT = {"tint": ("red", "blue"), "light": ("dark", "bright")}
QUICK = ClassifierSettings(image_size=32, steps=40, batch=16, augment="none")


def coloured(n: int, seed: int = 0, generated: float = 0.0) -> Examples:
    """Red or blue squares, dark or bright, with noise."""
    g = torch.Generator().manual_seed(seed)
    tint, light = (torch.randint(0, 2, (n,), generator=g) for _ in range(2))
    images = torch.rand(n, 3, 32, 32, generator=g) * 0.2
    images[torch.arange(n), tint * 2] += 0.35 + 0.4 * light[:, None, None]
    return Examples(TINT, (images.clamp(0, 1) * 255).byte(), {"tint": tint, "light": light}, torch.rand(n, generator=g) < generated)


@pytest.fixture(scope="module")
def trained() -> Any:
    return train_classifier(coloured(96), QUICK, coloured(64, seed=1))


def test_it_learns_what_is_labelled(trained: Any) -> None:
    for attribute in TINT:
        assert trained.held_out[attribute]["accuracy"] > 0.9 and trained.held_out[attribute]["n"] == 64
        assert set(trained.held_out[attribute]["by_class"]) == set(TINT[attribute])
    assert trained.log[-1]["loss"] < trained.log[0]["loss"] and trained.log[-1]["step"] == 40
    assert trained.info["images"] == 96 and trained.info["counts"]["tint"]["red"] + trained.info["counts"]["tint"]["blue"] == 96


def test_the_file_is_one_that_the_loader_reads_and_says_the_same(trained: Any, tmp_path: Path) -> None:
    save_trained(trained, tmp_path / "c.safetensors")
    again, images = load_classifier(tmp_path / "c.safetensors"), coloured(20, seed=3).images
    assert again.attributes == TINT
    for attribute, read in decisions(again, images).items():
        assert (read == decisions(trained.model, images)[attribute]).all()
    for a, b in zip(again.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(a, b)  # what was measured is what was saved
    info = json.loads(read_metadata(tmp_path / "c.safetensors")["info"])
    assert info["settings"]["steps"] == 40 and info["held_out_accuracy"]["tint"]["n"] == 64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("augment", ["none", "quality"])
def test_an_interrupted_training_goes_on_exactly(tmp_path: Path, architecture: str, augment: str) -> None:
    settings = replace(QUICK, architecture=architecture, augment=augment, steps=6, batch=4)
    whole = train_classifier(coloured(12), settings)

    def interrupt(step: int, total: int, figures: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_classifier(coloured(12), settings, folder=tmp_path, progress=interrupt)
    steps: list[int] = []
    again = train_classifier(coloured(12), settings, folder=tmp_path, progress=lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6]
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_data_or_settings_are_another_training(tmp_path: Path) -> None:
    settings = replace(QUICK, steps=2, batch=2)
    train_classifier(coloured(8), settings, folder=tmp_path)
    train_classifier(coloured(8, seed=5), settings, folder=tmp_path)
    train_classifier(coloured(8), replace(settings, seed=1), folder=tmp_path)
    train_classifier(coloured(8), settings, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_global_random_numbers_and_inference_mode_are_left_alone() -> None:
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    with torch.inference_mode():  # as a host calls it
        made = train_classifier(coloured(8), replace(QUICK, steps=2, batch=2, augment="quality"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not next(made.model.parameters()).is_inference()


def test_images_without_a_label_teach_nothing_about_it() -> None:
    given = coloured(40)
    blind = replace(given, labels={**given.labels, "light": torch.full((40,), -1)})
    with pytest.raises(ValueError, match="no image shows 'dark' of 'light'"):
        train_classifier(blind, QUICK)
    half = given.labels["light"].clone()
    half[:20] = -1
    train_classifier(replace(given, labels={**given.labels, "light": half}), replace(QUICK, steps=3))
    seen = held_out_accuracy(new_classifier(QUICK, TINT), replace(given, labels={**given.labels, "light": half}))
    assert seen["light"]["n"] == 20 and seen["tint"]["n"] == 40


def test_generated_images_are_drawn_by_their_weight() -> None:
    given = replace(coloured(10), generated=torch.arange(10) < 6)
    weights = drawing_weights(given, replace(QUICK, generated_weight=0.5))
    assert float(weights[:6].sum()) == pytest.approx(3 / 7) and float(weights.sum()) == pytest.approx(1.0)
    assert float(drawing_weights(given, replace(QUICK, generated_weight=0.0))[:6].sum()) == 0.0
    with pytest.raises(ValueError, match="nothing is left to train on"):
        drawing_weights(replace(given, generated=torch.ones(10, dtype=torch.bool)), replace(QUICK, generated_weight=0.0))


def test_balanced_combinations_are_drawn_equally_often() -> None:
    given = coloured(200, generated=0.3)
    cell = given.labels["tint"] * 2 + given.labels["light"]
    weights = drawing_weights(given, replace(QUICK, balance=("tint", "light"), generated_weight=0.25))
    sums = torch.zeros(4, dtype=torch.float64).index_add_(0, cell, weights)
    assert sums.tolist() == pytest.approx([0.25] * 4)
    one = weights[cell == 0]
    assert float(one.max() / one.min()) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="no such labels"):
        drawing_weights(given, replace(QUICK, balance=("age",)))
    given.labels["tint"][0] = -1
    with pytest.raises(ValueError, match="1 images have no label"):
        drawing_weights(given, replace(QUICK, balance=("tint",)))


@pytest.mark.parametrize("size", [32, 64, 128, 224])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_networks_of_every_size_read_their_images(architecture: str, size: int) -> None:
    net = new_classifier(ClassifierSettings(architecture, image_size=size), TINT)
    out = net.probabilities(torch.rand(2, 3, size, size))
    assert out["tint"].shape == (2, 2) and torch.allclose(out["tint"].sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "mlp"}, "a classifier is one of cnn, vit"),
        ({"image_size": 48}, "sees 32, 64"),
        ({"image_size": 64}, r"expected images uint8 \[N, 3, 64, 64\]"),
        ({"steps": 0}, "steps and batch are 1 or more"),
        ({"generated_weight": float("nan")}, "weights 0 or more"),
        ({"augment": "all"}, "no augmentation 'all'"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        train_classifier(coloured(8), replace(QUICK, **change))


def test_empty_data_are_refused() -> None:
    none = Examples({}, torch.empty(0, 3, 32, 32, dtype=torch.uint8), {}, torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="no labelled images"):
        train_classifier(none, QUICK)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_vary_images_and_keep_their_range(name: str) -> None:
    images = coloured(8).images.float() / 255
    state = torch.random.get_rng_state()
    made, again, other = (augmentation(name)(images, seed) for seed in (1, 1, 2))
    assert made.shape == images.shape and float(made.min()) >= 0 and float(made.max()) <= 1
    assert torch.equal(made, again) and torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(made, other) == (name == "none")


def test_colours_stay_unless_they_are_asked_for() -> None:
    """Skin tones are read off them."""
    flat = torch.tensor([0.74, 0.53, 0.38])[:, None, None].expand(16, 3, 32, 32)
    drift = {n: float((augmentation(n)(flat, 0).mean((2, 3)) - flat.mean((2, 3))).abs().max()) for n in AUGMENTATIONS}
    assert drift["geometry"] < 1e-4 and drift["quality"] < 0.01 and drift["colour"] > 0.03
