"""Inception features by clean-fid, where it is installed and its weights lie on this machine: with them FID and KID are those of papers.

Nothing is downloaded, and the weights are looked for in the one folder that is named, never in shared temporary folders. They are
TorchScript; clean-fid's own loader reads them. (torchmetrics' weights are a Python pickle, and are not read.)
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

WEIGHTS = "inception-2015-12-05.pt"
CHUNK = 16


def missing_inception(folder: str | os.PathLike[str]) -> str:
    """Explain why there are no Inception features; "" if there are.

    The text says what to do.
    """
    if importlib.util.find_spec("cleanfid") is None:
        return "Inception features need the package clean-fid (pip install clean-fid), which is not installed."
    if not (Path(folder) / WEIGHTS).is_file():
        return f"Inception features need clean-fid's weights {WEIGHTS}, which are not in that folder; nothing is downloaded."
    return ""


def inception_features(
    images: Tensor,
    folder: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Compute pool features of images as clean-fid does: float32 [N, 2048].

    images [N, 3, H, W] in 0..1; the result is on the CPU.

    Images are rounded to 8 bits and resized by clean-fid's own bicubic filter. progress is called with the number of images done, before
    each chunk and at the end. Raises ValueError with what :func:`missing_inception` says, or where the file is no such network.
    """
    why = missing_inception(folder)
    if why:
        raise ValueError(why)
    network = importlib.import_module("cleanfid.inception_torchscript").InceptionV3W
    resize = importlib.import_module("cleanfid.resize").build_resizer("clean")
    try:
        model = network(os.fspath(folder), download=False).to(device).eval()
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"'{WEIGHTS}' is not clean-fid's Inception network ({str(error).splitlines()[0]}): copy it again.") from error
    parts = []
    with torch.no_grad():
        for chunk in images.split(CHUNK):
            progress(sum(map(len, parts)))
            pixels = (chunk.float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(1, -1).numpy()
            resized = torch.stack([torch.from_numpy(resize(p)).movedim(-1, 0) for p in pixels])
            parts.append(model(resized.to(device)).float().cpu())
    progress(len(images))
    return torch.cat(parts)
