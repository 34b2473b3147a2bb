"""The host's KSampler with distribution guidance, and making again the images that missed their class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..methods.guidance import QUOTA, GuidanceRun, GuidanceSettings
from ..models.adp import AdpFile
from .guidance import apply_guidance

log = logging.getLogger("equipoise")


@dataclass
class Outcome:
    """``cells``: assigned cell per image (None in the soft modes); ``names``: of the cells; ``rounds``: images made again, per repair
    round; ``missed``: images that the classifier still reads otherwise (None without a classifier); ``readings``: last shares read by
    the ADP."""

    cells: list[int] | None
    names: list[str]
    notes: list[str] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    missed: int | None = None
    readings: dict[str, list[float]] = field(default_factory=dict)

    def text(self) -> str:
        """What happened, in a few lines."""
        lines = []
        if self.cells is not None:
            counts = ", ".join(f"{name}: {self.cells.count(i)}" for i, name in enumerate(self.names))
            lines.append(f"assigned {len(self.cells)} images: {counts}")
        for attribute, shares in self.readings.items():
            lines.append(f"last reading of {attribute}: {', '.join(f'{s:.3f}' for s in shares)}")
        for number, count in enumerate(self.rounds, 1):
            lines.append(f"repair round {number}: {count} images made again")
        if self.missed is not None:
            lines.append(f"images that the classifier reads otherwise than assigned: {self.missed}")
        return "\n".join(lines + self.notes)


@dataclass(frozen=True)
class SamplerSettings:
    """KSampler's inputs."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float = 1.0


def ksample(model: Any, s: SamplerSettings, positive: Any, negative: Any, latent: dict[str, Any]) -> dict[str, Any]:
    """The host's own KSampler: LATENT in, LATENT out."""
    import nodes as host_nodes  # the host's module of that name, which exists only inside a running host

    sampler = (s.seed, s.steps, s.cfg, s.sampler_name, s.scheduler)
    return host_nodes.common_ksampler(model, *sampler, positive, negative, latent, denoise=s.denoise)[0]


def guided_ksample(
    model: Any,
    adp: AdpFile,
    guidance: GuidanceSettings,
    sampler: SamplerSettings,
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    classify: Callable[[Tensor], dict[str, Tensor]] | None = None,
    repair: int = 0,
) -> tuple[dict[str, Any], Outcome]:
    """Sample with guidance; up to ``repair`` times make again the images that ``classify(samples)`` reads otherwise than assigned.

    ``classify`` maps latent samples [N, ...] to class probabilities, attribute -> [N, K] in the ADP's class order. An image that is made
    again keeps its place and class and gets a new seed.
    """
    runs: list[GuidanceRun] = []
    out = ksample(apply_guidance(model, adp, guidance, lambda run: runs.append(run.summary())), sampler, positive, negative, latent)
    target = guidance.target.reordered(adp.attributes)
    run = runs[-1] if runs else None
    cells = None if run is None or run.cells is None else run.cells.tolist()
    outcome = Outcome(cells, target.names, list(target.notes), readings=run.readings.shares[-1] if run and run.readings.shares else {})
    wished = sum(share > 0 for share in target.shares)
    if cells is not None and len(cells) < wished:
        outcome.notes.append(f"{len(cells)} images cannot hold all {wished} classes of the target: quotas were rounded by the seed.")
    if run is not None and run.exempt:
        outcome.notes.append("guidance did nothing: all that is drawn here is exempt from it (Exempt From Guidance).")
    elif run is not None and run.unread and cells is not None:
        outcome.notes.append(f"images were given their classes at random from the seed: this ADP does not read {', '.join(run.unread)}.")
    if cells is None:
        if run is not None and guidance.mode == QUOTA and not run.exempt:
            outcome.notes.append("guidance did nothing: no sampling step fell into the noise levels at which this ADP moves images.")
        if repair:
            outcome.notes.append("nothing was repaired: no image was assigned a class.")
    if cells is None or classify is None:
        return out, outcome
    wanted = [target.cell_classes(c) for c in cells]
    for number in range(repair + 1):
        read = {a: p.argmax(-1) for a, p in classify(out["samples"]).items()}
        missed = [i for i, classes in enumerate(wanted) if any(int(read[a][i]) != k for a, k in classes.items())]
        outcome.missed = len(missed)
        if not missed or number == repair:
            break
        outcome.rounds.append(len(missed))
        again = replace(guidance, cells=tuple(cells[i] for i in missed))
        part = ksample(
            apply_guidance(model, adp, again),
            replace(sampler, seed=(sampler.seed + 0x9E3779B97F4A7C15 * (number + 1)) & 0xFFFFFFFFFFFFFFFF),
            positive,
            negative,
            _rows(latent, missed),
        )
        samples = out["samples"].clone()
        samples[torch.tensor(missed)] = part["samples"].to(samples)
        out = {**out, "samples": samples}
    log.info("Distribution Guidance KSampler: %s", outcome.text().replace("\n", "; "))
    return out, outcome


def _rows(latent: dict[str, Any], index: list[int]) -> dict[str, Any]:
    """Some images of a LATENT. Noise of image i depends on its place in the batch, which is why ``batch_index`` is dropped."""
    n = latent["samples"].shape[0]
    picked = {k: v[index] if isinstance(v, Tensor) and v.shape[:1] == (n,) else v for k, v in latent.items()}
    picked.pop("batch_index", None)
    return picked
