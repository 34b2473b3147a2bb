"""What paths do: the model's answer with the neurons of each image's path removed, or doubled, beside paths drawn at random.

Wang et al., "Discovering Influential Neuron Path in Vision Transformers", ICLR 2025, section 4. Nothing is held: the layers that follow
answer to the change. Where the paper gives a mean alone, intervals over images stand beside it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
"""Ratios of probabilities are taken over at least so much."""


@dataclass(frozen=True)
class PathEffect:
    """One method's paths, removed or doubled. ``joint``, ``additive`` [B]: scores of the paths; ``before``, ``after`` [B]: the target's
    probability; ``flipped`` [B]: share of the draws in which the label changed (one draw but for the control); ``right_before``,
    ``right_after`` [B]: likewise, the label is the true one."""

    method: str
    operation: str
    joint: Tensor
    additive: Tensor
    before: Tensor
    after: Tensor
    flipped: Tensor
    right_before: Tensor
    right_after: Tensor

    @property
    def change(self) -> Tensor:
        """Change of the target's probability, [B]."""
        return self.after - self.before

    @property
    def ratio(self) -> Tensor:
        """The target's probability over what it was, less 1, [B]: the paper's probability deviation."""
        return self.after / self.before.clamp(min=SMALLEST) - 1

    def figures(self, seed: int = 0) -> dict[str, Estimate]:
        """``joint``, ``additive``, ``change``, ``ratio``, ``flipped`` and ``accuracy`` (its change), with 95% intervals over images."""
        accuracy = self.right_after - self.right_before
        named = {"joint": self.joint, "additive": self.additive, "change": self.change, "ratio": self.ratio}
        return {k: estimate(v, seed=seed) for k, v in {**named, "flipped": self.flipped, "accuracy": accuracy}.items()}


def path_effects(
    net: NeuronVit,
    pixels: Tensor,
    targets: Tensor,
    paths: Mapping[str, Tensor],
    truth: Tensor | None = None,
    settings: PathSettings | None = None,
    control_draws: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[PathEffect]:
    """Effects of paths int64 [B, L, K], by method: for each its removal, then its doubling.

    pixels [B, 3, H, W]: preprocessed; targets int64 [B]; truth int64 [B]: true classes, where they are known (else the targets stand in).
    ``control_draws``: random paths for each image, of which the mean is taken as the method "random" (0: none; a method of that name takes
    its place). ``progress`` may raise, which interrupts.

    Raises ValueError, in a sentence, without images or paths, and for paths of another shape.
    """
    if not paths:
        raise ValueError("there are no paths to measure: connect at least one.")
    true = targets if truth is None else truth
    if len(true) != len(pixels):
        raise ValueError(f"{len(pixels)} image(s) need as many true classes and met {len(true)}: give one for each.")
    drawn: dict[str, list[Tensor]] = {name: [path] for name, path in paths.items()}
    if CONTROL not in drawn and control_draws:
        like = next(iter(paths.values()))
        drawn[CONTROL] = [random_like(like, net.neurons, seed + i) for i in range(control_draws)]
    total, done = 3 * sum(map(len, drawn.values())) + 1, 0
    s = replace(settings or PathSettings(), shared=False)

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, {})

    clean = readings(net, pixels)
    step()
    found = []
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
            found.append(_effect(name, operation, joint, additive, clean, edited, targets, true))
    return found


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
    """A line per method and operation: what the paths score, and what taking them away or doubling them does."""
    lines = ["method, operation: joint score, additive part, change of probability, ratio - 1, labels changed, change of accuracy"]
    for e in effects:
        f = e.figures(seed)
        told = ", ".join([*(f[k].text() for k in ("joint", "additive", "change")), *(f[k].text(".1%") for k in ("ratio", "flipped"))])
        lines.append(f"{e.method}, {e.operation}: {told}, {f['accuracy'].text('+.1%')}")
    return "\n".join(lines)
