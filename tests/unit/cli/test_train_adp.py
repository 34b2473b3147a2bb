"""``equipoise train-adp``: the file, its curves beside it, attributes added, and calibration on a model of the test bed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from equipoise.cli import calibrate, learn
from equipoise.cli.cmd_train_adp import LEARN_STEPS
from equipoise.cli.main import main
from equipoise.methods.core.targets import make_target
from equipoise.methods.data.feature_set import FeatureSetWriter
from equipoise.methods.guidance.calibrate import CalibratedMoves
from equipoise.methods.guidance.fit_moves import FitSettings
from equipoise.methods.guidance.run import GuidanceSettings
from equipoise.models.adm_unet import AdmConfig, AdmUNet
from equipoise.models.adp import AdpFile, AttributePredictor, Move, load_adp
from equipoise.shipped import weights
from PIL import Image

LEVELS = torch.tensor([-6.0, 0.0, 6.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature set whose channels tell two attributes, with a label file for each."""
    place = tmp_path_factory.mktemp("command")
    generator = torch.Generator().manual_seed(0)
    n = torch.arange(120)
    writer = FeatureSetWriter(place / "set", {"base_model": "tiny"})
    truth = {"hair": n % 2, "coat": n % 3}
    x = torch.randn(120, len(LEVELS), 3, 4, 4, generator=generator)
    for channel, y in enumerate(truth.values()):
        x[:, :, channel] += 2.0 * y[:, None, None, None]
    writer.add(x, LEVELS, [f"{i}.png" for i in n], [0] * 120, [""] * 120)
    names = {"hair": ("short", "long"), "coat": ("red", "green", "blue")}
    for attribute, y in truth.items():
        rows = "".join(f"{i}.png,{names[attribute][int(c)]}\n" for i, c in enumerate(y))
        (place / f"{attribute}.csv").write_text(f"file,{attribute}\n{rows}", encoding="utf-8")
    return place


def train(folder: Path, attribute: str, out: str, *words: str) -> int:
    files = ["--features", str(folder / "set"), "--labels", str(folder / f"{attribute}.csv"), "--out", str(folder / out)]
    return main(["train-adp", *files, "--attribute", attribute, *words])


def test_an_attribute_is_trained_and_another_added(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "hair", "first.safetensors", "--kind", "linear") == 0
    said = capsys.readouterr().out
    assert "hair: " in said and "accurate on held-out images. It reaches" in said
    assert "wrote" in said and "Name the model that it was recorded on" in said
    picture = np.asarray(Image.open(folder / "first.png"))
    assert picture.shape == (1048, 960, 3) and picture.min() < 50
    assert train(folder, "coat", "both.safetensors", "--add-to", str(folder / "first.safetensors")) == 0
    first, both = load_adp(folder / "first.safetensors"), load_adp(folder / "both.safetensors")
    assert both.attributes == {"hair": ("short", "long"), "coat": ("red", "green", "blue")}
    assert both.predictor.kind == "linear" and both.base_model == "tiny"
    x, level = torch.randn(9, 3, 4, 4), torch.zeros(9)
    torch.testing.assert_close(both.predictor(x, level)["hair"], first.predictor(x, level)["hair"])
    assert set(both.info["verdict"]) == {"hair", "coat"}


def test_bad_words_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "hair", "x.safetensors", "--epochs", "0") == 1
    assert "--epochs" in capsys.readouterr().err
    assert train(folder, "hair", "x.safetensors", "--learn", "9") == 1
    assert "name it with --calibrate" in capsys.readouterr().err
    assert train(folder, "coat", "x.safetensors", "--kind", "mlp", "--add-to", str(folder / "first.safetensors")) == 1
    assert "of kind 'linear'" in capsys.readouterr().err
    assert not (folder / "x.safetensors").exists() and not (folder / "x.png").exists()


