"""``equipoise neuron-path``: the published paths from a folder of transformers, and wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from equipoise.cli.main import main
from equipoise.models.files import write_safetensors

CONFIG = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 16, "patch_size": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("paths")
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification(transformers.ViTConfig(**CONFIG, num_labels=3))
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.25)
    network.save_pretrained(place / "model")
    write_safetensors(place / "images.safetensors", {"images": torch.randn(2, 3, 16, 16), "other": torch.zeros(1)})
    return place


def command(folder: Path, *words: str) -> int:
    given = ["--model", str(folder / "model"), "--images", str(folder / "images.safetensors"), "--json", str(folder / "out.json")]
    return main(["neuron-path", *given, *words])


@pytest.mark.parametrize("top_k", [1, 3])
def test_paths_are_written(folder: Path, top_k: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "--targets", "0,2", "--dtype", "float64", "--top-k", str(top_k), "--search", "shortlist") == 0
    assert "2 path(s) of 2 layers" in capsys.readouterr().out
    out = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    paths = torch.tensor(out["paths"])
    assert tuple(paths.shape) == ((2, 2) if top_k == 1 else (2, 2, 3))
    assert len(out["joint_scores"]) == len(out["additive"]) == 2 and out["seconds"] >= 0 and out["dtype"] == "float64"


def test_wrong_input_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "swin").mkdir()
    (tmp_path / "swin" / "config.json").write_text(json.dumps({"model_type": "swin"}), encoding="utf-8")
    write_safetensors(tmp_path / "flat.safetensors", {"images": torch.zeros(2, 16)})
    for words, said in (
        (["--targets", "0"], "as many targets"),
        (["--targets", "0,7"], "classes 0 to 2"),
        (["--targets", "0,yes"], "class numbers separated by commas"),
        (["--targets", "0,1", "--model", str(tmp_path / "none")], "no config.json"),
        (["--targets", "0,1", "--model", str(tmp_path / "swin")], "is a 'swin'"),
        (["--targets", "0,1", "--images", str(tmp_path / "flat.safetensors")], "expected a tensor 'images'"),
        (["--targets", "0,1", "--top-k", "99"], "40 neurons"),
    ):
        assert command(folder, *words) == 1
        assert said in capsys.readouterr().err
