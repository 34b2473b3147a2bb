"""What ``bench guidance`` measures: methods, targets, batch sizes and the scales that are tried; plain data, no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...methods.guidance.losses import CHI_SQUARE, KL

BASE, SAMPLE, MIXING, LATENT, UNIVERSAL, OURS = "base", "sample", "label-mixing", "latent-editing", "universal", "ours"
QUOTA = "+quota"
"""After the name of a per-image method: its classes are not drawn independently, but by our quotas."""
SOFT = (CHI_SQUARE, KL)
"""The paper's losses on the soft mean of a batch."""
PER_IMAGE = (SAMPLE, MIXING, LATENT, UNIVERSAL)
"""Methods that bring one image to one class, whatever the others in its batch are."""
METHODS = (BASE, *SOFT, *(m for kind in PER_IMAGE for m in (kind, kind + QUOTA)), OURS)

UNCONDITIONAL, TEXT = "unconditional", "text"
"""The shipped models: prompts can be mixed only where there are prompts."""

FIRST = "eyeglasses 0.5"
TARGETS = {
    FIRST: "eyeglasses: yes=0.5, no=0.5",
    "eyeglasses 0.8": "eyeglasses: yes=0.8, no=0.2",
    "skin tone uniform": "skin_tone: uniform",
    "eyeglasses x hair uniform": "eyeglasses x hair: uniform",
    "eyeglasses x hair skewed": "eyeglasses x hair: yes/long=0.4, yes/short=0.1, no/long=0.1, no/short=0.4",
}
BALANCED = {"eyeglasses 0.8": FIRST, "eyeglasses x hair skewed": "eyeglasses x hair uniform"}
"""The target on which the scale of a per-image method is found, where it is another: what it does to an image does not hang on shares."""
BATCHES, QUICK_BATCHES = (1, 2, 4, 16, 64), (1, 16)
TARGET_BATCH = 16
"""Batch size of the targets besides the first."""
IMAGES, QUICK_IMAGES = 256, 64
TRIAL_IMAGES, QUICK_TRIAL_IMAGES = 128, 32

SEED, TRIAL_SEED = 902_000_000, 906_000_000
"""First seeds, counted on by batch: of what is reported, and of the trials that choose scales. Nothing else used them."""

