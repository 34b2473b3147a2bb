"""Ablation: how far the reading of a class falls when its features are removed from h, against random features of equal activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.bias_features import BiasFeatures
from ...models.sae import SparseAutoencoder
from .code_stream import CodeRows
from .linear_readout import scale_at

RANDOM_SETS = 20
INTERVAL = (0.025, 0.975)


class Ablation:
    """Adds up rows of images that took no part in the ranking.

    classes: of each image int64 [N], -1 for none. lists: of each class, the latents to take out. mass: activation of every latent in the
    images of each class, summed over places, float32 [K, m]: random sets are drawn until they reach that of the list.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        reader: AttributePredictor,
        attribute: str,
        classes: Tensor,
        lists: Sequence[Tensor],
        mass: Tensor,
        seed: int = 0,
    ) -> None:
        self.sae, self.reader, self.attribute, self.classes, self.seed = sae, reader, attribute, classes, seed
        generator = torch.Generator().manual_seed(seed)
        self.sets = [[chosen, *(random_set(mass[k], chosen, generator) for _ in range(RANDOM_SETS))] for k, chosen in enumerate(lists)]
        self._drops = [torch.zeros(len(classes), 1 + RANDOM_SETS, dtype=torch.float64) for _ in lists]
        self._rows = torch.zeros(len(classes))
        self.removed = torch.zeros(len(lists), 1 + RANDOM_SETS, dtype=torch.float64)

    @torch.no_grad()
    def add(self, rows: CodeRows) -> None:
        """Add rows of one noise level.

        The drops of every image's own class are summed by image.
        """
        for k, sets in enumerate(self.sets):
            mine = self.classes[rows.images] == k
            if not mine.any() or not len(sets[0]):
                continue
            h, z, images = rows.h[mine], rows.z[mine].flatten(2), rows.images[mine]
            level = torch.full((len(h),), rows.level)
            scale = scale_at(self.sae, level)[:1]
            # The decoder's part of each set, without a bias; the first is nothing, and all are read at once.
            parts = [torch.zeros_like(h)]
            for s, chosen in enumerate(sets):
                out = z[:, chosen]
                parts.append(scale * torch.einsum("nfg,fc->ncg", out, self.sae.decoder[chosen].float()).view_as(h))
                self.removed[k, s] += float(out.sum())
            edited = (h - torch.stack(parts)).flatten(0, 1)
            p = self.reader(edited, level.repeat(len(parts)))[self.attribute].softmax(-1)[:, k].view(len(parts), -1)
            self._drops[k].index_add_(0, images, (p[0] - p[1:]).T.double())
            self._rows.index_add_(0, images, torch.ones(len(images)))

    def result(self, names: Sequence[str], resamples: int = 1000) -> dict[str, Mapping[str, Any]]:
        """Summarise the ablation by class.

        class -> ``top`` and ``random`` (mean fall of the class's probability, [mean, low, high], 95% by resampling images), ``difference``
        (of the two, paired by image), ``features``, ``images``, and the ``activation`` that was removed at random, relative to that of the
        list. Classes without a list or images are left out.
        """
        results = {}
        generator = torch.Generator().manual_seed(self.seed)
        for k, name in enumerate(names):
            images = ((self.classes == k) & (self._rows > 0)).nonzero().flatten()
            if not len(images) or not len(self.sets[k][0]):
                continue
            drops = self._drops[k][images] / self._rows[images, None]
            top, other = drops[:, 0], drops[:, 1:].mean(1)
            drawn = torch.randint(len(images), (resamples, len(images)), generator=generator)
            results[name] = {
                "top": _interval(top, drawn),
                "random": _interval(other, drawn),
                "difference": _interval(top - other, drawn),
                "features": len(self.sets[k][0]),
                "images": len(images),
                "activation": round(float(self.removed[k, 1:].mean() / self.removed[k, 0].clamp(min=1e-12)), 3),
            }
        return results


def random_set(mass: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Draw features at random with as much activation as the chosen ones.

    They are other features than the chosen ones, int64. ``mass``: activation of every feature [m].
    """
    order = torch.randperm(len(mass), generator=generator)
    order = order[~torch.isin(order, chosen) & (mass[order] > 0)]
    reached = mass[order].cumsum(0)
    return order[: 1 + int((reached < mass[chosen].sum()).sum())]


def _interval(values: Tensor, drawn: Tensor) -> list[float]:
    means = values[drawn].mean(1)
    low, high = (float(means.quantile(q)) for q in INTERVAL)
    return [round(float(values.mean()), 4), round(low, 4), round(high, 4)]


def ablation_lines(bias: BiasFeatures, attribute: str) -> list[str]:
    """Describe how removing the features changes the reading, a line per class."""
    results = bias.info.get("attributes", {}).get(attribute, {}).get("ablation", {})
    return [
        f"{attribute} {name}: without its {r['features']} features the probability falls by {_in_words(r['top'])}, without random features "
        f"of equal activation by {_in_words(r['random'])} ({r['images']} images)"
        for name, r in results.items()
    ]


def _in_words(interval: Sequence[float]) -> str:
    mean, low, high = interval
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
