"""Contrast attribution: how much of a class's probability every feature carries, against the images of the other classes.

The second pass over a feature set. For class k and feature f, at noise level t and place g, the contrast is the mean of IG_k over images of
class k minus its mean over images of the others (each class counting alike): what is alike in all images cancels. It counts where data and
reader agree: positive where the feature is more active in the class than in the others and its presence raises the class's probability,
negative where it is less active and lowers it (its presence then speaks for the others). A feature that is there more often, but that the
reader subtracts, or the other way round, carries nothing. For two classes the scores of one are those of the other with the other sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.sae import SparseAutoencoder
from ...models.sites import GRID
from .class_activations import ClassMeans, nearest, one_hot
from .code_stream import CodeRows
from .integrated_gradients import predictor_gradients
from .linear_readout import affine_logits, is_affine
from .softmax_path import path_weights

MOST_LEVELS = 64
"""Affine maps kept for as many distinct noise levels; samplers visit a few dozen."""


@dataclass(frozen=True)
class AttributeImages:
    """Images of one attribute, and what the first pass found in them."""

    attribute: str
    """Name of the attribute."""
    classes: Tensor
    """Class of each image, int64 [N]; -1 for none."""
    means: ClassMeans
    """Means and standard errors of the first pass."""
    counts: Tensor | None = None
    """How often each bootstrap resample draws each image, float32 [B, N]; None for no bootstrap."""


class Attribution:
    """Sums of one attribute over the rows that :meth:`add` gets.

    images: the attribute and its images. baseline: "mean" (of the classes, by noise level) or "zero". window: log-SNR from, to, that
    counts. points: of the path, for a predictor that is not linear. Memory: (T + B) K m floats, and K m for every image of a buffer.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        reader: AttributePredictor,
        images: AttributeImages,
        knots: Tensor,
        baseline: str,
        window: tuple[float, float],
        points: int,
    ) -> None:
        attribute, means, counts = images.attribute, images.means, images.counts
        k = len(reader.attributes[attribute])
        self.sae, self.reader, self.attribute, self.points = sae, reader, attribute, points
        self.knots, self.classes, self.counts, self.window = knots, images.classes, counts, window
        raises = torch.stack([centre_gradients(sae, reader, attribute, z, level) for z, level in zip(means.centre, knots, strict=True)])
        signs = torch.stack([means.signs(c) for c in range(k)], 1)
        self._signs = signs * (signs == raises.sign())
        self._baseline = means.centre if baseline == "mean" else torch.zeros_like(means.centre)
        self._scale = _contrast_weights(means.count)
        inside = (knots >= window[0]) & (knots <= window[1])
        share = means.share * inside
        self._share = share / share.sum().clamp(min=1e-12)
        self.by_level = torch.zeros(len(knots), k, sae.latents)
        self._resampled = torch.zeros(len(counts) if counts is not None else 0, k * sae.latents)
        self._images: dict[int, Tensor] = {}
        self._maps: dict[float, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def add(self, rows: CodeRows) -> None:
        """Add the attributions of rows, with their signs."""
        t = nearest(self.knots, rows.level)
        known = self.classes[rows.images] >= 0
        z, images = rows.z[known].flatten(2), rows.images[known]
        if len(z):
            signed = self._signed(z, rows.level, t)
            # A row's weight in every class's contrast: 1 / n for the class's own images, and less than 0 for the others'.
            weighted = signed * (one_hot(self.classes[images], signed.shape[1]) @ self._scale[t])[:, :, None]
            self.by_level[t] += weighted.sum(0)
            if self.counts is not None and self._share[t] > 0:
                for image, value in zip(images.tolist(), self._share[t] * weighted.flatten(1), strict=True):
                    self._images[image] = self._images[image] + value if image in self._images else value
        if rows.last:
            self._resample()

    @property
    def scores(self) -> Tensor:
        """Over all noise levels of the window, every recorded call counting alike: [K, m]."""
        return torch.einsum("t,tkf->kf", self._share, self.by_level)

    @property
    def resampled(self) -> Tensor:
        """The scores of every resample: [B, K, m]."""
        return self._resampled.unflatten(1, (-1, self.sae.latents))

    def _signed(self, z: Tensor, level: float, t: int) -> Tensor:
        """Attribute rows [n, m, 16] to every class, with signs: [n, K, m].

        Summed over the positions that count.
        """
        baseline, signs = self._baseline[t], self._signs[t]
        if not is_affine(self.reader):
            at = torch.full((len(z),), level)
            start = baseline.unflatten(-1, (GRID, GRID)).expand(len(z), -1, -1, -1)
            each = predictor_gradients(self.sae, self.reader, self.attribute, z.unflatten(-1, (GRID, GRID)), at, start, self.points)
            return torch.einsum("nkfg,kfg->nkf", each.flatten(3), signs)
        return affine_attributions(self._affine(level), z, baseline, signs)

    def _affine(self, level: float) -> tuple[Tensor, Tensor]:
        if level not in self._maps:
            if len(self._maps) >= MOST_LEVELS:
                self._maps.pop(next(iter(self._maps)))
            self._maps[level] = affine_logits(self.sae, self.reader, self.attribute, level)
        return self._maps[level]

    def _resample(self) -> None:
        if self.counts is not None and self._images:
            self._resampled.addmm_(self.counts[:, list(self._images)], torch.stack(list(self._images.values())))
        self._images = {}


def affine_attributions(logits: tuple[Tensor, Tensor], z: Tensor, baseline: Tensor, signs: Tensor) -> Tensor:
    """Attribute class probabilities to features in closed form: float32 [N, K, m].

    Summed with signs over the positions.

    logits: the affine map of :func:`.linear_readout.affine_logits` at the level of these activations z [N, m, 16]; baseline [m, 16]; signs
    [K, m, 16]. Logits move on a straight line along the path, so that IG_i = dz_i * sum_j A_ji * c_kj. There A is the predictor seen
    through the decoder, and c_kj = integral of p_k (delta_kj - p_j) depends on the K logits alone.
    """
    a, b = logits
    dz = z - baseline
    start = (a.flatten(1) @ baseline.flatten() + b).expand(len(z), -1)
    c = path_weights(start, dz.flatten(1) @ a.flatten(1).T).to(z)
    # For every feature [N, 16] @ [16, K K]: the sum over places comes first, the classes after it.
    by_pair = torch.bmm(dz.transpose(0, 1), (signs[:, None] * a[None]).flatten(0, 1).permute(1, 2, 0))
    return torch.einsum("nkj,fnkj->nkf", c, by_pair.unflatten(-1, (len(b), len(b))))


@torch.enable_grad()
def centre_gradients(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, z: Tensor, level: Tensor) -> Tensor:
    """Compute whether a feature's presence raises or lowers a class: [K, m, 16].

    Gradients of the log-probabilities with respect to activations z [m, 16], up to a positive factor.
    """
    at = level.view(1)
    x = sae.decode(z.view(1, -1, GRID, GRID), at).detach().requires_grad_(True)
    logs = reader(x, at)[attribute].log_softmax(-1)[0]
    grads = torch.stack([torch.autograd.grad(log, x, retain_graph=True)[0].flatten(2)[0] for log in logs])
    return sae.decoder.detach().float() @ grads


def _contrast_weights(count: Tensor) -> Tensor:
    """Return the weight of a class's rows in a class's contrast: [T, y, k].

    From the number of rows by class [T, K]: the weight of a row of class y in the contrast of class k.
    """
    k = count.shape[1]
    weights = torch.full((k, k), -1.0 / max(1, k - 1)).fill_diagonal_(1.0)
    return weights / count.clamp(min=1)[:, :, None]


def resamples(classes: Tensor, k: int, count: int, seed: int) -> Tensor:
    """Draw bootstrap samples of images: how often each occurs, float32 [count, N].

    Classes keep their sizes (Efron & Tibshirani 1993).
    """
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(count, len(classes))
    for c in range(k):
        members = (classes == c).nonzero().flatten()
        if len(members):
            drawn = torch.randint(len(members), (count, len(members)), generator=generator)
            out.scatter_add_(1, members[drawn], torch.ones(drawn.shape))
    return out


def sure_classes(p: Tensor, sure: float) -> Tensor:
    """Return the class of every image that is sure, else -1: int64 [N].

    ``p``: class probabilities [N, K]. An image is sure if a class has a probability of ``sure``. A class without any sure image takes those
    in which it is the most probable.
    """
    classes, confident = p.argmax(1), p.amax(1) >= sure
    for c in range(p.shape[1]):
        members = classes == c
        if not (members & confident).any():
            confident |= members
    return torch.where(confident, classes, torch.full_like(classes, -1))
