"""Compare the closed form of integrated gradients with autograd, on the same samples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...methods.bias_features.attribution import affine_attributions
from ...methods.bias_features.code_stream import code_rows
from ...methods.bias_features.find import AttributionSettings, find_bias_features
from ...methods.bias_features.linear_readout import CELLS, affine_logits
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.adp import AttributePredictor
from ...models.bias_features import BiasFeatures
from ...models.sae import SaeFile, SparseAutoencoder
from .integrated_gradients import LEFT, MIDPOINT, integrated_gradients

SAMPLES, POINTS, REPEATS = 500, 10, 5
EXACT_SAMPLES, EXACT_POINTS = 60, 256
"""Samples and points of the autograd attribution that the closed form is compared with."""


def attribution_figures(
    features: FeatureSet,
    labels: LabelSet,
    sae: SaeFile,
    reader: AttributePredictor,
    attributes: Sequence[str],
    samples: int = SAMPLES,
    bias: BiasFeatures | None = None,
) -> dict[str, Any]:
    """Measure speed, error and completeness of attribution, and the effect of ablation.

    - ``attribution_speedup``: median seconds of autograd at 10 points, all samples in one batch, divided by those of the closed form; the
      lowest of all attributes;
    - ``attribution_error``: largest relative difference from autograd at 256 points, by norm and sample;
    - ``completeness_error``: largest over all samples;
    - ``by_attribute``: all of these by attribute;
    - ``ablation``: attribute -> class -> figures of ``Ablation.result``.

    ``reader``: a linear predictor. ``bias``: bias features of the set, if they are known already. Both rules attribute the probability of
    every class to every feature, summed over the cells of the grid, in float32 on torch's threads. The closed form is the one that Find
    Bias Features calls, noise level by noise level, its affine maps included.
    """
    z, level = sample_codes(features, sae.sae, samples)
    by_attribute = {a: _compare(sae.sae, reader, a, z, level) for a in attributes}
    bias = bias or find_bias_features(features, labels, sae, reader, attributes, AttributionSettings(resamples=0))
    return {
        "attribution_speedup": min(r["speedup"] for r in by_attribute.values()),
        "attribution_error": max(r["error"] for r in by_attribute.values()),
        "completeness_error": max(r["completeness"] for r in by_attribute.values()),
        "by_attribute": by_attribute,
        "samples": len(z),
        "threads": torch.get_num_threads(),
        "ablation": {a: bias.info["attributes"][a]["ablation"] for a in attributes},
    }


def sample_codes(features: FeatureSet, sae: SparseAutoencoder, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw one row at a random noise level from each of up to ``samples`` images.

    Returns activations [N, m, 4, 4] and log-SNR [N].
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(features.entries), generator=generator)[:samples].tolist()
    entries = [features.entries[i] for i in order]
    best = torch.full((len(entries),), -1.0)
    z: Tensor | None = None
    level = torch.zeros(len(entries))
    for rows in code_rows(features, entries, sae):
        z = torch.zeros(len(entries), *rows.z.shape[1:]) if z is None else z
        # The row with the largest of as many random numbers is any of them with the same chance.
        drawn = torch.rand(len(rows.images), generator=generator)
        taken = drawn > best[rows.images]
        images = rows.images[taken]
        best[images], z[images], level[images] = drawn[taken], rows.z[taken], rows.level
    assert z is not None
    return z, level


def _compare(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, z: Tensor, level: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        p = reader(sae.decode(z, level), level)[attribute].softmax(-1)
        start = reader(sae.decode(torch.zeros_like(z), level), level)[attribute].softmax(-1)

    def closed() -> Tensor:
        return closed_form(sae, reader, attribute, z, level)

    def autograd() -> Tensor:
        return integrated_gradients(sae, reader, attribute, z, level, points=POINTS, rule=LEFT).sum((-2, -1))

    ours, theirs = _seconds(closed, autograd)
    attributed, rough, change = closed(), autograd(), (p - start).double()
    some = slice(0, EXACT_SAMPLES)
    exact = integrated_gradients(sae, reader, attribute, z[some], level[some], None, EXACT_POINTS, MIDPOINT).sum((-2, -1))
    error = (attributed[some] - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1).clamp(min=1e-12)
    off = (rough - attributed).flatten(1).norm(dim=1) / attributed.flatten(1).norm(dim=1).clamp(min=1e-12)
    return {
        "speedup": round(theirs / ours, 1),
        "seconds": round(ours, 4),
        "autograd_seconds": round(theirs, 4),
        "error": float(error.max()),
        "completeness": float((attributed.double().sum(2) - change).abs().max()),
        "autograd_10_error": round(float(off.median()), 4),
        "autograd_10_completeness": round(float((rough.double().sum(2) - change).abs().max()), 4),
    }


@torch.no_grad()
def closed_form(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, z: Tensor, level: Tensor) -> Tensor:
    """Attribute class probabilities to features as the product does: float32 [N, K, m].

    From a baseline of zeros.
    """
    classes = len(reader.attributes[attribute])
    out = z.new_zeros(len(z), classes, sae.latents)
    zero, signs = z.new_zeros(sae.latents, CELLS), z.new_ones(classes, sae.latents, CELLS)
    for at in level.unique().tolist():
        rows = level == at
        out[rows] = affine_attributions(affine_logits(sae, reader, attribute, at), z[rows].flatten(2), zero, signs)
    return out


def _seconds(*rules: Callable[[], Tensor]) -> list[float]:
    """Return the median seconds of each rule.

    The rules take turns, and the first round does not count.
    """
    times: list[list[float]] = [[] for _ in rules]
    for repeat in range(REPEATS + 1):
        for run, seconds in zip(rules, times, strict=True):
            begun = time.perf_counter()
            run()
            if repeat:
                seconds.append(time.perf_counter() - begun)
    return [statistics.median(seconds) for seconds in times]
