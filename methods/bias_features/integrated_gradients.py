"""Integrated gradients of an attribute's class probability with respect to an autoencoder's features, for a predictor of any kind.

Sundararajan et al. 2017: IG_i = (z_i - z'_i) * integral over a in 0..1 of dF_k(z' + a (z - z')) / dz_i, with F_k(z) the probability of
class k that a predictor gives the reconstruction decode(z), as in DiffLens (Shi et al., CVPR 2025). Their sum over features is F(z) - F(z')
(completeness). For a linear predictor no gradient is needed: see :func:`.attribution.affine_attributions`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.sae import SparseAutoencoder
from ...models.sites import GRID
from .linear_readout import scale_at

POINTS = 32


def predictor_gradients(
    sae: SparseAutoencoder,
    predictor: AttributePredictor,
    attribute: str,
    z: Tensor,
    level: Tensor,
    baseline: Tensor,
    points: int = POINTS,
) -> Tensor:
    """Attribute every class's probability to every feature and cell, by gradients at Gauss-Legendre points.

    z, baseline: activations averaged to the grid, [N, m, 4, 4]; level: log-SNR [N]. Returns float32 [N, K, m, 4, 4]. The path is straight
    in the predictor's input too, so that its gradients are averaged there and taken through the decoder once.
    """
    with torch.no_grad():
        start, change = sae.decode(baseline, level), sae.delta(z - baseline, level)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total: Tensor | None = None
    with torch.enable_grad():
        for point, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
            x = (start + point * change).requires_grad_(True)
            grad = class_gradients(predictor(x, level)[attribute].softmax(-1), x)
            total = weight * grad if total is None else total.add_(grad, alpha=weight)
    scaled = total.flatten(-2) * scale_at(sae, level).view(-1, 1, 1, 1)
    out = (sae.decoder.float().detach() @ scaled).mul_((z - baseline).flatten(2)[:, None])
    return out.unflatten(-1, (GRID, GRID))


def class_gradients(p: Tensor, x: Tensor) -> Tensor:
    """Compute the gradients of class probabilities: [N, K, ...].

    p [N, K] with respect to x [N, ...].
    """
    each = [torch.autograd.grad(p[:, k].sum(), x, retain_graph=k + 1 < p.shape[1])[0] for k in range(p.shape[1])]
    return torch.stack(each, 1)
