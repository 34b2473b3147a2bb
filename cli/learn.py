"""``equipoise train-adp --learn``: fit moves of any attribute through the decoder, to a set's own images and labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..methods.core.trainer import Progress
from ..methods.data.feature_set import FeatureSet
from ..methods.guidance.direction_rows import images_for_directions
from ..methods.guidance.fit_moves import Diffusion, FitImages, FitSettings, SitePredictor, fit_moves
from ..methods.guidance.moves import LEARNED
from ..methods.labels.labels import LabelSet, for_entries
from ..models.adm_unet import AdmUNet
from ..models.adp import AdpFile
from ..models.attribute_classifier import AttributeClassifier
from ..models.class_order import in_class_order, matched
from ..models.pixel_latents import depth_to_space
from .picture_classifier import train_on_pictures
from .pictures import can_make_again, clean_latents
from .schedule import alphas_cumprod, velocity

BATCH, IMAGES = 32, 1024
SITE = "output.1"
"""Site of the moves: the end of the 4x4 level. Of the middle block and this, on a model in training, equally long fits for eyeglasses gave
90% and 100% of images as assigned."""


@dataclass(frozen=True)
class LearnedVectors:
    """Hold the result of :func:`learn_moves`."""

    adp: AdpFile
    """ADP with the uncalibrated moves among its alternatives."""
    lines: list[str]
    """Lines of the report."""


def shipped_diffusion(net: AdmUNet, labeller: AttributeClassifier) -> Diffusion:
    """Adapt a network of the test bed to what a fit needs."""
    abar = alphas_cumprod()

    def output(x: Tensor, t: int, options: dict) -> Tensor:
        return net(x, torch.full((len(x),), float(t)), y=options.get("y"), transformer_options=options)

    def clean(x: Tensor, out: Tensor, t: int) -> Tensor:
        return abar[t].sqrt() * x - (1 - abar[t]).sqrt() * out

    def logits(latents: Tensor) -> dict[str, Tensor]:
        return labeller(labeller.preprocess(torch.nn.functional.pixel_shuffle(latents, 2) / 2 + 0.5))

    return Diffusion(output, velocity, clean, logits, abar)


def learn_moves(
    net: AdmUNet,
    adp: AdpFile,
    features: FeatureSet,
    labels: LabelSet,
    settings: FitSettings,
    pictures: Path | None = None,
    progress_of: Callable[[str], Progress] | None = None,
) -> LearnedVectors:
    """Fit moves of every labelled attribute of an ADP.

    For a model of the test bed.

    At most 1,024 images are used, the classes as evenly as there are images. ``pictures``: folder, see :func:`.pictures.clean_latents`.
    ``progress_of`` makes the progress of a stage from its name. Raises ValueError if :func:`cannot_learn` has a reason.
    """
    reason = cannot_learn(net, features, pictures)
    if reason:
        raise ValueError(reason)
    progress_of = progress_of or (lambda name: lambda done, total, figures: None)
    started = time.monotonic()
    table = for_entries(labels, features.entries)
    attributes = {a: adp.attributes[a] for a in table}
    rows = sorted({i for p in table.values() for i in images_for_directions(p, IMAGES // len(table))})
    entries = [features.entries[i] for i in rows]
    order = matched(attributes, labels.attributes, "the ADP", "the label set", "use the labels that the ADP was trained on")
    probabilities = in_class_order({a: p[rows] for a, p in table.items()}, order)
    clean = clean_latents(net, features, entries, pictures, progress_of("making the images again"))
    teaching = progress_of("teaching a classifier")
    classifier, accuracy = train_on_pictures(depth_to_space(clean), probabilities, attributes, seed=settings.seed, progress=teaching)
    taught = time.monotonic()
    images, reads = FitImages(clean, probabilities), SitePredictor(adp.predictor, adp.site)
    sites = dict.fromkeys(attributes, (SITE, site_width(net)))
    moves = fit_moves(shipped_diffusion(net, classifier), images, reads, sites, settings, progress_of("learning moves"))
    read = ", ".join(f"{a} {v:.1%}" for a, v in accuracy.items())
    lines = [
        f"trained a small classifier on {len(entries)} pictures in {taught - started:.0f} s (held-out accuracy: {read})",
        f"learned moves at {SITE} in {time.monotonic() - taught:.0f} s, {settings.steps} steps",
    ]
    others = {a: {**adp.alternatives.get(a, {}), LEARNED: m} for a, m in moves.items()}
    return LearnedVectors(replace(adp, alternatives={**adp.alternatives, **others}), lines)


def cannot_learn(net: AdmUNet, features: FeatureSet, pictures: Path | None = None) -> str | None:
    """Return why moves cannot be learned from a set; None if they can."""
    if net.num_classes is not None:
        return "a feature set does not keep the classes of a class-conditional model's images, so no moves are learned on such a model."
    if not site_width(net):
        return f"moves are learned at '{SITE}', and this model's decoder is too short to have that site."
    if pictures is None and not features.image_path(features.entries[0]).is_file() and not can_make_again(features):
        return f"'{features.name}' has no pictures, and its seeds do not give them: name their folder with --images."
    return None


def site_width(net: AdmUNet) -> int:
    """Return the channels at the site of the learned moves.

    0 if the network has no such block.
    """
    number = int(SITE.removeprefix("output."))
    # No patch sees the output of the last block.
    return net.output_blocks[number][0].out_layers[3].out_channels if number + 1 < len(net.output_blocks) else 0
