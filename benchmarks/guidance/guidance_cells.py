"""List the methods, targets, batch sizes and scales of ``bench guidance``, without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...methods.guidance.losses import CHI_SQUARE, KL

BASE, SAMPLE, MIXING, LATENT, UNIVERSAL, OURS = "base", "sample", "label-mixing", "latent-editing", "universal", "ours"
QUOTA = "+quota"
"""Ending of a per-image method's name: our quotas decide its classes. Without it, each class is drawn independently."""
SOFT = (CHI_SQUARE, KL)
"""The paper's losses on the soft mean of a batch."""
PER_IMAGE = (SAMPLE, MIXING, LATENT, UNIVERSAL)
"""Methods that move one image to one class, independently of the other images in its batch."""
METHODS = (BASE, *SOFT, *(m for kind in PER_IMAGE for m in (kind, kind + QUOTA)), OURS)

UNCONDITIONAL, TEXT = "unconditional", "text"
"""The shipped models. Prompts can be mixed only on a model that has prompts."""

FIRST = "eyeglasses 0.5"
TARGETS = {
    FIRST: "eyeglasses: yes=0.5, no=0.5",
    "eyeglasses 0.8": "eyeglasses: yes=0.8, no=0.2",
    "skin tone uniform": "skin_tone: uniform",
    "eyeglasses x hair uniform": "eyeglasses x hair: uniform",
    "eyeglasses x hair skewed": "eyeglasses x hair: yes/long=0.4, yes/short=0.1, no/long=0.1, no/short=0.4",
}
BALANCED = {"eyeglasses 0.8": FIRST, "eyeglasses x hair skewed": "eyeglasses x hair uniform"}
"""Target -> target on which the scale of a per-image method is chosen, if it is another one. Shares do not change what the method does to
an image.
"""
BATCHES, QUICK_BATCHES = (1, 2, 4, 16, 64), (1, 16)
TARGET_BATCH = 16
"""Batch size of all targets but the first."""
IMAGES, QUICK_IMAGES = 256, 64
TRIAL_IMAGES, QUICK_TRIAL_IMAGES = 128, 32

SEED, TRIAL_SEED = 902_000_000, 906_000_000
"""First seeds of the reported images and of the trials that choose scales; each batch adds 1. Nothing else used these seeds."""

