"""Calibrate an ADP on a model of the test bed, in the DDIM loop; the ADP itself reads the finished images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..methods.core.trainer import Progress
from ..methods.core.trials import TrialLog, TrialReadings, Trials
from ..methods.data.feature_set import FeatureSet
from ..methods.guidance.calibrate import CalibratedMoves, MoveBench, directions_of, reading_levels, trials_needed
from ..methods.guidance.moves import FITTED
from ..methods.guidance.run import GuidanceRun, GuidanceSettings
from ..methods.labels.labels import LabelSet
from ..models.adm_unet import AdmUNet
from ..models.adp import AdpFile, Move
from ..models.digests import tensors_digest
from ..models.noise_level import log_snr
from ..models.sites import block_site, pool
from .sampling import STEPS, sample
from .schedule import alphas_cumprod, sigmas

BATCH = 16
TRIAL_SEED = 70_000_000


def calibrate_moves(
    net: AdmUNet,
    adp: AdpFile,
    features: FeatureSet,
    labels: LabelSet,
    images: int,
    log: Path,
    progress: Progress,
    say: Callable[[str], None] | None = None,
) -> list[CalibratedMoves]:
    """Calibrate the moves of every labelled attribute; the last result's ADP has them all.

    ``log``: file of the trials.

    Calibrates the fitted moves of an attribute (:mod:`.learn`) if the ADP has any, else the directions that the features give.
    """
    moves = {a: fitted_moves(adp, a) or directions_of(features, labels, a) for a in labels.attributes}
    images = -(-images // BATCH) * BATCH
    settings = {
        "judge": "the ADP, on finished images",
        "features": features.name,
        "sampler": {"sampler_name": "ddim", "steps": STEPS, "seed": TRIAL_SEED},
        "images": images,
        "model": tensors_digest(net.state_dict()),
        "predictor": tensors_digest(adp.predictor.state_dict()),
    }
    sampler = _Trials(net, adp, images, trials_needed(moves), progress)
    trials: Trials[AdpFile, GuidanceSettings] = Trials(sampler.sample, images, TrialLog(log, settings), say or (lambda text: None))
    results: list[CalibratedMoves] = []
    for attribute, candidates in moves.items():
        bench = MoveBench(adp, trials, 0)
        results.append(bench.calibrate(attribute, candidates))
        adp = results[-1].file
    return results


def fitted_moves(adp: AdpFile, attribute: str) -> list[Move]:
    """Return the moves of an attribute that were fitted through the decoder."""
    return [m for source, m in adp.sources().get(attribute, {}).items() if source in FITTED]


class _Trials:
    """Sample trials on one model.

    A class-conditional one draws its classes in turn, batch by batch.
    """

    def __init__(self, net: AdmUNet, adp: AdpFile, images: int, trials: int, progress: Progress) -> None:
        self.net, self.adp, self.images = net, adp, images
        level = log_snr(sigmas())
        self._at = reading_levels(adp, float(level.min()), float(level.max()))
        self._level, self._trials, self._progress, self._done = level, trials, progress, 0

    def sample(self, adp: AdpFile | None, settings: GuidanceSettings | None) -> TrialReadings:
        """Sample the trial's images, with guidance if settings are given."""
        read: list[dict[str, Tensor]] = []
        cells: list[Tensor] = []
        make_run = None if adp is None else lambda number, first: GuidanceRun(adp, settings)
        for start in range(0, self.images, BATCH):
            profession = (start // BATCH) % (self.net.num_classes - 1) if self.net.num_classes else None
            seeds = list(range(TRIAL_SEED + start, TRIAL_SEED + start + BATCH))
            made = sample(self.net, seeds, batch=BATCH, make_run=make_run, profession=profession)
            read.append(self.read(made.latents, profession))
            if made.cells is not None:
                cells.append(made.cells)
        self._done += 1
        self._progress(min(self._done, self._trials), self._trials, {})
        return TrialReadings({a: torch.cat([r[a] for r in read]) for a in read[0]}, torch.cat(cells) if cells else None)

    @torch.no_grad()
    def read(self, latents: Tensor, profession: int | None) -> dict[str, Tensor]:
        """Read finished latents [N, 12, 16, 16]: attribute -> class probabilities.

        They are noised once to each attribute's level.
        """
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        y = None if profession is None else torch.full((len(latents),), profession)
        pooled: dict[int, Tensor] = {}
        readings = {}
        for attribute, wanted in self._at.items():
            t = int((self._level - wanted).abs().argmin())
            if t not in pooled:
                noised = alphas_cumprod()[t].sqrt() * latents + (1 - alphas_cumprod()[t]).sqrt() * noise
                pooled[t] = _features(self.net, self.adp.site, noised, t, y)
            readings[attribute] = self.adp.predictor(pooled[t], self._level[t].expand(len(latents)))[attribute].softmax(-1)
        return readings


def _features(net: AdmUNet, site: str, x: Tensor, t: int, y: Tensor | None) -> Tensor:
    """Return pooled features of a site for noised latents."""
    seen: list[Tensor] = []

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if block_site(options["block"]) == site:
            seen.append(pool(h))
        return h, skip

    net(x, torch.full((len(x),), float(t)), y=y, transformer_options={"patches": {"output_block_patch": [patch]}})
    return seen[0]
