"""``equipoise find-bias-features``: the file, its charts, what is said, and wrong input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from equipoise.cli.main import main
from equipoise.methods.data.feature_set import FeatureSetWriter
from equipoise.models.adp import AdpFile, AttributePredictor, save_adp
from equipoise.models.bias_features import load_bias_features
from equipoise.models.sae import SaeFile, SparseAutoencoder, load_sae, save_sae
from PIL import Image

LEVELS = torch.tensor([-4.0, 0.0, 4.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in which channel 0 is there with long hair and channel 1 with short hair, and an autoencoder whose latents are the channels."""
    place = tmp_path_factory.mktemp("find")
    generator = torch.Generator().manual_seed(0)
    long = torch.arange(120) % 2
    x = 0.5 * torch.rand(120, len(LEVELS), 6, 4, 4, generator=generator)
    x[:, :, 0] += 2.0 * long[:, None, None, None]
    x[:, :, 1] += 2.0 * (1 - long)[:, None, None, None]
    names = [f"{i}.png" for i in range(120)]
    meta = {"base_model": "tiny", "site": "output.1", "channels": 6, "map": [4, 4]}
    FeatureSetWriter(place / "set", meta).add(x, LEVELS, names, [0] * 120, [""] * 120)
    rows = "".join(f"{n},{('short', 'long')[int(y)]}\n" for n, y in zip(names, long, strict=True))
    (place / "labels.csv").write_text(f"file,hair\n{rows}", encoding="utf-8")
    sae = SparseAutoencoder(6, 6, 4, LEVELS)
    sae.encoder.data, sae.decoder.data = torch.eye(6), torch.eye(6)
    save_sae(SaeFile(sae, "output.1", "tiny"), place / "sae.safetensors")
    return place


def find(folder: Path, out: str, *words: str) -> int:
    files = ["--features", str(folder / "set"), "--labels", str(folder / "labels.csv"), "--sae", str(folder / "sae.safetensors")]
    return main(["find-bias-features", *files, "--out", str(folder / out), *words])


def test_features_are_found_with_a_reader_trained_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find(folder, "found.safetensors", "--attribute", "hair", "--per-class", "3", "--resamples", "10", "--epochs", "20") == 0
    said = capsys.readouterr().out
    assert "bias features for tiny at output.1" in said and "hair long: without its" in said and "wrote" in said
    file = load_bias_features(folder / "found.safetensors")
    a = file.attribute("hair")
    assert [int(a.features[a.best(c)[0]]) for c in ("long", "short")] == [0, 1]
    assert file.sae_digest == load_sae(folder / "sae.safetensors").digest
    picture = np.asarray(Image.open(folder / "found-hair.png"))
    assert picture.shape[1:] == (960, 3) and picture.min() < 50


def test_what_does_not_fit_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find(folder, "x.safetensors", "--attribute", "age") == 1
    assert "nothing is labelled with 'age'; labelled are: hair" in capsys.readouterr().err
    save_adp(AdpFile(AttributePredictor({"hair": ("short", "long")}, 6, LEVELS, "linear"), {}, "tiny"), folder / "middle.safetensors")
    assert find(folder, "x.safetensors", "--attribute", "hair", "--adp", str(folder / "middle.safetensors")) == 1
    assert "reads features at 'middle' and the autoencoder's are at 'output.1'" in capsys.readouterr().err
    assert find(folder, "x.safetensors", "--attribute", "hair", "--per-class", "0") == 1
    assert "1 or more" in capsys.readouterr().err
    assert not (folder / "x.safetensors").exists()
