"""Model files of every kind, damaged in ways that hypothesis draws: read as they are, or refused in a sentence; never anything else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp, random_move
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise.models.adm_unet import AdmConfig, AdmUNet, build_unet
from equipoise.models.adp import load_adp, save_adp
from equipoise.models.attribute_classifier import ConvNet, VisionTransformer, VitSizes, load_classifier, save_classifier
from equipoise.models.bias_features import load_bias_features, save_bias_features
from equipoise.models.files import parameters_of, read_safetensors, write_safetensors
from equipoise.models.neuron_path import NeuronPathFile, load_neuron_path, save_neuron_path
from equipoise.models.noise_level import at_level
from equipoise.models.sae import load_sae, save_sae
from equipoise.models.sites import GRID
from equipoise.models.zero_shot_head import ZeroShotHead, load_zero_shot_head, save_zero_shot_head
from equipoise_mutations import bad_input, damaged
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "medium", "long")}
MOST = 64 * 2**20
"""Bytes that one tensor of these small files may take when they are read: their metadata must not decide it."""


class TooLarge(BaseException):
    """A tensor was made that nothing in the file calls for; no Exception, so that no reader takes it for damage."""


class Watch(TorchDispatchMode):
    """Raises TooLarge for every tensor above MOST."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta" and tensor.numel() * tensor.element_size() > MOST:
                raise TooLarge(f"{func} made {list(tensor.shape)}")
        return out


def sentence(error: Exception, name: str) -> str:
    """One sentence on one line that names the file, tells a cause, and what to do."""
    text = str(error)
    assert f"'{name}'" in text and "\n" not in text and text.endswith("."), text
    assert 40 < len(text) < 1200 and not re.search(r"alloc|Traceback|0x[0-9a-f]{6}", text), text
    return text


@dataclass(frozen=True)
class Kind:
    """``make(path)`` writes a small file, ``read(path)`` reads it and does with it what a node does first."""

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    examples: int


def make_adp(path: Path, kind: str) -> None:
    file = random_adp(ATTRIBUTES, 8, {"hair": ("output.1", 4)}, "tiny", kind)
    learned = random_move(2, 4, "output.1", from_to=False)
    file = replace(file, alternatives={"eyeglasses": {"learned": learned}}, info={"accuracy_mid": {"eyeglasses": 0.9}})
    save_adp(file, path)


def read_adp(path: Path) -> None:
    file = load_adp(path)
    assert file.text() and file.site_channels is not None
    level = torch.tensor([-3.0, 3.0])
    if file.predictor is not None:
        read = file.predictor(torch.ones(2, file.predictor.channels, GRID, GRID), level)
        assert all(bool(v.isfinite().all()) for v in read.values())
    for by_source in file.sources().values():
        for move in by_source.values():
            moved = at_level(move.vectors, move.knots, level) * at_level(move.sizes, move.knots, level)[:, :, None, None, None, None]
            assert move.window and bool(moved.isfinite().all())


def read_sae(path: Path) -> None:
    file = load_sae(path)
    assert file.text() and len(file.digest) == 16
    h, level = torch.ones(2, file.sae.channels, 2, 2), torch.tensor([-3.0, 3.0])
    assert bool(file.sae(h, level).isfinite().all())


def read_bias(path: Path) -> None:
    file = load_bias_features(path)
    assert file.text() and file.channels > 0
    for a in file.attributes.values():
        assert all(a.best(c) is not None for c in a.classes)
        assert not len(a.features) or 0 <= int(a.features.min()) <= int(a.features.max()) < file.latents
        for p in a.profiles.values():
            assert p.window and bool(at_level(p.delta, p.knots, torch.tensor([0.5])).isfinite().all())


def read_classifier(path: Path) -> None:
    model = load_classifier(path)
    read = model.probabilities(torch.rand(2, 3, 9, 11))
    assert {a: p.shape for a, p in read.items()} == {a: (2, len(c)) for a, c in model.attributes.items()}
    assert all(bool(p.isfinite().all()) for p in read.values())


