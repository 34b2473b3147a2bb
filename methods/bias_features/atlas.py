"""Which features an atlas shows, what it says of each, and which recorded images excite a feature most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.bias_features import AttributeFeatures
from ...models.sae import SaeFile
from ...models.sites import average
from ..core.trainer import Progress
from ..data.feature_set import FeatureSet
from .class_activations import nearest
from .code_stream import check_set, count_rows, row_buffers

HEAT = 8
"""Larger maps are averaged to as many places across."""
MAP_VALUES = 2**24


@dataclass(frozen=True)
class Excitement:
    """The images that excite one feature most."""

    feature: int
    """Number of the feature."""
    images: tuple[int, ...]
    """Indices of the set's entries, most excited first."""
    heat: Tensor
    """Mean activation over the recorded noise levels by place, float32 [n, h, w]."""
    knots: Tensor
    """Log-SNR [T] at which rows were recorded."""
    by_level: Tensor
    """Mean activation over images and places at each, [T]."""


def exciting_images(
    features: FeatureSet, sae_file: SaeFile, chosen: Sequence[int], count: int = 5, progress: Progress | None = None
) -> list[Excitement]:
    """Find the ``count`` images of a set that excite each chosen feature most.

    At the position where the mean activation over noise levels is highest. Reads the set once; memory: 64 floats for every image and
    feature. Raises ValueError if the set and the autoencoder do not fit, or a feature does not exist.
    """
    check_set(features, sae_file)
    sae, entries = sae_file.sae, features.entries
    wrong = next((f for f in chosen if not 0 <= f < sae.latents), None)
    if wrong is not None or not chosen or count < 1:
        raise ValueError(
            f"features are numbered from 0 to {sae.latents - 1}, and at least one of them and one image are to be shown; met "
            f"{'none' if wrong is None else wrong}."
        )
    distinct = sorted(set(chosen))
    latents = torch.tensor(distinct)
    row_of = torch.zeros(1 + max(e.image_id for e in entries), dtype=torch.long)
    row_of[[e.image_id for e in entries]] = torch.arange(len(entries))
    knots = sae.knots.float().cpu()
    heat: Tensor | None = None
    rows_of, by_level, at_knot = torch.zeros(len(entries)), torch.zeros(len(knots), len(latents)), torch.zeros(len(knots))
    done, total = 0, count_rows(features, entries)
    for rows, level, ids in row_buffers(features, entries):
        size = max(1, MAP_VALUES // (len(latents) * rows[0, 0].numel()))
        near = torch.tensor([nearest(knots, at) for at in level.tolist()])
        for part in torch.arange(len(level)).split(size):
            with torch.no_grad():
                z = _small(sae.active(rows[part].float(), level[part], latents))
            heat = z.new_zeros(len(entries), *z.shape[1:]) if heat is None else heat
            images = row_of[ids[part]]
            heat.index_add_(0, images, z)
            rows_of.index_add_(0, images, torch.ones(len(part)))
            by_level.index_add_(0, near[part], z.mean((2, 3)))
            at_knot.index_add_(0, near[part], torch.ones(len(part)))
            done += len(part)
            if progress:
                progress(min(done, total), total, {})
    if heat is None:
        raise ValueError(f"the feature set '{features.name}' holds no rows: record images first.")
    heat /= rows_of.clamp(min=1)[:, None, None, None]
    seen = at_knot > 0
    profile = by_level[seen] / at_knot[seen, None]
    best = heat.flatten(2).amax(2).topk(min(count, len(entries)), dim=0).indices
    of = {}
    for i, f in enumerate(distinct):
        of[f] = Excitement(f, tuple(best[:, i].tolist()), heat[best[:, i], i].clone(), knots[seen], profile[:, i].clone())
    return [of[f] for f in chosen]


def _small(z: Tensor) -> Tensor:
    return average(z, min(HEAT, z.shape[2]), min(HEAT, z.shape[3])) if max(z.shape[2:]) > HEAT else z


def chosen_features(features: AttributeFeatures, class_name: str, count: int) -> list[int]:
    """Choose the features to show, best first.

    Returns indices into the list ``features``. If class_name is "", the best of every class come in turn. Raises ValueError for a class
    that is not there, and if no feature speaks for it.
    """
    names = [class_name] if class_name else list(features.classes)
    lists = [features.best(name).tolist() for name in names]
    turns = [row[i] for i in range(max(map(len, lists))) for row in lists if i < len(row)]
    chosen = list(dict.fromkeys(turns))[:count]
    if not chosen:
        raise ValueError(f"no feature speaks for {' or '.join(names)} in these bias features: name another class, or none.")
    return chosen


def feature_notes(features: AttributeFeatures, index: int) -> list[str]:
    """Describe one feature in short lines.

    Its class, its stability, and, if they were measured, its side effects and its effect alone.
    """
    named = class_of(features, index)
    best = features.class_index(named)
    notes = [f"for {named}", f"stable {float(features.stability[best, index]):.0%}"]
    side_effect, alone = float(features.side_effect[index]), float(features.causal[best, index])
    if math.isfinite(side_effect):
        notes.append(f"others x {side_effect:.1f}")
    if math.isfinite(alone):
        notes.append(f"alone {100 * alone:+.0f} pt")
    return notes


def note_legend(features: AttributeFeatures) -> list[str]:
    """Explain the words of :func:`feature_notes` that occur, a line each."""
    lines = ["stable: share of resamples in which it is among the best of its class"]
    if features.side_effect.isfinite().any():
        lines.append("others: effect on other attributes, relative to this one")
    if features.causal.isfinite().any():
        lines.append("alone: change of the share of its class when it alone is turned")
    return lines


def class_scores(features: AttributeFeatures, index: int) -> dict[str, float]:
    """Return the score of one feature by class."""
    return {name: float(features.scores[k, index]) for k, name in enumerate(features.classes)}


def class_of(features: AttributeFeatures, index: int) -> str:
    """Return the class that one feature speaks for most."""
    return features.classes[int(features.scores[:, index].argmax())]
