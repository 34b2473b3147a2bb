"""ComfyUI's KSampler with distribution guidance, and a second try for images that missed their class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...methods.core.known_cells import KnownCells
from ...methods.core.targets import TargetDistribution
from ...methods.guidance.run import QUOTA, GuidanceRun, GuidanceSettings
from ...models.adp import AdpFile
from ..core.passes.image_index import index_of_latent
from ..core.passes.pass_cache import PassCache
from ..core.passes.passes import PassSettings, draw_in_passes
from ..core.passes.shared_batch import SharedBatch
from ..core.sampling import SamplerSettings, ksample
from ..core.types import Conditioning, Latent, Model
from ..ledger.ledgers import LedgerHandle
from .apply import apply_guidance

KNOWN_KEY = "equipoise_known_cells"
"""In a LATENT: the cells that its images were assigned, with the names of the cells."""

log = logging.getLogger("equipoise")

Classify = Callable[[Tensor], dict[str, Tensor]]
"""Latent samples [N, ...] -> class probabilities, attribute -> [N, K] in the ADP's class order."""


@dataclass(frozen=True)
class GuidedSampling:
    """Hold what the user chose for sampling with guidance."""

    guidance: GuidanceSettings
    """Settings of the edit."""
    sampler: SamplerSettings
    """Inputs of the KSampler."""
    repair: int = 0
    """Number of rounds in which images that missed their class are sampled again."""
    images_per_pass: int = 0
    """Number of images per pass; 0 for all at once. Quotas apply to the whole batch."""
    key: str | None = None
    """Key of the run, under which finished passes are cached until all are sampled; None to cache nothing."""
    ledger: LedgerHandle | None = None
    """Ledger whose counts decide the quotas."""

    def passes(self, images: int) -> int:
        """Return the number of passes that a batch takes."""
        return -(-images // self.images_per_pass) if self.images_per_pass > 0 else 1


@dataclass
class GuidedOutcome:
    """Report what a guided sampling did."""

    cells: list[int] | None
    """Assigned cell of every image; None in the soft modes."""
    names: list[str]
    """Names of the cells."""
    notes: list[str] = field(default_factory=list)
    """Messages for the user."""
    rounds: list[int] = field(default_factory=list)
    """Number of images sampled again in every repair round."""
    missed: int | None = None
    """Number of images that the classifier still reads as another class; None without a classifier."""
    readings: dict[str, list[float]] = field(default_factory=dict)
    """Shares that the ADP read last."""

    def text(self) -> str:
        """Write the report, a line each."""
        lines = []
        if self.cells is not None:
            counts = ", ".join(f"{name}: {self.cells.count(i)}" for i, name in enumerate(self.names))
            lines.append(f"assigned {len(self.cells)} images: {counts}")
        for attribute, shares in self.readings.items():
            lines.append(f"last reading of {attribute}: {', '.join(f'{s:.3f}' for s in shares)}")
        for number, count in enumerate(self.rounds, 1):
            lines.append(f"repair round {number}: {count} images sampled again")
        if self.missed is not None:
            lines.append(f"images that missed their class, by the classifier: {self.missed}")
        return "\n".join(lines + self.notes)


def guided_ksample(
    model: Model,
    adp: AdpFile,
    settings: GuidedSampling,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    classify: Classify | None = None,
) -> tuple[Latent, GuidedOutcome]:
    """Sample with guidance, and sample images again that missed their class.

    ``classify`` reads the samples; without it nothing is repaired. An image that is sampled again keeps its position and class, and gets a
    new seed.
    """
    runs: list[GuidanceRun] = []
    target = settings.guidance.target.reordered(adp.attributes)
    known = cells_of_pictures(latent, target) if settings.sampler.denoise < 1 and settings.ledger is None else None
    n, guidance = latent["samples"].shape[0], settings.guidance if known is None else replace(settings.guidance, cells=known)
    cache = PassCache(settings.key) if settings.key and settings.passes(n) > 1 else None
    batch = SharedBatch(n, [] if cache is None else cache.decided(), index_of_latent(latent))
    guided = apply_guidance(model, adp, guidance, lambda run: runs.append(run.summary()), settings.ledger)
    sampled_keys: list[str] = []

    def draw_images(image_index: list[int], begun: Latent, s: SamplerSettings, cache: PassCache | None = None) -> Tensor:
        def sample(m: Model, positive: Conditioning, negative: Conditioning, part: Latent) -> Tensor:
            drawn = ksample(m, s, positive, negative, part)
            sampled_keys[:] = drawn
            return drawn["samples"]

        passes = PassSettings(image_index, settings.images_per_pass, s.seed, cache)
        return draw_in_passes(guided, sample, positive, negative, begun, batch, passes)

    with batch:
        samples = draw_images(list(range(n)), latent, settings.sampler, cache)
    out = {**{k: v for k, v in latent.items() if k in sampled_keys}, "samples": samples}
    outcome = GuidedOutcome(_cells(runs), target.names, list(target.notes), readings=_last_readings(runs))
    outcome.notes += _notes(runs, outcome.cells, settings, target, n)
    if known is not None:
        outcome.notes.append("these images were guided before, and kept the class that they were assigned.")
    if cache is not None and cache.resumed_images:
        outcome.notes.append(f"{cache.resumed_images} images were finished before this run was cancelled, and were not sampled again.")
    if outcome.cells is None or classify is None:
        return with_cells(out, target, outcome.cells), outcome
    wanted = [target.cell_classes(c) for c in outcome.cells]
    for number in range(settings.repair + 1):
        read = {a: p.argmax(-1) for a, p in classify(out["samples"]).items()}
        missed = [i for i, classes in enumerate(wanted) if any(int(read[a][i]) != k for a, k in classes.items())]
        outcome.missed = len(missed)
        if not missed or number == settings.repair:
            break
        outcome.rounds.append(len(missed))
        seed = (settings.sampler.seed + 0x9E3779B97F4A7C15 * (number + 1)) & 0xFFFFFFFFFFFFFFFF
        # The noise of an image depends on its position in the batch, which is why ``batch_index`` is dropped.
        begun = {k: v for k, v in latent.items() if k != "batch_index"}
        part = draw_images(missed, begun, replace(settings.sampler, seed=seed))
        samples = out["samples"].clone()
        samples[torch.tensor(missed)] = part.to(samples)
        out = {**out, "samples": samples}
    log.info("Distribution Guidance KSampler: %s", outcome.text().replace("\n", "; "))
    return with_cells(out, target, outcome.cells), outcome


def cells_of_pictures(latent: Latent, target: TargetDistribution) -> tuple[int, ...] | None:
    """Return the cells that the images of a LATENT were assigned before, also where some were picked; None unless all are known."""
    names, known = latent.get(KNOWN_KEY, (None, None))
    cells = known.of_pictures(latent["samples"]) if names == target.names else None
    return None if cells is None else tuple(cells)


def with_cells(latent: Latent, target: TargetDistribution, cells: list[int] | None) -> Latent:
    """Return a LATENT that says which cells its images were assigned."""
    latent = {k: v for k, v in latent.items() if k != KNOWN_KEY}
    if cells is None:
        return latent
    known = KnownCells()
    known.add(cells, latent["samples"], None)
    return {**latent, KNOWN_KEY: (target.names, known)}


def _cells(runs: list[GuidanceRun]) -> list[int] | None:
    """Return the cells of the whole batch; None where none were assigned."""
    run = runs[-1] if runs else None
    if run is None or run.cells is None:
        return None
    of_batch = None if run.batch_plan is None else run.batch_plan.cells
    return (run.cells if of_batch is None else of_batch).tolist()


def _last_readings(runs: list[GuidanceRun]) -> dict[str, list[float]]:
    """Average the last readings of the passes over the images."""
    parts = [(len(run.image_index or [0]), run.readings.shares[-1]) for run in runs if run.readings.shares]
    total = sum(images for images, _ in parts)
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1] if parts else {}
    return {a: [sum(n * p[a][k] for n, p in parts) / total for k in range(len(shares))] for a, shares in first.items()}


