"""Contrast Directions: sample latents, noise them, and look at what naming each class changes inside the U-Net."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...methods.data.recording import Recording, RecordingSettings
from ...methods.guidance.contrast import ContrastSums, detail_of, plan
from ...methods.guidance.edit_file import check_classes, with_alternative
from ...methods.guidance.prompt_classes import PromptClasses
from ...models.adp import AdpFile
from ...models.sites import MIDDLE
from ..core.fit.learning_images import encoded_prompts
from ..core.fit.session import chosen_site
from ..core.sampling import SamplerSettings, draw
from ..core.sites import base_model, check_fit, level_of, level_range
from ..core.versions import fitting_latent
from ..data.record_images import OncePerLevel, level_sigmas
from ..data.recorder import Watcher
from ..data.recording import apply_recording

IMAGES, LEVELS = 64, 10
log = logging.getLogger("equipoise")


@dataclass(frozen=True)
class Contrast:
    """``lines``: the report."""

    file: AdpFile
    lines: list[str]


def contrast_directions(
    model: Any,
    clip: Any,
    prompts: PromptClasses,
    latent: dict[str, Any],
    sampler: SamplerSettings,
    images: int = IMAGES,
    levels: int = LEVELS,
    site: str = MIDDLE,
    adp: AdpFile | None = None,
    negative: str = "",
) -> Contrast:
    """Directions of one attribute, in ``adp`` or in a file without a predictor; they are not calibrated.

    ``images`` latents, rounded up to equal parts of the classes, are sampled under the classes' prompts, batch after batch of the latent,
    from seed ``sampler.seed`` on. Each is noised to ``levels`` levels, evenly spaced in log-SNR over the model's schedule, and passed once
    per level and class. Raises ValueError, in a sentence, where the model has no such site, the ADP belongs to another model or has other
    classes, or the prompts change nothing; the host's exception where the user interrupts.
    """
    place, _ = chosen_site(model, site)
    if levels < 2:
        raise ValueError(f"a move acts between noise levels, so at least 2 are needed, and {levels} was given: use about 10.")
    if adp is not None:
        check_fit(model, adp)
        check_classes(adp, {prompts.attribute: prompts.classes})
    start = fitting_latent(model, latent)
    batch, classes, rows = start.shape[0], len(prompts.classes), prompts.aligned()
    sigmas = level_sigmas(model, _levels(model, levels))
    conditionings, which = encoded_prompts(clip, [negative, *(p for row in rows for p in row)])
    of_row = which[1:].view(len(rows), classes).tolist()
    batches = plan(images, batch, classes, len(rows))
    look = _Look(model, place, sigmas, Watcher(model, len(batches) * (1 + classes) + 1))
    sums, detail = ContrastSums(), None
    for b, (drawn, row) in enumerate(batches):
        seed = (sampler.seed + b) & 0xFFFFFFFFFFFFFFFF
        named = [conditionings[i] for i in of_row[row]]
        clean = look.sample(named[drawn], conditionings[int(which[0])], start, latent, sampler, seed)
        noise = _noise(seed, (len(sigmas), *clean.shape))
        if detail is None:
            one = look.at(named[drawn], clean[:1], noise[:, :1], whole=True)
            detail = detail_of(one.features[0], one.spatial[0][0])
        seen = [look.at(positive, clean, noise) for positive in named]
        sums.add(torch.stack([s.features for s in seen]), seen[0].level)
    move = sums.move(place)
    lines = _lines(prompts, sums, detail, place, len({row for _, row in batches}), len(rows))
    said = {
        "lines": lines[:2],
        "templates": list(prompts.templates),
        "phrases": {c: list(p) for c, p in prompts.phrases.items()},
        "negative": negative,
        "images": sums.latents,
        "sampler": asdict(sampler),
        "share_by_log_snr": _curve(sums.level, sums.shares(detail)),
        "agreement_by_log_snr": _curve(sums.level, sums.agreement),
    }
    file = with_alternative(adp, base_model(model) or "", prompts.attribute, prompts.classes, move, said)
    if prompts.attribute not in file.read:
        lines.append(
            f"this file does not read '{prompts.attribute}': images get their classes at random from the seed; to calibrate it, connect a "
            "classifier to Calibrate ADP"
        )
    lines.append(
        f"not calibrated: in Distribution Guidance, direction '{move.source}' at strength s moves by s norms of h between the classes "
        "farthest apart; begin at 0.1"
    )
    log.info("contrast directions: %s", "; ".join(lines))
    return Contrast(file, lines)


class _Look:
    """Sampling, and passes that only look, under one bar of progress."""

    def __init__(self, model: Any, site: str, sigmas: Tensor, watcher: Watcher) -> None:
        self._model, self._sigmas, self._watcher = model, sigmas, watcher
        self._kept: list[Recording] = []
        sampling = model.get_model_object("model_sampling")
        spatial = tuple(level_of(sampling, s) for s in sigmas)
        self._pooled = apply_recording(model, RecordingSettings(site=site, exact=True), self._kept.append)
        self._whole = apply_recording(model, RecordingSettings(spatial_levels=spatial, site=site, exact=True), self._kept.append)

    def sample(self, positive: Any, negative: Any, start: Tensor, latent: dict[str, Any], s: SamplerSettings, seed: int) -> Tensor:
        """Clean latents [N, C, H, W] by the host's sampler."""
        self._watcher.next_batch()
        return draw(self._model, replace(s, seed=seed), positive, negative, {**latent, "samples": start}, self._watcher.step)

    def at(self, positive: Any, clean: Tensor, noise: Tensor, whole: bool = False) -> Recording:
        """What the site holds for clean latents with noise [levels, N, C, H, W], one pass per level; ``whole``: unpooled too."""
        self._watcher.next_batch()
        self._kept.clear()
        guider = comfy.samplers.CFGGuider(self._whole if whole else self._pooled)
        guider.set_conds(positive, positive)
        guider.set_cfg(1.0)
        still = torch.zeros_like(clean, dtype=torch.float32)
        guider.sample(still, clean, OncePerLevel(noise), self._sigmas, callback=self._watcher.step, seed=0)
        return self._kept[-1]


