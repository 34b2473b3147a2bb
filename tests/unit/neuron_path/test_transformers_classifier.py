"""Export of our vision transformer for transformers, and reading folders of transformers image classifiers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equipoise.benchmarks.neuron_path.vit_export import export_vit
from equipoise.models.attribute_classifier import VisionTransformer, VitSizes

transformers = pytest.importorskip("transformers")

from equipoise.models.transformers_classifier import load_transformers_classifier  # noqa: E402

ATTRIBUTES = {"eyeglasses": ("yes", "no"), "skin_tone": ("light", "medium", "dark")}


@pytest.fixture(scope="module")
def ours() -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(ATTRIBUTES, image_size=16, sizes=VitSizes(patch=4, dim=32, depth=3, num_heads=2, mlp=48))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # so that no bias, norm or CLS token is at its neutral value
    return net.eval()


@pytest.fixture(scope="module")
def exported(ours: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_vit(ours, "skin_tone", tmp_path_factory.mktemp("export") / "tones")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "tones"))


def images(n: int = 5, h: int = 16, w: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(1))


def edit(folder: Path, name: str = "config.json", **changes: Any) -> None:
    read = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({k: v for k, v in (read | changes).items() if v is not ...}))


def test_transformers_gives_the_same_logits(ours: VisionTransformer, exported: Path) -> None:
    theirs = transformers.ViTForImageClassification.from_pretrained(exported).eval()
    pixels = ours.preprocess(images())
    with torch.no_grad():
        expected, met = ours(pixels)["skin_tone"], theirs(pixel_values=pixels).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(met, expected, rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label == {0: "light", 1: "medium", 2: "dark"} and theirs.config.label2id["dark"] == 2


def test_the_folder_says_how_to_prepare_images(ours: VisionTransformer, exported: Path) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(exported)
    pictures = (images() * 255).round().byte()
    met = processor([np.asarray(p.permute(1, 2, 0)) for p in pictures], return_tensors="pt").pixel_values
    torch.testing.assert_close(met, ours.preprocess(pictures.float() / 255), rtol=0, atol=1e-5)


def test_an_export_is_whole_or_not_there(ours: VisionTransformer, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(p.name for p in exported.iterdir()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert [p.name for p in exported.parent.iterdir()] == ["tones"]
    with pytest.raises(ValueError, match="no attribute 'beard'; it has: eyeglasses, skin_tone"):
        export_vit(ours, "beard", tmp_path / "x")
    with pytest.raises(FileExistsError, match="exists already"):
        export_vit(ours, "eyeglasses", exported)
    monkeypatch.setattr("equipoise.benchmarks.neuron_path.vit_export._preprocessor", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_vit(ours, "eyeglasses", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_an_export_that_does_not_agree_is_not_written(ours: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.benchmarks.neuron_path.vit_export._copy_block", lambda block, layer: None)
    with pytest.raises(RuntimeError, match="differs from ours"):
        export_vit(ours, "eyeglasses", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("size", [(16, 16), (40, 24)])
def test_reading_it_back_is_the_same_classifier(ours: VisionTransformer, exported: Path, size: tuple[int, int]) -> None:
    read, given = load_transformers_classifier(exported), images(7, *size)
    assert read.attributes == {"skin_tone": ("light", "medium", "dark")} and read.image_size == 16
    torch.testing.assert_close(read.probabilities(given, batch=3)["skin_tone"], ours.probabilities(given)["skin_tone"], rtol=0, atol=1e-5)
    torch.testing.assert_close(read.embed(given, batch=3), ours.embed(given), rtol=0, atol=1e-4)


def test_the_attribute_is_named_by_the_config_or_by_the_folder(folder: Path) -> None:
    edit(folder, equipoise_attribute=...)
    assert list(load_transformers_classifier(folder).attributes) == ["tones"]


@pytest.mark.parametrize("kind", ["swin", "resnet", "convnext"])
def test_other_architectures(kind: str, tmp_path: Path) -> None:
    """Swin has no CLS token, ResNet a head within a sequence, ConvNeXt a crop of its own: preprocessing as transformers does it."""
    labels = {"id2label": {0: "yes", 1: "no"}, "label2id": {"yes": 0, "no": 1}}
    configs = {
        "swin": lambda: transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4, **labels
        ),
        "resnet": lambda: transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **labels),
        "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, **labels),
    }
    processors = {
        "swin": {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.2, 0.1], "resample": 3},
        "resnet": {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_normalize": False},
        "convnext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 2},
    }
    torch.manual_seed(0)
    network = transformers.AutoModelForImageClassification.from_config(configs[kind]()).eval()
    network.save_pretrained(tmp_path / kind)
    (tmp_path / kind / "preprocessor_config.json").write_text(json.dumps(processors[kind]))
    read = load_transformers_classifier(tmp_path / kind)
    given = images(4, 48, 64)
    pixels = read.preprocess(given)
    assert pixels.shape == (4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(read.probabilities(given)[kind], network(pixel_values=pixels).logits.softmax(-1), rtol=0, atol=1e-6)
        head = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
        torch.testing.assert_close(head(read.embed(given)).softmax(-1), read.probabilities(given)[kind], rtol=0, atol=1e-5)


def test_shortest_edge_and_crop_are_what_transformers_does(tmp_path: Path, folder: Path) -> None:
    asked = {
        "size": {"shortest_edge": 20},
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(asked))
    processor = transformers.CLIPImageProcessor(do_convert_rgb=False, **asked)
    pictures = (images(3, 30, 46) * 127 + 64).round().byte()  # no overshoot of the bicubic to cut
    expected = processor([np.asarray(p.permute(1, 2, 0)) for p in pictures], return_tensors="pt").pixel_values
    met = load_transformers_classifier(folder).preprocess(pictures.float() / 255)
    # Transformers rounds to whole levels after each of the two passes of resizing.
    levels = (met - expected).abs() * torch.tensor(asked["image_std"]).view(3, 1, 1) * 255
    assert levels.max() < 1.6 and levels.mean() < 0.5


def test_half_precision_weights_are_read_as_float32(folder: Path) -> None:
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).half()
    shutil.rmtree(folder)
    network.save_pretrained(folder)
    assert {p.dtype for p in load_transformers_classifier(folder).parameters()} == {torch.float32}


REFUSED = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "damaged config": (lambda f: (f / "config.json").write_text("{"), "not readable JSON"),
    "pickle only": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no .safetensors weights"),
    "code of its own": (lambda f: edit(f, auto_map={"AutoModelForImageClassification": "evil.Model"}), "never run"),
    "another task": (lambda f: edit(f, architectures=["ViTForMaskedImageModeling"]), "is a ViTForMaskedImageModeling"),
    "several labels at once": (lambda f: edit(f, problem_type="multi_label_classification"), "do not exclude each other"),
    "one class": (lambda f: edit(f, id2label={"0": "light"}), "no usable id2label"),
    "two classes of one name": (lambda f: edit(f, id2label={"0": "a", "1": "b", "2": "a"}), "no usable id2label"),
    "unknown kind of model": (lambda f: edit(f, model_type="nosuchmodel"), "could not be loaded"),
    "truncated weights": (lambda f: os.truncate(f / "model.safetensors", 999), "could not be loaded"),
    "weights of a smaller network": (lambda f: edit(f, num_hidden_layers=5), "lacks .* of its network's weights"),
    "a size that is not understood": (lambda f: edit(f, "preprocessor_config.json", size={"longest_edge": 9}), "has the size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(case: str, folder: Path) -> None:
    spoil, says = REFUSED[case]
    spoil(folder)
    with pytest.raises(ValueError, match=says) as caught:
        load_transformers_classifier(folder)
    assert "\n" not in str(caught.value)