def read_diffusion(path: Path) -> None:
    tensors, meta = read_safetensors(path)
    try:
        net = build_unet(tensors, meta)
    except ValueError as error:
        raise ValueError(f"'{path.name}' is refused: {error}") from error  # as the host's loader says it
    side = max(net.config.downscale, 4)
    x = torch.ones(1, net.config.in_channels, side, side)
    y = None if net.num_classes is None else torch.zeros(1, dtype=torch.long)
    assert net(x, torch.tensor([10.0]), y=y).shape[1] == net.config.out_channels


def read_head(path: Path) -> None:
    head = load_zero_shot_head(path)
    assert head.text() and head.width and math.isfinite(head.scale)


def make_paths(path: Path) -> None:
    figures = torch.rand(2)
    file = NeuronPathFile("jas", "hair", ("short", "long"), ("short", "long"), torch.randint(0, 9, (2, 3, 2)), torch.rand(2, 3, 2),
                          torch.rand(2, 3, 2), figures, figures, figures, 9, "abc", info={"model": "x"})  # fmt: skip
    save_neuron_path(file, path)


def read_paths(path: Path) -> None:
    file = load_neuron_path(path)
    assert file.text() and len(file.targets()) == file.images and len(file.rows([0]).path) == 1
    assert all(file.of_class(c).images for c in file.classes)


def small_vit() -> VisionTransformer:
    return VisionTransformer(ATTRIBUTES, image_size=8, sizes=VitSizes(patch=4, dim=8, depth=1, num_heads=2, mlp=8))


def make_diffusion(path: Path) -> None:
    config = AdmConfig(in_channels=3, out_channels=3, model_channels=32, channel_mult=(1,), num_res_blocks=1, attention=(True,),
                       num_head_channels=32, num_classes=3)  # fmt: skip
    write_safetensors(path, parameters_of(AdmUNet(config)), {"num_head_channels": "32", "null_label": "2", "image_size": "8"})


KINDS = {
    "ADP": Kind(lambda p: make_adp(p, "mlp"), read_adp, 120),
    "linear ADP": Kind(lambda p: make_adp(p, "linear"), read_adp, 60),
    "autoencoder": Kind(lambda p: save_sae(random_sae(4, "middle", "tiny", latents=16, k=2), p), read_sae, 100),
    "bias features": Kind(
        lambda p: save_bias_features(random_bias(random_sae(4, "middle", "tiny", latents=64, k=2), ATTRIBUTES, 3), p), read_bias, 120
    ),
    "transformer": Kind(lambda p: save_classifier(small_vit(), p), read_classifier, 90),
    "convolutional": Kind(lambda p: save_classifier(ConvNet(ATTRIBUTES, 8, (8,)), p), read_classifier, 60),
    "diffusion": Kind(make_diffusion, read_diffusion, 50),
    "zero-shot head": Kind(
        lambda p: save_zero_shot_head(ZeroShotHead("hair", ("short", "long"), torch.rand(2, 4)), p), read_head, 80
    ),
    "neuron paths": Kind(make_paths, read_paths, 100),
}


@pytest.mark.parametrize("what", sorted(KINDS))
def test_a_damaged_file_is_read_or_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    kind, whole, file = KINDS[what], tmp_path / "whole.safetensors", tmp_path / "damaged.safetensors"
    torch.manual_seed(0)
    kind.make(whole)
    kind.read(whole)
    content, refused = whole.read_bytes(), 0

    @bad_input(kind.examples)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        nonlocal refused
        file.write_bytes(damaged(data.draw, content))
        try:
            with Watch(), torch.no_grad():
                kind.read(file)
        except ValueError as error:
            sentence(error, file.name)
            refused += 1

    one()
    assert kind.examples // 4 < refused < 2 * kind.examples  # most damage shows; some, such as another note, is no damage
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.name, whole.name]
