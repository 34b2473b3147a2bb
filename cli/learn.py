"""``equipoise train-adp --learn``: moves of any attribute, fitted through the decoder from a set's own images and labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..factory.make_adp import SITE as SHIPPED_SITE
from ..factory.make_adp import diffusion_of
from ..factory.train_diffusion import depth_to_space
from ..methods.core.trainer import Progress
from ..methods.data.feature_set import FeatureSet
from ..methods.guidance.direction_rows import chosen_images
from ..methods.guidance.fit_moves import FitSettings, fit_moves
from ..methods.guidance.moves import LEARNED
from ..methods.labels.labels import LabelSet, for_entries
from ..models.adm_unet import AdmUNet
from ..models.adp import AdpFile
from .picture_classifier import train_on_pictures
from .pictures import can_make_again, clean_latents

BATCH, IMAGES = 32, 1024
SITE = SHIPPED_SITE[0]


@dataclass(frozen=True)
class Learned:
    """``file``: with the uncalibrated moves among its alternatives; ``lines``: what was found out on the way."""

    file: AdpFile
    lines: list[str]


def learn_file(
    net: AdmUNet,
    adp: AdpFile,
    features: FeatureSet,
    labels: LabelSet,
    steps: int,
    images: Path | None = None,
    seed: int = 0,
    bar: Callable[[str], Progress] | None = None,
    settings: FitSettings | None = None,
) -> Learned:
    """Fit moves of every labelled attribute of an ADP for a model of the test bed.

    At most 1,024 images are used, the classes as evenly as there are images. ``images``: see :func:`.pictures.clean_latents`. ``bar``
    makes the progress of a stage from its name. Raises ValueError where :func:`cannot_learn` has a reason.
    """
    if reason := cannot_learn(net, features, images):
        raise ValueError(reason)
    bar = bar or (lambda name: lambda done, total, figures: None)
    started = time.monotonic()
    table = for_entries(labels, features.entries)
    attributes = {a: adp.attributes[a] for a in table}
    rows = sorted({i for p in table.values() for i in chosen_images(p, IMAGES // len(table))})
    entries = [features.entries[i] for i in rows]
    probabilities = {a: _ordered(p[rows], labels.attributes[a], attributes[a]) for a, p in table.items()}
    clean = clean_latents(net, features, entries, images, bar("making the images again"))
    watch = bar("teaching a classifier")
    classifier, accuracy = train_on_pictures(depth_to_space(clean), probabilities, attributes, seed=seed, progress=watch)
    taught = time.monotonic()
    s = replace(settings or FitSettings(batch=BATCH), steps=steps, seed=seed)
    sites, watch = dict.fromkeys(attributes, (SITE, site_width(net))), bar("learning moves")
    moves = fit_moves(diffusion_of(net, classifier), clean, probabilities, adp.predictor, sites, s, progress=watch, read_at=adp.site)
    read = ", ".join(f"{a} {v:.1%}" for a, v in accuracy.items())
    lines = [
        f"pictures: {len(entries)}, on which a small classifier was trained in {taught - started:.0f} s (held-out accuracy {read})",
        f"moves learned at {SITE} in {time.monotonic() - taught:.0f} s, {steps} steps",
    ]
    others = {a: {**adp.alternatives.get(a, {}), LEARNED: m} for a, m in moves.items()}
    return Learned(replace(adp, alternatives={**adp.alternatives, **others}), lines)


def cannot_learn(net: AdmUNet, features: FeatureSet, images: Path | None = None) -> str | None:
    """Why moves cannot be learned from a set on a model, in a sentence; None where they can."""
    if net.num_classes is not None:
        return "a class-conditional model's images come without their classes here, so no moves are learned on one."
    if not site_width(net):
        return f"moves are learned at '{SITE}' here, and this model's decoder is too short to have it."
    if images is None and not features.image_path(features.entries[0]).is_file() and not can_make_again(features):
        return f"'{features.name}' has no pictures, and its seeds do not give them: name their folder with --images."
    return None


def site_width(net: AdmUNet) -> int:
    """Channels at the site of the learned moves; 0 where the network has no such block."""
    number = int(SITE.removeprefix("output."))
    # What the last block gives is seen by no patch.
    return net.output_blocks[number][0].out_layers[3].out_channels if number + 1 < len(net.output_blocks) else 0


def _ordered(p: Tensor, given: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor:
    """Columns of class probabilities [N, K] in another order of the classes."""
    return p[:, torch.tensor([given.index(c) for c in wanted])]
