"""Turn the images of a feature set into clean latents of the test bed: from their pictures, or made again from their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..methods.core.trainer import Progress
from ..methods.data.feature_set import Entry, FeatureSet, iterate_shards
from ..models.adm_unet import AdmUNet
from ..models.pixel_latents import space_to_depth
from .sampling import LATENT, RecordedSite, sample

BATCH = 16
SIDE = 2 * LATENT[-1]


def clean_latents(
    net: AdmUNet, features: FeatureSet, entries: Sequence[Entry], images: Path | None = None, progress: Progress | None = None
) -> Tensor:
    """Return clean latents of some images of a set: float32 [N, 12, 16, 16].

    ``images``: folder of their pictures; None takes the set's own pictures, or samples the images again from their seeds. Raises ValueError
    if a picture is missing or of another size, or if they cannot be made again.
    """
    folder = images
    if folder is None and features.image_path(entries[0]).is_file():
        folder = features.image_path(entries[0]).parents[len(Path(entries[0].file).parts) - 1]
    if folder is not None:
        return space_to_depth(torch.stack([_picture(folder, e.file) for e in entries]))
    return _again(net, features, entries, progress)


def _picture(folder: Path, file: str) -> Tensor:
    """Read a picture: float32 [3, 32, 32] in 0..1."""
    path = Path(folder) / file
    if not path.is_file():
        raise ValueError(f"there is no picture '{file}' in '{folder}': give the folder that 'equipoise sample --out' wrote with --images.")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    if pixels.shape != (SIDE, SIDE, 3):
        raise ValueError(f"'{file}' is {pixels.shape[1]} x {pixels.shape[0]} and images of the test bed are {SIDE} x {SIDE}.")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def can_make_again(features: FeatureSet) -> bool:
    """Return whether a seed gives a set's image again, in any batch.

    :func:`.sampling.sample` must have recorded the set without guidance.
    """
    meta = features.meta
    return meta.get("source") == "samples" and meta.get("sampler") == "ddim" and "steps" in meta and "batch_size" not in meta


def _again(net: AdmUNet, features: FeatureSet, entries: Sequence[Entry], progress: Progress | None) -> Tensor:
    if not can_make_again(features):
        raise ValueError(f"'{features.name}' has no pictures, and its seeds do not give them: name their folder with --images.")
    parts = []
    for start in range(0, len(entries), BATCH):
        chunk = entries[start : start + BATCH]
        made = sample(net, [e.seed for e in chunk], BATCH, int(features.meta["steps"]), record=RecordedSite() if start == 0 else None)
        if start == 0:
            _compare(features, chunk, made.features)
        parts.append(made.latents)
        if progress:
            progress(min(start + BATCH, len(entries)), len(entries), {})
    return torch.cat(parts)


def _compare(features: FeatureSet, entries: Sequence[Entry], made: Tensor) -> None:
    """Raise ValueError if images made again have other features than recorded."""
    stored = {}
    for rows, _, ids in iterate_shards(features.folder, entries):
        for i in ids.unique().tolist():
            stored[i] = rows[ids == i]
    then, now = torch.stack([stored[e.image_id] for e in entries]).float(), made.float()
    if then.shape != now.shape or float((then - now).norm()) > 0.05 * float(then.norm()):
        raise ValueError(f"'{features.name}' was not recorded on this diffusion model: choose the model that it was recorded on.")
