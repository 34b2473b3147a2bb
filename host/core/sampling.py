"""The host's KSampler with distribution guidance, and making again the images that missed their class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...methods.guidance.run import QUOTA, GuidanceRun, GuidanceSettings
from ...models.adp import AdpFile
from ..guidance.apply import apply_guidance
from ..ledger.ledgers import LedgerHandle
from .passes.pass_cache import Unfinished
from .passes.passes import draw_in_passes
from .passes.shared_batch import Together

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
    *,
    images_per_pass: int = 0,
    key: str | None = None,
    ledger: LedgerHandle | None = None,
) -> tuple[dict[str, Any], Outcome]:
    """Sample with guidance; up to ``repair`` times make again the images that ``classify(samples)`` reads otherwise than assigned.

    ``classify`` maps latent samples [N, ...] to class probabilities, attribute -> [N, K] in the ADP's class order. An image that is made
    again keeps its place and class and gets a new seed. ``images_per_pass``: how many are drawn at once (0: all), with quotas over all.
    ``key``: of the run, under which finished passes are kept until all are drawn (None: they are not kept).
    ``ledger``: quotas come from what it has counted.
    """
    runs: list[GuidanceRun] = []
    n = latent["samples"].shape[0]
    passes = -(-n // images_per_pass) if images_per_pass > 0 else 1
    unfinished = Unfinished(key) if key and passes > 1 else None
    batch = Together(n, [] if unfinished is None else unfinished.decided())
    guided = apply_guidance(model, adp, guidance, lambda run: runs.append(run.summary()), ledger)
    kept_keys: list[str] = []

    def draw(rows: list[int], begun: dict[str, Any], s: SamplerSettings, keep: Unfinished | None = None) -> Tensor:
        def sample(m: Any, positive: Any, negative: Any, part: dict[str, Any]) -> Tensor:
            drawn = ksample(m, s, positive, negative, part)
            kept_keys[:] = drawn
            return drawn["samples"]

        return draw_in_passes(guided, sample, positive, negative, begun, rows, images_per_pass, s.seed, batch, keep)

    with batch:
        samples = draw(list(range(n)), latent, sampler, unfinished)
    out = {**{k: v for k, v in latent.items() if k in kept_keys}, "samples": samples}
    target = guidance.target.reordered(adp.attributes)
    outcome = Outcome(_cells(runs), target.names, list(target.notes), readings=_last_readings(runs))
    outcome.notes += _notes(runs, outcome.cells, guidance, target, n, passes, repair, ledger)
    if unfinished is not None and unfinished.gone_on:
        outcome.notes.append(f"{unfinished.gone_on} images were kept from this run when it was cancelled, and not drawn again.")
    cells = outcome.cells
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
        seed = (sampler.seed + 0x9E3779B97F4A7C15 * (number + 1)) & 0xFFFFFFFFFFFFFFFF
        # The noise of image i depends on its place in the batch, which is why ``batch_index`` is dropped.
        part = draw(missed, {k: v for k, v in latent.items() if k != "batch_index"}, replace(sampler, seed=seed))
        samples = out["samples"].clone()
        samples[torch.tensor(missed)] = part.to(samples)
        out = {**out, "samples": samples}
    log.info("Distribution Guidance KSampler: %s", outcome.text().replace("\n", "; "))
    return out, outcome


def _cells(runs: list[GuidanceRun]) -> list[int] | None:
    """The cells of the whole batch; None where none were given."""
    run = runs[-1] if runs else None
    if run is None or run.cells is None:
        return None
    whole = None if run.whole is None else run.whole.cells
    return (run.cells if whole is None else whole).tolist()


def _last_readings(runs: list[GuidanceRun]) -> dict[str, list[float]]:
    """The last reading of every pass, averaged over the images."""
    parts = [(len(run.rows) or 1, run.readings.shares[-1]) for run in runs if run.readings.shares]
    total = sum(images for images, _ in parts)
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1] if parts else {}
    return {a: [sum(n * p[a][k] for n, p in parts) / total for k in range(len(shares))] for a, shares in first.items()}


def _notes(
    runs: list[GuidanceRun],
    cells: list[int] | None,
    guidance: GuidanceSettings,
    target: Any,
    images: int,
    passes: int,
    repair: int,
    ledger: LedgerHandle | None,
) -> list[str]:
    """What a user should know of a run: what was rounded, why nothing was done, and by what classes were given."""
    run, notes = runs[-1] if runs else None, []
    wished = sum(share > 0 for share in target.shares)
    if cells is not None and ledger is not None:
        notes.append(f"quotas by the ledger '{ledger.name}': they even out what its other images lack.")
    elif cells is not None and len(cells) < wished:
        notes.append(f"{len(cells)} images cannot hold all {wished} classes of the target: quotas were rounded by the seed.")
    if run is not None and run.exempt:
        notes.append("guidance did nothing: all that is drawn here is exempt from it (Exempt From Guidance).")
    elif run is not None and run.unread and cells is not None:
        notes.append(f"images were given their classes at random from the seed: this ADP does not read {', '.join(run.unread)}.")
    if cells is None:
        if run is not None and guidance.mode == QUOTA and not run.exempt:
            notes.append("guidance did nothing: no sampling step fell into the noise levels at which this ADP moves images.")
        if repair:
            notes.append("nothing was repaired: no image was assigned a class.")
    if passes > 1:
        what = "one quota over all" if guidance.mode == QUOTA else f"mode '{guidance.mode}' goes by the mean of each pass, not of all"
        notes.append(f"{images} images were drawn in {passes} passes: {what}.")
    return notes
