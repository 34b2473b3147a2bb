"""Inception features by clean-fid. Its weights cannot be shipped: a small TorchScript network stands in their place, and is said to."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from equipoise.models.inception import CHUNK, WEIGHTS, inception_features, missing_inception
from PIL import Image


class Layers(torch.nn.Module):
    """[B, 3, 299, 299] -> [B, 2048], in the place of Inception's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, [32, 64]).mean(1).flatten(1)


class StandIn(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.jit.script(StandIn()).save(str(tmp_path / WEIGHTS))
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def pictures(n: int, seed: int, size: int = 40) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_without_the_package_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "cleanfid" else real(name, *a))
    assert "pip install clean-fid" in missing_inception(folder)
    with pytest.raises(ValueError, match="not installed"):
        inception_features(pictures(2, 0), folder)


def test_without_weights_it_says_so_and_asks_no_one(tmp_path: Path, no_network: None) -> None:
    pytest.importorskip("cleanfid")
    assert "nothing is downloaded" in missing_inception(tmp_path)
    with pytest.raises(ValueError, match=WEIGHTS):
        inception_features(pictures(2, 0), tmp_path)
    assert not list(tmp_path.iterdir())


def test_features_are_those_that_clean_fid_reads_off_files(folder: Path, no_network: None) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    from cleanfid.inception_torchscript import InceptionV3W

    theirs = InceptionV3W(str(folder), download=False)
    sets = pictures(CHUNK + 3, 1), pictures(20, 2) ** 2
    places = []
    for i, images in enumerate(sets):
        place = folder / str(i)
        place.mkdir()
        for k, image in enumerate((images * 255).round().byte().movedim(1, -1).numpy()):
            Image.fromarray(image).save(place / f"{k:03d}.png")
        places.append(str(place))
    done: list[int] = []
    ours = [inception_features(images, folder, progress=done.append) for images in sets]
    assert done == [0, CHUNK, CHUNK + 3, 0, CHUNK, 20]
    for features, place in zip(ours, places, strict=True):
        expected = fid.get_folder_features(place, theirs, num_workers=0, device=torch.device("cpu"), verbose=False)
        np.testing.assert_allclose(features.numpy(), expected, atol=1e-6)


def test_a_file_that_is_no_network_is_refused_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("cleanfid")
    (tmp_path / WEIGHTS).write_bytes(b"not a network")
    with pytest.raises(ValueError, match="is not clean-fid's Inception network") as caught:
        inception_features(pictures(2, 0), tmp_path)
    assert "\n" not in str(caught.value)
