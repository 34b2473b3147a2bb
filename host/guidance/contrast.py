"""Contrast Directions: sample latents, noise them, and record what naming each class changes inside the U-Net."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...methods.adp.edit_file import check_classes, with_alternative
from ...methods.data.recording import Recording, RecordingSettings
from ...methods.guidance.contrast import ContrastSums, detail_of, plan
from ...methods.guidance.prompt_classes import PromptClasses
from ...models.adp import AdpFile
from ...models.sites import MIDDLE
from ..core.fit.session import chosen_site, encoded_prompts
from ..core.sampling import draw
from ..core.sites import base_model, check_fit, level_of, level_range
from ..core.types import Conditioning, Model
from ..core.versions import fitting_latent
from ..data.record_images import OncePerLevel, level_sigmas
from ..data.recorder import Watcher
from ..data.recording import apply_recording
from .prompt_sampling import PromptSampling

IMAGES, LEVELS = 64, 10
log = logging.getLogger("equipoise")


@dataclass(frozen=True)
class Contrast:
    """Directions that were read off prompts."""

    file: AdpFile
    """The ADP with the directions, not calibrated."""
    lines: list[str]
    """Report."""


def contrast_directions(
    sampling: PromptSampling, prompts: PromptClasses, levels: int = LEVELS, site: str = MIDDLE, adp: AdpFile | None = None
) -> Contrast:
    """Find directions of one attribute, for ``adp`` or for a new file without a predictor.

    They are not calibrated.

    Latents are sampled under the prompts of the classes, batch after batch. Each is noised to ``levels`` levels, evenly spaced in log-SNR
    over the model's schedule, and passed once per level and class. Raises ValueError if the model has no such site, the ADP belongs to
    another model or has other classes, or the prompts change nothing; the host's exception if the user interrupts.
    """
    model = sampling.model
    chosen, _ = chosen_site(model, site)
    if levels < 2:
        raise ValueError(f"a move acts between noise levels, so at least 2 levels are needed, not {levels}: use about 10.")
    if adp is not None:
        check_fit(model, adp)
        check_classes(adp, {prompts.attribute: prompts.classes})
    start = fitting_latent(model, sampling.latent)
    classes, rows = len(prompts.classes), prompts.aligned()
    sigmas = level_sigmas(model, _levels(model, levels))
    conditionings, which = encoded_prompts(sampling.clip, [sampling.negative, *(p for row in rows for p in row)])
    of_row = which[1:].view(len(rows), classes).tolist()
    batches = plan(sampling.images, start.shape[0], classes, len(rows))
    look = _Look(sampling, chosen, sigmas, Watcher(model, len(batches) * (1 + classes) + 1, "Contrast Directions"))
    sums, detail = ContrastSums(), None
    for b, (drawn, row) in enumerate(batches):
        seed = (sampling.sampler.seed + b) & 0xFFFFFFFFFFFFFFFF
        of_class = [conditionings[i] for i in of_row[row]]
        clean = look.sample(of_class[drawn], conditionings[int(which[0])], seed)
        noise = _noise(seed, (len(sigmas), *clean.shape))
        if detail is None:
            one = look.at(of_class[drawn], clean[:1], noise[:, :1], unpooled=True)
            detail = detail_of(one.features[0], one.spatial[0][0])
        recordings = [look.at(positive, clean, noise) for positive in of_class]
        sums.add(torch.stack([r.features for r in recordings]), recordings[0].level)
    move = sums.move(chosen)
    lines = _lines(prompts, sums, detail, chosen, len({row for _, row in batches}))
    record = {
        "lines": lines[:2],
        "templates": list(prompts.templates),
        "phrases": {c: list(p) for c, p in prompts.phrases.items()},
        "negative": sampling.negative,
        "images": sums.latents,
        "sampler": asdict(sampling.sampler),
        "share_by_log_snr": _curve(sums.level, sums.shares(detail)),
        "agreement_by_log_snr": _curve(sums.level, sums.agreement),
    }
    file = with_alternative(adp, base_model(model) or "", prompts.attribute, prompts.classes, move, record)
    if prompts.attribute not in file.read:
        lines.append(
            f"this file does not read '{prompts.attribute}', so images get their classes at random from the seed; to calibrate it, connect "
            "a classifier to Calibrate ADP"
        )
    lines.append(
        f"not calibrated: with direction '{move.source}', strength s of Distribution Guidance moves h by s times its norm between the "
        "classes that lie farthest apart; start with 0.1"
    )
    log.info("contrast directions: %s", "; ".join(lines))
    return Contrast(file, lines)


class _Look:
    """Samples latents, and records calls on noised ones, under one progress bar."""

    def __init__(self, sampling: PromptSampling, site: str, sigmas: Tensor, watcher: Watcher) -> None:
        model = sampling.model
        self._sampling, self._sigmas, self._watcher = sampling, sigmas, watcher
        self._kept: list[Recording] = []
        sampling = model.get_model_object("model_sampling")
        spatial = tuple(level_of(sampling, s) for s in sigmas)
        self._pooled = apply_recording(model, RecordingSettings(site=site, exact=True), self._kept.append)
        self._unpooled = apply_recording(model, RecordingSettings(spatial_levels=spatial, site=site, exact=True), self._kept.append)

    def sample(self, positive: Conditioning, negative: Conditioning, seed: int) -> Tensor:
        """Sample clean latents [N, C, H, W]."""
        self._watcher.next_batch()
        model, latent, s = self._sampling.model, self._sampling.latent, self._sampling.sampler
        start = fitting_latent(model, latent)
        return draw(model, replace(s, seed=seed), positive, negative, {**latent, "samples": start}, self._watcher.step)

    def at(self, positive: Conditioning, clean: Tensor, noise: Tensor, unpooled: bool = False) -> Recording:
        """Record the site for latents with noise [levels, N, C, H, W], by level."""
        self._watcher.next_batch()
        self._kept.clear()
        guider = comfy.samplers.CFGGuider(self._unpooled if unpooled else self._pooled)
        guider.set_conds(positive, positive)
        guider.set_cfg(1.0)
        still = torch.zeros_like(clean, dtype=torch.float32)
        guider.sample(still, clean, OncePerLevel(noise), self._sigmas, callback=self._watcher.step, seed=0)
        return self._kept[-1]


def _levels(model: Model, count: int) -> list[float]:
    """Space log-SNR evenly from the noisiest to the cleanest level."""
    return torch.linspace(*level_range(model), count).tolist()


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Draw noise from another seed than the sampler's."""
    return torch.randn(shape, generator=torch.Generator().manual_seed((seed + 0x9E3779B97F4A7C15) % 2**63))


def _lines(prompts: PromptClasses, sums: ContrastSums, detail: Tensor, site: str, used: int) -> list[str]:
    rows = len(prompts.aligned())
    share, agreement = sums.shares(detail), sums.agreement
    top = int(share.argmax())
    lines = [
        f"{prompts.attribute} at {site}: {len(prompts.classes)} classes, {sums.latents} latents, {used} of {rows} wordings per class",
        f"naming another class moves h by up to {float(share[top]):.4f} of its norm, at log-SNR {float(sums.level[top]):.1f}; single "
        f"latents agree by {float(agreement[top]):.2f} there",
    ]
    table = zip(sums.level.tolist(), share.tolist(), agreement.tolist(), strict=True)
    lines += [f"  log-SNR {at:6.2f}: {size:.5f} of the norm of h, agreement {same:.2f}" for at, size, same in table]
    if used < rows:
        lines.append(f"{rows - used} of the wordings were not used: sample more images, or use a smaller batch")
    return lines


def _curve(level: Tensor, values: Tensor) -> list[list[float]]:
    return [[round(at, 3), round(v, 5)] for at, v in zip(level.tolist(), values.tolist(), strict=True)]
