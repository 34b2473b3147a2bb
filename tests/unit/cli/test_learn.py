"""Moves learned on the command line: images from pictures or seeds, a classifier taught on them, and vectors through the decoder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from equipoise.cli import learn, pictures
from equipoise.cli.cmd_train_adp import shipped_model
from equipoise.cli.learn import cannot_learn, learn_moves
from equipoise.cli.picture_classifier import balanced_accuracy, train_on_pictures
from equipoise.cli.pictures import clean_latents
from equipoise.cli.sampling import RecordedSite, recorded_as, sample
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, open_feature_set
from equipoise.methods.guidance.fit_moves import FitSettings
from equipoise.methods.labels.labels import LabelSet
from equipoise.models.adm_unet import AdmConfig, AdmUNet
from equipoise.models.adp import AdpFile, AttributePredictor
from equipoise.shipped import weights
from PIL import Image

COATS = {"coat": ("red", "green")}


def network(seed: int, classes: int | None = None) -> AdmUNet:
    torch.manual_seed(seed)
    config = {"model_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "attention": (False, False), "num_head_channels": 32}
    net = AdmUNet(AdmConfig(in_channels=12, out_channels=12, num_classes=classes, **config)).eval().requires_grad_(False)
    torch.nn.init.normal_(net.out[2].weight, std=0.05)
    return net


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Twenty samples of a random network, recorded as 'equipoise sample --record' does, with their pictures elsewhere."""
    place, net = tmp_path_factory.mktemp("learn"), network(0)
    seeds = list(range(500, 520))
    made = sample(net, seeds, batch=10, steps=3, record=RecordedSite())
    names = [f"{s}.png" for s in seeds]
    writer = FeatureSetWriter(place / "set", recorded_as(net, "tiny", 3))
    writer.add(made.features, made.level, names, seeds, [""] * 20)
    (place / "pictures").mkdir()
    for name, image in zip(names, made.images, strict=True):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(place / "pictures" / name)
    labels = LabelSet(dict(COATS), tuple(names), {"coat": torch.eye(2)[torch.arange(20) % 2]})
    return SimpleNamespace(net=net, place=place, features=open_feature_set(place / "set"), made=made, labels=labels)


def test_images_are_made_again_from_their_seeds(recorded: SimpleNamespace) -> None:
    some = [recorded.features.entries[i] for i in (3, 11, 19)]
    again = clean_latents(recorded.net, recorded.features, some)
    torch.testing.assert_close(again, recorded.made.latents[[3, 11, 19]], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="was not recorded on this diffusion model"):
        clean_latents(network(1), recorded.features, some)


def test_images_are_read_from_their_pictures(recorded: SimpleNamespace) -> None:
    some = [recorded.features.entries[i] for i in (3, 11)]
    read = clean_latents(recorded.net, recorded.features, some, recorded.place / "pictures")
    assert (read - recorded.made.latents[[3, 11]].clamp(-1, 1)).abs().max() <= 1.01 / 255
    with pytest.raises(ValueError, match="no picture '503.png'"):
        clean_latents(recorded.net, recorded.features, some, recorded.place)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(recorded.place / "503.png")
    with pytest.raises(ValueError, match="is 8 x 8 and images of the test bed are 32 x 32"):
        clean_latents(recorded.net, recorded.features, some, recorded.place)


def test_why_moves_cannot_be_learned(recorded: SimpleNamespace) -> None:
    f = recorded.features
    assert cannot_learn(recorded.net, f) is None
    assert "class-conditional" in cannot_learn(network(0, 3), f)
    from_host = FeatureSet(f.folder, f.entries, {**f.meta, "batch_size": 8})
    assert "--images" in cannot_learn(recorded.net, from_host) and not pictures.can_make_again(from_host)
    assert cannot_learn(recorded.net, from_host, recorded.place / "pictures") is None


def test_a_classifier_is_taught_on_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(200) % 2
    images = torch.rand(200, 3, 16, 16, generator=generator) * 0.3
    images[:, 0] += 0.5 * truth[:, None, None]
    labels = {"coat": torch.eye(2)[truth]}
    net, accuracy = train_on_pictures(images, labels, COATS, steps=25)
    assert accuracy["coat"] >= 0.95 and not any(p.requires_grad for p in net.parameters())
    torch.manual_seed(99)  # the global generator must not matter
    again, _ = train_on_pictures(images, labels, COATS, steps=25)
    assert torch.equal(again.probabilities(images)["coat"], net.probabilities(images)["coat"])
    assert balanced_accuracy(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1])) == 0.5


def test_learned_moves_stand_beside_the_others_uncalibrated(recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "train_on_pictures", lambda *a, **k: train_on_pictures(*a, **{**k, "steps": 5}))
    predictor = AttributePredictor(COATS, 32, torch.linspace(-10, 9, 3)).eval().requires_grad_(False)
    names: list[str] = []

    def bar(name: str):
        names.append(name)
        return lambda done, total, figures: None

    adp, settings = AdpFile(predictor, {}, "tiny"), FitSettings(steps=3, batch=learn.BATCH)
    made = learn_moves(recorded.net, adp, recorded.features, recorded.labels, settings, progress_of=bar)
    move = made.adp.alternatives["coat"]["learned"]
    assert not made.adp.moves and move.site == "output.1" and move.vectors.shape[1:4] == (2, 2, 32)
    assert move.vectors.abs().max() > 0 and names == ["making the images again", "teaching a classifier", "learning moves"]
    assert "trained a small classifier on 20 pictures" in made.lines[0] and "3 steps" in made.lines[1]


def test_the_shipped_model_is_known_by_its_name(recorded: SimpleNamespace) -> None:
    assert shipped_model(recorded.features) is None
    ours = FeatureSet(Path("x"), (), {"base_model": "equipoise-portraits"})
    assert shipped_model(ours) == weights.DIFFUSION
