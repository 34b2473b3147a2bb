"""Which features have an effect: gradients of the labels through the decoder, with respect to activations.

Attribution by a reader says which features tell an attribute; a reading is not an effect. Here the U-Net's decoder runs on, and what is
asked is how the labeller's cross-entropy on the predicted clean image changes when an activation is turned, by noise level, place and
class. It costs a few dozen passes, once, and says which features are worth fitting a profile for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.sae import SparseAutoencoder
from ...models.sites import GRID, MIDDLE
from ..core.trainer import Progress
from ..guidance.fit_moves import Diffusion, move_knots
from .fit_profiles import ProfileHook

BATCHES, BATCH = 40, 24


def decoder_effects(
    model: Diffusion,
    sae: SparseAutoencoder,
    site: str,
    clean: Tensor,
    classes: Mapping[str, int],
    predictor: AttributePredictor | None,
    label_range: tuple[float, float] = (-5.0, 1.5),
    batches: int = BATCHES,
    batch: int = BATCH,
    read_at: str = MIDDLE,
    conditioning: Tensor | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Effect of every latent on each attribute: attribute -> float32 [m], the norm of the summed gradient over levels, classes and places.

    clean [N, C, H, W]: latents of the model's own images; classes: attribute -> K. Levels run evenly over ``label_range`` (log-SNR).
    ``conditioning`` [N] as in :func:`.fit_moves.fit_moves`. Gradients of opposite signs cancel: what differs from image to image is noise.
    """
    generator, knots, m = torch.Generator().manual_seed(seed), move_knots(), sae.latents
    read = () if predictor is None else predictor.attributes
    everything = torch.arange(m)
    found: dict[str, Tensor] = {}
    for number, (attribute, k) in enumerate(classes.items()):
        shape = (len(knots), k, k if attribute in read else 1, m, GRID, GRID)
        turned = torch.zeros(shape, device=model.device, requires_grad=True)
        hook = ProfileHook(sae, site, {attribute: everything}, {attribute: turned}, predictor, model.device, read_at)
        total = torch.zeros(shape, device=model.device)
        for i in range(batches):
            wanted_level = label_range[0] + (label_range[1] - label_range[0]) * (i + 0.5) / batches
            t = int((model.levels - wanted_level).abs().argmin())
            index = torch.randint(0, len(clean), (batch,), generator=generator)
            start = clean[index].float()
            noise = torch.randn(start.shape, generator=generator).to(model.device)
            x = model.noised(start.to(model.device), noise, t)
            wanted = torch.randint(0, k, (batch,), generator=generator)
            options = hook.options(float(model.levels[t]), {attribute: wanted}, {attribute: torch.ones(batch)})
            if conditioning is not None:
                options["y"] = conditioning[index]
            logits = model.logits(model.clean(x, model.output(x, t, options), t))[attribute]
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, wanted.to(logits.device)) * model.scale, turned)
            if gradient.isfinite().all():
                total += gradient / model.scale
            if progress:
                progress(number * batches + i + 1, len(classes) * batches, {})
        found[attribute] = total.pow(2).sum((0, 1, 2, 4, 5)).sqrt().cpu()
    return found
