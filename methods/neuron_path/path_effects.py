"""Effects of neuron paths: how the model's reading changes if the neurons of a path are removed or doubled, compared with random paths.

Wang et al., "Discovering Influential Neuron Path in Vision Transformers", ICLR 2025, section 4. The layers that follow respond to the
change. The paper gives means; this module adds intervals over images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...models.neuron_vit import NeuronVit
from ..core.trainer import Progress
from .image_estimates import Estimate, estimate, images_at_once, random_like, readings
from .neuron_edits import SCALE, ZERO, NeuronEdit
from .path_settings import PathSettings
from .search import score_paths

REMOVAL, DOUBLING = "removal", "doubling"
OPERATIONS = (REMOVAL, DOUBLING)
CONTROL = "random"
SMALLEST = 1e-6
"""Lower limit of the denominator in ratios of probabilities."""


@dataclass(frozen=True)
class PathEffect:
    """What one operation on the paths of one method does to each of B images."""

    method: str
    """Name of the method that found the paths, or "random"."""

    operation: str
    """"removal" or "doubling"."""

    joint: Tensor
    """Joint scores of the paths, [B]."""

    additive: Tensor
    """Additive scores of the paths, [B]."""

    before: Tensor
    """Probability of the target without the operation, [B]."""

    after: Tensor
    """Probability of the target with the operation, [B]."""

    flipped: Tensor
    """Share of the draws in which the label changed, [B]; all but the control have one draw."""

    right_before: Tensor
    """Share of the draws in which the label is the true class without the operation, [B]."""

    right_after: Tensor
    """Share of the draws in which the label is the true class with the operation, [B]."""

    @property
    def change(self) -> Tensor:
        """Return the change of the target's probability, [B]."""
        return self.after - self.before

    @property
    def ratio(self) -> Tensor:
        """Return the ratio of the target's probabilities minus 1, [B]: the paper's probability deviation."""
        return self.after / self.before.clamp(min=SMALLEST) - 1

    def figures(self, seed: int = 0) -> dict[str, Estimate]:
        """Return the means with 95% intervals over images.

        The keys are joint, additive, change, ratio, flipped and accuracy (its change).
        """
        accuracy = self.right_after - self.right_before
        named = {"joint": self.joint, "additive": self.additive, "change": self.change, "ratio": self.ratio}
        return {k: estimate(v, seed=seed) for k, v in {**named, "flipped": self.flipped, "accuracy": accuracy}.items()}


@dataclass(frozen=True)
class PathEffectSettings:
    """How the effects of paths are measured."""

    scores: PathSettings = field(default_factory=PathSettings)
    """Settings of the paths' scores; ``shared`` is not used."""

    control_draws: int = 5
    """Random paths for each image, whose mean is the method "random"; 0 for none. A method of that name takes its place."""

    seed: int = 0
    """Seed of the random paths."""


def path_effects(
    net: NeuronVit,
    pixels: Tensor,
    targets: Tensor,
    paths: Mapping[str, Tensor],
    settings: PathEffectSettings | None = None,
    truth: Tensor | None = None,
    progress: Progress | None = None,
) -> list[PathEffect]:
    """Measure paths int64 [B, L, K], by method: for each its removal, then its doubling.

    pixels [B, 3, H, W] are preprocessed; targets int64 [B] are the classes of the paths; truth int64 [B] holds the true classes (None: the
    targets). ``progress`` may raise, which interrupts.

    Raises ValueError without images or paths, and for paths of another shape.
    """
    use = settings or PathEffectSettings()
    if not paths:
        raise ValueError("there are no paths to measure: connect at least one.")
    true = targets if truth is None else truth
    if len(true) != len(pixels):
        raise ValueError(f"{len(pixels)} image(s) need as many true classes and met {len(true)}: give one for each.")
    drawn: dict[str, list[Tensor]] = {name: [path] for name, path in paths.items()}
    if CONTROL not in drawn and use.control_draws:
        like = next(iter(paths.values()))
        drawn[CONTROL] = [random_like(like, net.neurons, use.seed + i) for i in range(use.control_draws)]
    total, done = 3 * sum(map(len, drawn.values())) + 1, 0
    s = replace(use.scores, shared=False)

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, {})

    clean = readings(net, pixels)
    step()
    effects = []
    for name, draws in drawn.items():
        scores = []
        for path in draws:
            parts = zip(*(x.split(images_at_once(net, s.memory_mb)) for x in (pixels, targets, path)), strict=True)
            scores.append([score_paths(net, x, t, p, s) for x, t, p in parts])
            step()
        joint, additive = (
            torch.stack([torch.cat([getattr(f, k).float().cpu() for f in parts]) for parts in scores]).mean(0)
            for k in ("joint", "additive")
        )
        for operation in OPERATIONS:
            edited = []
            for path in draws:
                edited.append(readings(net, pixels, NeuronEdit(path, ZERO if operation == REMOVAL else SCALE)))
                step()
            effects.append(_effect(name, operation, joint, additive, clean, edited, targets, true))
    return effects


def _effect(
    method: str, operation: str, joint: Tensor, additive: Tensor, clean: Tensor, edited: list[Tensor], targets: Tensor, truth: Tensor
) -> PathEffect:
    label = clean.argmax(1)

    def of_target(p: Tensor) -> Tensor:
        return p.gather(1, targets.cpu()[:, None])[:, 0]

    def share(hits: list[Tensor]) -> Tensor:
        return torch.stack([h.float() for h in hits]).mean(0)

    return PathEffect(
        method,
        operation,
        joint,
        additive,
        of_target(clean),
        torch.stack([of_target(p) for p in edited]).mean(0),
        share([p.argmax(1) != label for p in edited]),
        share([label == truth.cpu()]),
        share([p.argmax(1) == truth.cpu() for p in edited]),
    )


def effect_table(effects: list[PathEffect], seed: int = 0) -> str:
    """Write a table with a line per method and operation."""
    lines = ["method, operation: joint score, additive part, change of probability, ratio - 1, labels changed, change of accuracy"]
    for e in effects:
        f = e.figures(seed)
        figures = ", ".join([*(f[k].text() for k in ("joint", "additive", "change")), *(f[k].text(".1%") for k in ("ratio", "flipped"))])
        lines.append(f"{e.method}, {e.operation}: {figures}, {f['accuracy'].text('+.1%')}")
    return "\n".join(lines)