def _notes(
    runs: list[GuidanceRun], cells: list[int] | None, settings: GuidedSampling, target: TargetDistribution, images: int
) -> list[str]:
    """Say what was rounded, why nothing was done, and how classes were assigned."""
    run, mode, notes = runs[-1] if runs else None, settings.guidance.mode, []
    asked = sum(share > 0 for share in target.shares)
    if cells is not None and settings.ledger is not None:
        notes.append(f"quotas by the ledger '{settings.ledger.name}': they make up for what its other images lack.")
    elif cells is not None and len(cells) < asked:
        notes.append(f"{len(cells)} images cannot show all {asked} classes of the target: the seed decided how the quotas were rounded.")
    if run is not None and run.exempt:
        notes.append("guidance did nothing: every positive is exempt from it (Exempt From Guidance).")
    elif run is not None and run.unread and cells is not None:
        notes.append(f"images were assigned their classes at random from the seed: this ADP does not read {', '.join(run.unread)}.")
    if cells is None:
        if run is not None and mode == QUOTA and not run.exempt:
            notes.append("guidance did nothing: no sampling step was at a noise level at which this ADP moves images.")
        if settings.repair:
            notes.append("nothing was repaired: no image was assigned a class.")
    passes = settings.passes(images)
    if passes > 1:
        scope = "one quota for the whole batch" if mode == QUOTA else f"mode '{mode}' uses the mean of each pass, not of the batch"
        notes.append(f"{images} images were sampled in {passes} passes: {scope}.")
    return notes
