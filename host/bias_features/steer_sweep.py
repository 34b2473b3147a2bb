"""Steer Sweep: sample the same noise at several strengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...methods.bias_features.run import SteerSettings
from ..core.sampling import draw
from ..core.trials import SamplingInputs
from ..core.types import Vae
from ..data.recorder import Watcher
from ..labels.classifier import HostClassifier
from ..labels.judge import known_attributes
from .apply import apply_steering
from .trials import SteerFiles


@dataclass(frozen=True)
class Sweep:
    """Images of the same noise at several strengths."""

    strengths: tuple[float, ...]
    """The strengths [P], ascending."""
    images: Tensor
    """[P, N, H, W, 3] in 0..1 on the CPU, by strength."""
    shares: tuple[float, ...] | None
    """Share of images that show the class [P], by a classifier; None without one."""


def strengths_between(lowest: float, highest: float, points: int) -> tuple[float, ...]:
    """Space strengths evenly, both ends included.

    Rounded so that 0 is 0.

    Raises ValueError if they do not ascend.
    """
    if not lowest < highest or points < 2:
        raise ValueError(
            f"a sweep goes from a lower to a higher strength in 2 points or more, not from {lowest:g} to {highest:g} in {points}: change "
            "lowest, highest or points."
        )
    step = (highest - lowest) / (points - 1)
    return tuple(round(lowest + i * step, 4) + 0.0 for i in range(points))


def steer_sweep(
    files: SteerFiles,
    sampling: SamplingInputs,
    settings: SteerSettings,
    strengths: Sequence[float],
    vae: Vae,
    asyrp: bool = False,
    classifier: HostClassifier | None = None,
) -> Sweep:
    """Sample the latents once per strength, all from the noise of the sampler's seed.

    ``settings.strength`` is not used.

    Raises ValueError, before anything is sampled, if the files do not fit the model, or the classifier does not know the attribute; the
    host's exception if the user interrupts.
    """
    attribute, class_name = _single_class(settings)
    if classifier is not None:
        check_judge(classifier, attribute, class_name)
    model, sampler = sampling.model, sampling.sampler
    steered = [apply_steering(model, files.sae, files.bias, replace(settings, strength=s), files.adp, asyrp) for s in strengths]
    start = sampling.start()
    watcher, pictures = Watcher(model, len(strengths), "Steer Sweep"), []
    for steered_model in steered:
        watcher.next_batch()
        samples = draw(steered_model, sampler, sampling.positive, sampling.negative, {**sampling.latent, "samples": start}, watcher.step)
        pictures.append(vae.decode(samples)[..., :3].float().cpu())
    images = torch.stack(pictures)
    return Sweep(tuple(strengths), images, None if classifier is None else _shares(images, classifier, attribute, class_name))


def check_judge(classifier: HostClassifier, attribute: str, class_name: str) -> None:
    """Raise ValueError if a classifier does not know a class."""
    if class_name not in classifier.attributes.get(attribute, ()):
        raise ValueError(
            f"the classifier '{classifier.name}' does not know the class '{class_name}' of '{attribute}'; it knows "
            f"{known_attributes(classifier)}: connect one that does, or none."
        )


def _single_class(settings: SteerSettings) -> tuple[str, str]:
    """Return the one attribute and class of a sweep's target."""
    target = settings.target
    (cell,) = [cell for cell, share in zip(target.cells, target.shares, strict=True) if share > 0]
    ((attribute, class_name),) = zip(target.attributes, cell, strict=True)
    return attribute, class_name


def _shares(images: Tensor, classifier: HostClassifier, attribute: str, class_name: str) -> tuple[float, ...]:
    read = classifier.probabilities(images.flatten(0, 1))[attribute].argmax(-1).view(images.shape[:2])
    hit = read == classifier.attributes[attribute].index(class_name)
    return tuple(hit.float().mean(1).tolist())