def _levels(model: Any, count: int) -> list[float]:
    """Evenly spaced log-SNR from the model's noisiest level to its cleanest."""
    return torch.linspace(*level_range(model), count).tolist()


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Of a seed away from the sampler's, whose noise the latents were made of."""
    return torch.randn(shape, generator=torch.Generator().manual_seed((seed + 0x9E3779B97F4A7C15) % 2**63))


def _lines(prompts: PromptClasses, sums: ContrastSums, detail: Tensor, site: str, used: int, rows: int) -> list[str]:
    share, agreement = sums.shares(detail), sums.agreement
    top = int(share.argmax())
    lines = [
        f"{prompts.attribute} at {site}: {len(prompts.classes)} classes on {sums.latents} latents, under {used} of {rows} wordings each",
        f"naming another class moves h by up to {float(share[top]):.4f} of its norm, at log-SNR {float(sums.level[top]):.1f}; agreement of "
        f"single latents there {float(agreement[top]):.2f}",
    ]
    table = zip(sums.level.tolist(), share.tolist(), agreement.tolist(), strict=True)
    lines += [f"  log-SNR {at:6.2f}: {size:.5f} of the norm of h, agreement {same:.2f}" for at, size, same in table]
    if used < rows:
        lines.append(f"{rows - used} of the wordings were not used: ask for more images, or a smaller batch")
    return lines


def _curve(level: Tensor, values: Tensor) -> list[list[float]]:
    return [[round(at, 3), round(v, 5)] for at, v in zip(level.tolist(), values.tolist(), strict=True)]
