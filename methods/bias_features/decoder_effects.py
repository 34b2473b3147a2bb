"""Measure which features have an effect: gradients of the labels through the decoder, with respect to activations.

Attribution by a predictor says which features indicate an attribute; an indication is not an effect. Here the U-Net's decoder runs on, and
the gradient says how the labeller's cross-entropy on the predicted clean image changes when an activation is turned, by noise level,
position and class. It costs a few dozen passes, once, and shows which features are worth a profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.sae import SparseAutoencoder
from ...models.sites import GRID
from ..core.trainer import Progress
from ..guidance.fit_moves import Diffusion, FitImages, SitePredictor, move_knots
from .fit_profiles import ProfileHook


@dataclass(frozen=True)
class EffectSettings:
    """Set how effects are measured."""

    label_range: tuple[float, float] = (-5.0, 1.5)
    """Log-SNR over which the levels run evenly."""
    batches: int = 40
    """Batches per attribute."""
    batch: int = 24
    """Images per batch."""
    seed: int = 1
    """Seed of all random numbers."""


def decoder_effects(
    model: Diffusion,
    sae: SparseAutoencoder,
    site: str,
    images: FitImages,
    classes: Mapping[str, int],
    reads: SitePredictor,
    settings: EffectSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Measure the effect of every feature on each attribute: attribute -> float32 [m].

    The effect is the norm of the summed gradient over levels, classes and positions. Gradients of opposite signs cancel: what differs from
    image to image is noise. ``classes``: attribute -> K.
    """
    s, clean = settings or EffectSettings(), images.clean
    generator, knots, m = torch.Generator().manual_seed(s.seed), move_knots(), sae.latents
    everything = torch.arange(m)
    effects: dict[str, Tensor] = {}
    for number, (attribute, k) in enumerate(classes.items()):
        shape = (len(knots), k, k if attribute in reads.attributes else 1, m, GRID, GRID)
        turned = torch.zeros(shape, device=model.device, requires_grad=True)
        hook = ProfileHook(sae, site, {attribute: everything}, {attribute: turned}, reads, model.device)
        total = torch.zeros(shape, device=model.device)
        for i in range(s.batches):
            wanted_level = s.label_range[0] + (s.label_range[1] - s.label_range[0]) * (i + 0.5) / s.batches
            t = int((model.levels - wanted_level).abs().argmin())
            index = torch.randint(0, len(clean), (s.batch,), generator=generator)
            start = clean[index].float()
            noise = torch.randn(start.shape, generator=generator).to(model.device)
            x = model.noised(start.to(model.device), noise, t)
            wanted = torch.randint(0, k, (s.batch,), generator=generator)
            options = hook.options(float(model.levels[t]), {attribute: wanted}, {attribute: torch.ones(s.batch)})
            if images.conditioning is not None:
                options["y"] = images.conditioning[index]
            logits = model.logits(model.clean(x, model.output(x, t, options), t))[attribute]
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, wanted.to(logits.device)) * model.scale, turned)
            if gradient.isfinite().all():
                total += gradient / model.scale
            if progress:
                progress(number * s.batches + i + 1, len(classes) * s.batches, {})
        effects[attribute] = total.pow(2).sum((0, 1, 2, 4, 5)).sqrt().cpu()
    return effects
