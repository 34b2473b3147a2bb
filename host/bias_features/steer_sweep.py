"""Steer Sweep: the same noise sampled at a row of strengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...methods.bias_features.run import SteerSettings
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures
from ...models.sae import SaeFile
from ..core.sampling import SamplerSettings, draw
from ..core.versions import fitting_latent
from ..data.recorder import Watcher
from ..labels.classifier import HostClassifier
from .apply import apply_steering


@dataclass(frozen=True)
class Sweep:
    """``images`` [P, N, H, W, 3] in 0..1 on the CPU, by strength; ``shares`` [P]: of the class, as a classifier counts it (None without
    one); ``strengths`` [P], ascending."""

    strengths: tuple[float, ...]
    images: Tensor
    shares: tuple[float, ...] | None


def strengths_between(lowest: float, highest: float, points: int) -> tuple[float, ...]:
    """Strengths at even steps, both ends included, rounded so that 0 is 0. Raises ValueError where they do not ascend."""
    if not lowest < highest or points < 2:
        raise ValueError(f"a sweep goes from a lower to a higher strength in 2 points or more; met {lowest:g} to {highest:g} in {points}.")
    step = (highest - lowest) / (points - 1)
    return tuple(round(lowest + i * step, 4) + 0.0 for i in range(points))


def steer_sweep(
    model: Any,
    sae: SaeFile,
    bias: BiasFeatures,
    settings: SteerSettings,
    strengths: Sequence[float],
    sampler: SamplerSettings,
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    vae: Any,
    adp: AdpFile | None = None,
    asyrp: bool = False,
    classifier: HostClassifier | None = None,
) -> Sweep:
    """Sample ``latent`` once per strength, all with the noise of ``sampler.seed``; ``settings.strength`` is not used.

    Raises ValueError, before anything is sampled, where the files do not fit the model, or the classifier does not know the attribute;
    the host's exception where the user interrupts.
    """
    ((attribute, class_name),) = _single_class(settings)
    if classifier is not None:
        check_judge(classifier, attribute, class_name)
    models = [apply_steering(model, sae, bias, replace(settings, strength=s), adp, asyrp) for s in strengths]
    start = fitting_latent(model, latent)
    watcher, pictures = Watcher(model, len(strengths)), []
    for steered in models:
        watcher.next_batch()
        samples = draw(steered, sampler, positive, negative, {**latent, "samples": start}, watcher.step)
        pictures.append(vae.decode(samples)[..., :3].float().cpu())
    images = torch.stack(pictures)
    return Sweep(tuple(strengths), images, None if classifier is None else _shares(images, classifier, attribute, class_name))


def check_judge(classifier: HostClassifier, attribute: str, class_name: str) -> None:
    """Raise ValueError where a classifier does not read a class."""
    if class_name not in classifier.attributes.get(attribute, ()):
        known = "; ".join(f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items())
        raise ValueError(
            f"the classifier '{classifier.name}' does not know the class '{class_name}' of '{attribute}'; it knows {known}: connect one "
            "that does, or none."
        )


def _single_class(settings: SteerSettings) -> list[tuple[str, str]]:
    """The one attribute and class that a sweep's target names."""
    target = settings.target
    (cell,) = [cell for cell, share in zip(target.cells, target.shares, strict=True) if share > 0]
    return list(zip(target.attributes, cell, strict=True))


def _shares(images: Tensor, classifier: HostClassifier, attribute: str, class_name: str) -> tuple[float, ...]:
    read = classifier.probabilities(images.flatten(0, 1))[attribute].argmax(-1).view(images.shape[:2])
    hit = read == classifier.attributes[attribute].index(class_name)
    return tuple(hit.float().mean(1).tolist())