def trials(classes: int | None, seen: list[int]) -> calibrate._Trials:
    """Trials of 16 images on a small random network."""
    torch.manual_seed(1)
    config = {"model_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "attention": (False, False), "num_head_channels": 32}
    net = AdmUNet(AdmConfig(in_channels=12, out_channels=12, num_classes=classes, **config)).eval()
    predictor = AttributePredictor({"hair": ("short", "long")}, 32, torch.linspace(-10, 9, 5)).eval().requires_grad_(False)
    info = {"accuracy_by_log_snr": {"hair": [[-5.25, 0.6], [4.25, 0.9]]}}
    return calibrate._Trials(net, AdpFile(predictor, {}, "tiny", info), 16, 3, lambda done, total, figures: seen.append(done))


def test_trials_of_the_test_bed_sample_and_read_finished_images() -> None:
    """The ADP judges by a plain pass: what it reads does not depend on the guidance that made the image."""
    seen: list[int] = []
    made = trials(None, seen)
    plain = made.sample(None, None)
    assert plain.cells is None and plain.read["hair"].shape == (16, 2)
    move = Move("middle", torch.tensor([-12.0, 12.0]), torch.randn(2, 2, 1, 32, 4, 4) / 22, torch.full((2, 2), 0.5), relative=True)
    target = make_target({"hair": {"short": 0.5, "long": 0.5}})
    guided = made.sample(AdpFile(made.adp.predictor, {"hair": move}, "tiny"), GuidanceSettings(target, seed=1))
    assert sorted(guided.cells.tolist()) == [0] * 8 + [1] * 8
    assert not torch.allclose(guided.read["hair"], plain.read["hair"]), "the images differ"
    assert torch.equal(made.sample(None, None).read["hair"], plain.read["hair"]) and seen == [1, 2, 3]


def test_trials_of_a_class_conditional_model_draw_its_classes() -> None:
    assert trials(3, []).sample(None, None).read["hair"].shape == (16, 2)


def test_calibration_reaches_the_file(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own part; how trials decide is tested where they are."""
    made: list[tuple[int, Path]] = []

    def stand_in(net: object, adp: AdpFile, features: object, labels: object, images: int, log: Path, *more: object) -> list[object]:
        made.append((images, log))
        move = Move("middle", torch.tensor([0.0]), torch.zeros(1, 2, 1, 3, 4, 4), torch.ones(1, 2))
        return [CalibratedMoves(AdpFile(adp.predictor, {"hair": move}, adp.base_model, adp.info), ["hair: moved"], {}, {})]

    monkeypatch.setattr(calibrate, "calibrate_moves", stand_in)
    monkeypatch.setattr(weights, "diffusion", lambda path: SimpleNamespace(num_classes=4))
    words = ["--calibrate", str(folder / "model.safetensors"), "--trial-images", "32"]
    assert train(folder, "hair", "moved.safetensors", *words) == 0
    said = capsys.readouterr().out
    assert made == [(32, folder / "moved.trials.json")] and "hair: moved" in said
    assert "directions that are read from the features instead: a feature set does not keep the classes" in said
    assert list(load_adp(folder / "moved.safetensors").moves) == ["hair"]
    assert train(folder, "hair", "x.safetensors", *words, "--learn", "5") == 1
    assert "class-conditional" in capsys.readouterr().err
    assert train(folder, "hair", "alone.safetensors", "--no-moves") == 0 and len(made) == 1
    assert not load_adp(folder / "alone.safetensors").moves


def test_learned_moves_are_calibrated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning comes before the trials, which get its file."""
    move = Move("middle", torch.tensor([0.0]), torch.zeros(1, 2, 2, 3, 4, 4), torch.ones(1, 2))
    steps: list[int] = []

    def learned(net: object, adp: AdpFile, features: object, labels: object, settings: FitSettings, *more: object) -> learn.LearnedVectors:
        steps.append(settings.steps)
        return learn.LearnedVectors(replace(adp, alternatives={"hair": {"learned": move}}), ["learned"])

    def calibrated(net: object, adp: AdpFile, *more: object) -> list[CalibratedMoves]:
        assert [m.source for m in calibrate.fitted_moves(adp, "hair")] == ["learned"] and not calibrate.fitted_moves(adp, "coat")
        return [CalibratedMoves(replace(adp, moves={"hair": move}, alternatives={}), [], {}, {})]

    monkeypatch.setattr(weights, "diffusion", lambda path: SimpleNamespace(num_classes=None))
    monkeypatch.setattr(learn, "cannot_learn", lambda *a: None)
    monkeypatch.setattr(learn, "learn_moves", learned)
    monkeypatch.setattr(calibrate, "calibrate_moves", calibrated)
    assert train(folder, "hair", "learned.safetensors", "--calibrate", "model.safetensors") == 0
    assert train(folder, "hair", "learned.safetensors", "--calibrate", "model.safetensors", "--learn", "7") == 0
    assert steps == [LEARN_STEPS, 7] and load_adp(folder / "learned.safetensors").moves["hair"].source == "learned"