SCALES: dict[str, tuple[float, ...]] = {
    CHI_SQUARE: (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    KL: (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    SAMPLE: (3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0),
    LATENT: (0.5, 1.0, 1.5, 2.0, 3.0),
    UNIVERSAL: (1.0, 3.0, 10.0, 30.0, 100.0),
}
"""Scales that are tried, in each method's own units.

The paper's losses: see ``GuidanceRun._soft_step``, whose step does not depend on the batch size. Sample guidance: the same per image.
Latent editing: a factor of the calibrated sizes. Universal guidance: a factor of the score.
"""
FURTHER: dict[str, tuple[float, ...]] = {
    CHI_SQUARE: (10.0, 30.0, 100.0),
    KL: (10.0, 30.0, 100.0),
    SAMPLE: (30.0, 100.0),
    LATENT: (4.5, 7.0, 10.0),
    UNIVERSAL: (300.0, 1000.0),
}
"""Scales that a full run tries one after another, as long as the last scale is the best."""
QUICK_SCALES: dict[str, tuple[float, ...]] = {
    CHI_SQUARE: (3e-2, 3e-1, 3.0),
    KL: (3e-2, 3e-1, 3.0),
    SAMPLE: (3e-2, 3e-1, 3.0),
    LATENT: (1.0, 1.5, 2.0),
    UNIVERSAL: (3.0, 10.0, 30.0),
}
SLACK = 0.01
"""Scales within a point of the best count as equally good. The smallest of them is taken, because it damages images least."""


@dataclass(frozen=True)
class Cell:
    """Images of one method."""

    method: str
    """Name of the method."""
    target: str | None
    """Name in ``TARGETS``, None for plain images."""
    batch: int
    """Images per run."""
    images: int
    """Images of all runs."""
    strength: float = 1.0
    """Scale of the method."""
    bed: str = UNCONDITIONAL
    """Model."""
    seed: int = SEED
    """Seed of the first batch."""

    @property
    def kind(self) -> str:
        """Return the method's name without the ending for quotas."""
        return self.method.removesuffix(QUOTA)

    @property
    def by_quota(self) -> bool:
        """Tell whether quotas make the images of a batch depend on each other."""
        return self.method == OURS or self.method.endswith(QUOTA)

    @property
    def dependent(self) -> bool:
        """Tell whether an interval has to resample whole batches instead of images."""
        return self.by_quota or self.kind in SOFT

    @property
    def name(self) -> str:
        """Return the cell's name for files."""
        stage = "trial" if self.seed == TRIAL_SEED else "cell"
        words = [stage, self.bed, self.method.replace(QUOTA, "-by-quota"), self.target or "plain", f"batch-{self.batch}"]
        words += [f"{self.strength:g}"] if self.kind in SCALES else []
        return re.sub(r"[^a-z0-9.]+", "-", " ".join(words))

    @property
    def plain(self) -> Cell:
        """Return the cell of plain images with the same model, batch size and seeds."""
        return Cell(BASE, None, self.batch, self.images, bed=self.bed, seed=self.seed)


Key = tuple[str, str, int]
"""Kind of method, target and batch size: a scale is chosen for each of them."""


def target_batches(quick: bool) -> Iterator[tuple[str, int]]:
    """List the targets with their batch sizes: the first at every size, others at one."""
    yield from ((FIRST, batch) for batch in (QUICK_BATCHES if quick else BATCHES))
    if not quick:
        yield from ((target, TARGET_BATCH) for target in TARGETS if target != FIRST)


def key_of(kind: str, target: str, batch: int) -> Key:
    """Return the key that a method's scale is chosen for.

    The paper's losses have a scale for every target and batch size, the other methods for every set of attributes.
    """
    return (kind, target, batch) if kind in SOFT else (kind, BALANCED.get(target, target), TARGET_BATCH)


def trials(quick: bool) -> dict[Key, list[Cell]]:
    """List the cells that are sampled to choose scales, by key, in ascending order."""
    images, trials_by_key = QUICK_TRIAL_IMAGES if quick else TRIAL_IMAGES, {}
    for kind, scales in (QUICK_SCALES if quick else SCALES).items():
        method = kind if kind in SOFT else kind + QUOTA
        for target, batch in target_batches(quick):
            key = key_of(kind, target, batch)
            trials_by_key[key] = [Cell(method, key[1], key[2], images, scale, seed=TRIAL_SEED) for scale in scales]
    return trials_by_key


def next_trial(of_key: Sequence[Cell], figures: Mapping[float, float]) -> Cell | None:
    """Return the next larger scale to try, or None.

    There is none if the largest scale is not the best, or if no larger scale is listed. ``of_key``: cells tried so far; ``figures``: scale
    -> figure.
    """
    last = of_key[-1]
    if at_edge(figures) != last.strength:
        return None
    scale = next((s for s in FURTHER[last.kind] if s > last.strength), None)
    return None if scale is None else replace(last, strength=scale)


def at_edge(figures: Mapping[float, float]) -> float | None:
    """Return the best scale if it is the largest or smallest one, else None.

    A scale beyond the edge might be better. The largest counts if no scale has a lower figure, the smallest if all others have a higher
    one.
    """
    best = [scale for scale, figure in figures.items() if figure == min(figures.values())]
    if max(figures) in best:
        return max(figures)
    return min(figures) if best == [min(figures)] else None


def best_scale(tried: Mapping[float, float]) -> float:
    """Return the smallest scale whose figure is within ``SLACK`` of the lowest."""
    lowest = min(tried.values())
    return min(scale for scale, figure in tried.items() if figure <= lowest + SLACK)


def cells(quick: bool, scales: Mapping[Key, float], text: bool = True) -> Iterator[Cell]:
    """List all cells that are reported.

    ``scales``: the chosen scales; ``text``: whether there is a model with prompts. On that model mixed prompts are compared with plain
    images and, for the first target, with ours.
    """
    images = QUICK_IMAGES if quick else IMAGES
    for target, batch in target_batches(quick):
        if target == FIRST:
            yield Cell(BASE, None, batch, images)
        for method in METHODS[1:]:
            kind = method.removesuffix(QUOTA)
            if kind != MIXING:
                strength = scales[key_of(kind, target, batch)] if kind in SCALES else 1.0
                yield Cell(method, target, batch, images, strength)
        if text:
            yield from (Cell(method, target, batch, images, bed=TEXT) for method in (MIXING, MIXING + QUOTA))
            if target == FIRST:
                yield Cell(BASE, None, batch, images, bed=TEXT)
                yield Cell(OURS, target, batch, images, bed=TEXT)