SCALES: dict[str, tuple[float, ...]] = {
    CHI_SQUARE: (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    KL: (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    SAMPLE: (3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0),
    LATENT: (0.5, 1.0, 1.5, 2.0, 3.0),
    UNIVERSAL: (1.0, 3.0, 10.0, 30.0, 100.0),
}
"""Scales that are tried, in each method's own units. The paper's losses: see ``GuidanceRun._soft_step``, whose step does not change with
the batch size; sample guidance: the same per image; latent editing: times what calibration found; universal guidance: times the score."""
FURTHER: dict[str, tuple[float, ...]] = {
    CHI_SQUARE: (10.0, 30.0, 100.0),
    KL: (10.0, 30.0, 100.0),
    SAMPLE: (30.0, 100.0),
    LATENT: (4.5, 7.0, 10.0),
    UNIVERSAL: (300.0, 1000.0),
}
"""Tried one after another in a full run, as long as the last one tried is the best."""
QUICK_SCALES: dict[str, tuple[float, ...]] = {
    CHI_SQUARE: (3e-2, 3e-1, 3.0),
    KL: (3e-2, 3e-1, 3.0),
    SAMPLE: (3e-2, 3e-1, 3.0),
    LATENT: (1.0, 1.5, 2.0),
    UNIVERSAL: (3.0, 10.0, 30.0),
}
SLACK = 0.01
"""Scales within a point of the best count as equally good, and the smallest of them is taken: it spoils images least."""


@dataclass(frozen=True)
class Cell:
    """Images of one method. ``target``: a name in ``TARGETS``, None for plain ones; ``bed``: which model; ``seed``: of the first batch."""

    method: str
    target: str | None
    batch: int
    images: int
    strength: float = 1.0
    bed: str = UNCONDITIONAL
    seed: int = SEED

    @property
    def kind(self) -> str:
        """The method, whichever way classes are drawn."""
        return self.method.removesuffix(QUOTA)

    @property
    def by_quota(self) -> bool:
        """Whether the images of a batch depend on each other by quotas."""
        return self.method == OURS or self.method.endswith(QUOTA)

    @property
    def dependent(self) -> bool:
        """Whether whole batches have to be resampled for an interval, and not images."""
        return self.by_quota or self.kind in SOFT

    @property
    def name(self) -> str:
        """Its name in a file system."""
        stage = "trial" if self.seed == TRIAL_SEED else "cell"
        words = [stage, self.bed, self.method.replace(QUOTA, "-by-quota"), self.target or "plain", f"batch-{self.batch}"]
        words += [f"{self.strength:g}"] if self.kind in SCALES else []
        return re.sub(r"[^a-z0-9.]+", "-", " ".join(words))

    @property
    def plain(self) -> Cell:
        """Plain images of the same model, batch size and seeds."""
        return Cell(BASE, None, self.batch, self.images, bed=self.bed, seed=self.seed)


Key = tuple[str, str, int]
"""A method's kind, target and batch size: for what a scale is chosen."""


def target_batches(quick: bool) -> Iterator[tuple[str, int]]:
    """Targets and batch sizes of the run: the first target at every batch size, the others at one."""
    yield from ((FIRST, batch) for batch in (QUICK_BATCHES if quick else BATCHES))
    if not quick:
        yield from ((target, TARGET_BATCH) for target in TARGETS if target != FIRST)


def key_of(kind: str, target: str, batch: int) -> Key:
    """For what the scale of a method is chosen: the paper's losses for every target and batch size, the others for the attributes."""
    return (kind, target, batch) if kind in SOFT else (kind, BALANCED.get(target, target), TARGET_BATCH)


def trials(quick: bool) -> dict[Key, list[Cell]]:
    """What is sampled to choose scales, by what they are chosen for, in ascending order of the scale."""
    images, trials_by_key = QUICK_TRIAL_IMAGES if quick else TRIAL_IMAGES, {}
    for kind, scales in (QUICK_SCALES if quick else SCALES).items():
        method = kind if kind in SOFT else kind + QUOTA
        for target, batch in target_batches(quick):
            key = key_of(kind, target, batch)
            trials_by_key[key] = [Cell(method, key[1], key[2], images, scale, seed=TRIAL_SEED) for scale in scales]
    return trials_by_key


def next_trial(of_key: Sequence[Cell], figures: Mapping[float, float]) -> Cell | None:
    """The next trial for a method (``of_key``: what was tried, ``figures``: scale -> figure): None where the largest scale is not the
    best, and where no larger one is foreseen."""
    last = of_key[-1]
    if at_edge(figures) != last.strength:
        return None
    scale = next((s for s in FURTHER[last.kind] if s > last.strength), None)
    return None if scale is None else replace(last, strength=scale)


def at_edge(figures: Mapping[float, float]) -> float | None:
    """The largest scale where none has a lower figure, the smallest where all others have a higher one (a scale beyond might do better);
    else None."""
    best = [scale for scale, figure in figures.items() if figure == min(figures.values())]
    if max(figures) in best:
        return max(figures)
    return min(figures) if best == [min(figures)] else None


def best_scale(tried: Mapping[float, float]) -> float:
    """The smallest scale whose figure (scale -> figure, the lower the better) is within ``SLACK`` of the lowest."""
    lowest = min(tried.values())
    return min(scale for scale, figure in tried.items() if figure <= lowest + SLACK)


def cells(quick: bool, scales: Mapping[Key, float], text: bool = True) -> Iterator[Cell]:
    """All that is reported. ``scales``: what was chosen; ``text``: whether there is a model with prompts. Beside mixed prompts stand plain
    images of that model and, for the first target, ours."""
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
