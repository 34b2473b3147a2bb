"""Learn Directions From Prompts: fit moves to what a text model's own words do, without classifier, labels or pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...methods.guidance.fit_moves import FitSettings, SitePredictor
from ...methods.guidance.fit_prompts import UNEDITED, PromptImages, fit_prompt_moves, new_prompt_fit
from ...methods.guidance.moves import LEARNED_PROMPTS
from ...methods.guidance.prompt_classes import PromptClasses
from ...models.adp import AdpFile
from ...models.class_order import matched
from ...models.digests import tensors_digest
from ...models.files import read_safetensors, write_safetensors
from ..core.fit.differentiable import model_conditions
from ..core.fit.session import AUTO, FitSession, chosen_site, encoded_prompts
from ..core.progress import WorkStage
from ..core.sampling import draw
from ..core.sites import base_model, check_fit
from ..core.types import Model
from ..core.versions import fitting_latent
from ..data.recording import conditioning_facts, tensor_facts, weights_mark
from .learned_moves import LearnedMoves, host_diffusion, learned_moves
from .prompt_sampling import PromptSampling

log = logging.getLogger("equipoise")

NODE = "Learn Directions From Prompts"
IMAGES = 96
KEY_FIELD = "key"
"""Metadata of the file of sampled latents: the settings that they were sampled with."""
WEAK = 0.01
"""Root mean square of what words change, below which the report doubts that the model knows them."""


@dataclass(frozen=True)
class _Batch:
    """A batch of latents to sample under one prompt."""

    group: int
    """Group of prompts that differ only in the class."""
    class_index: int
    """Class that the prompt names."""
    seed: int
    """Seed of the noise."""


@dataclass(frozen=True)
class _ClassSampler:
    """Samples latents in equal parts for every prompt that names a class."""

    sampling: PromptSampling
    """How prompts are sampled."""
    conditionings: list[Any]
    """The different CONDITIONINGs."""
    class_prompts: Tensor
    """Index of the conditioning of each group and class, int64 [G, K]."""
    negative: int
    """Index of the negative conditioning."""
    batches: list[_Batch]
    """The batches, in order."""
    size: int
    """Images of a batch."""

    def latents(self, path: Path, facts: Mapping[str, Any]) -> Tensor:
        """Sample latents [N, C, H, W] on the CPU, in the model's own scale.

        Batches that are saved beside ``path`` are not repeated.
        """
        saved, signature = path.with_name(f"{path.stem}.latents.safetensors"), json.dumps(facts, sort_keys=True)
        parts = self._saved(saved, signature)
        s, model = self.sampling.sampler, self.sampling.model
        start = fitting_latent(model, self.sampling.latent)[: self.size]
        stage = WorkStage(f"{NODE}, images", len(self.batches) * s.steps)
        for number in range(len(parts), len(self.batches)):
            batch = self.batches[number]

            def step(done: int, x0: Tensor, x: Tensor, total: int, begun: int = number * s.steps) -> None:
                stage.update(begun + done + 1)

            positive = self.conditionings[int(self.class_prompts[batch.group, batch.class_index])]
            sampler = replace(s, seed=batch.seed)
            samples = draw(model, sampler, positive, self.conditionings[self.negative], {"samples": start}, step)
            parts.append(model.model.process_latent_in(samples).float().cpu())
            write_safetensors(saved, {"latents": torch.cat(parts)}, {KEY_FIELD: signature})
        with torch.inference_mode(False):
            return torch.cat(parts)

    def _saved(self, path: Path, signature: str) -> list[Tensor]:
        """Read the batches that an interrupted run saved with the same settings."""
        if not path.is_file():
            return []
        try:
            tensors, meta = read_safetensors(path)
            return list(tensors["latents"].split(self.size)) if meta.get(KEY_FIELD) == signature else []
        except (KeyError, ValueError):
            return []


def learn_from_prompts(
    sampling: PromptSampling,
    prompts: PromptClasses,
    settings: FitSettings,
    name: str,
    adp: AdpFile | None = None,
    site: str = AUTO,
) -> LearnedMoves:
    """Fit the move of one attribute to latents sampled under class prompts.

    With an ADP that reads the attribute, the move depends on the reading; otherwise there is one vector per class, assigned seeded. A fit
    that was interrupted resumes if the same settings come under the same ``name``. Raises ValueError if the inputs do not fit each other or
    memory does not suffice; the host's exception if the user interrupts.
    """
    session = FitSession(NODE, name, settings.steps, settings.batch)
    model = sampling.model
    chosen = chosen_site(model, site)
    attribute, classes = prompts.attribute, _class_order(model, prompts, adp)
    texts, groups = _texts(sampling, prompts, classes)
    conditionings, which = encoded_prompts(sampling.clip, texts)
    start = fitting_latent(model, sampling.latent)
    neutral, class_prompts = which[1 : 1 + groups], which[1 + groups :].reshape(groups, len(classes))
    batches, size = _plan(groups, len(classes), sampling, start.shape[0])
    _announce(len(batches) * size, sampling, settings)
    facts = {
        "model": weights_mark(model),
        "conditions": [conditioning_facts(c) for c in conditionings],
        "texts": texts,
        "sampler": asdict(sampling.sampler),
        "latent": tensor_facts(start),
        "plan": [[[b.group, b.class_index, b.seed] for b in batches], size],
    }
    clean = _ClassSampler(sampling, conditionings, class_prompts, int(which[0]), batches, size).latents(session.path, facts)
    conditions = model_conditions(model, conditionings, clean.shape[1:])
    network = session.network(model, conditions, clean.shape[1:])
    facts |= {
        "source": LEARNED_PROMPTS,
        "settings": asdict(settings),
        "site": chosen[0],
        "attribute": attribute,
        "classes": classes,
        "predictor": None if adp is None or adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
    }
    session.lines.append(f"{len(clean)} latents sampled under {groups * len(classes)} prompts of {len(classes)} classes")
    with session.gradients():
        group = torch.tensor([b.group for b in batches]).repeat_interleave(size)
        class_of = torch.tensor([b.class_index for b in batches]).repeat_interleave(size)
        predictor = None if adp is None or adp.predictor is None else adp.predictor.copied()
        reads = SitePredictor() if adp is None else SitePredictor(predictor, adp.site)
        fit = new_prompt_fit(len(classes), reads, attribute, chosen, settings, network.device)
        session.resume(fit, facts)
        images = PromptImages(clean, class_of, neutral[group], class_prompts[group])
        fit_prompt_moves(host_diffusion(network), images, reads, attribute, chosen, settings, fit=fit)
    session.lines.append(_effect_line(float(fit.measured[UNEDITED].max().sqrt())))
    session.report_duration("latents")
    file = adp or AdpFile(None, {}, base_model(model) or "")
    return learned_moves(session, fit, {attribute: chosen}, LEARNED_PROMPTS, file, {attribute: classes}, settings)


def _announce(images: int, sampling: PromptSampling, settings: FitSettings) -> None:
    """Write to ComfyUI's log how many passes the whole work takes."""
    steps = sampling.sampler.steps
    forward, fitted = images * steps * (1 if sampling.sampler.cfg == 1 else 2), settings.steps * settings.batch
    log.info(
        "%s: samples %d images in %d steps (%s passes forward), then fits %d steps of %d images (%s passes forward and back).",
        NODE, images, steps, f"{forward:,}", settings.steps, settings.batch, f"{fitted:,}",
    )  # fmt: skip


def _effect_line(most: float) -> str:
    weak = "; this is very little, so the model may not know these words" if most < WEAK else ""
    return f"the words change the prediction by up to {most:.2%} of its scale{weak}"


def _class_order(model: Model, prompts: PromptClasses, adp: AdpFile | None) -> Sequence[str]:
    """Return the classes in the ADP's order.

    Raises ValueError if the ADP belongs to another model or has other classes.
    """
    if adp is None:
        return prompts.classes
    check_fit(model, adp)
    if prompts.attribute not in adp.attributes:
        return prompts.classes
    wanted = {prompts.attribute: prompts.classes}
    matched(wanted, adp.attributes, "the prompts", "the ADP", "name the classes of the prompts as in the ADP")
    return adp.attributes[prompts.attribute]


def _texts(sampling: PromptSampling, prompts: PromptClasses, classes: Sequence[str]) -> tuple[list[str], int]:
    """List all prompts to encode, and count the groups.

    The negative prompt, a neutral prompt per group, and each group's class prompts.
    """
    groups = [dict(zip(prompts.classes, group, strict=True)) for group in prompts.aligned()]
    neutral = prompts.neutral()
    texts = [sampling.negative, *(neutral[g % len(neutral)] for g in range(len(groups)))]
    return texts + [group[c] for group in groups for c in classes], len(groups)


def _plan(groups: int, classes: int, sampling: PromptSampling, most: int) -> tuple[list[_Batch], int]:
    """Give every prompt an equal part of the images, in batches of one prompt each.

    Return the batches and their size.

    No batch holds more than ``most`` images.
    """
    prompts = groups * classes
    size = max(1, min(most, sampling.images // prompts))
    rounds = max(1, -(-sampling.images // (prompts * size)))
    order = [(g, c) for _ in range(rounds) for g in range(groups) for c in range(classes)]
    seed = sampling.sampler.seed
    return [_Batch(g, c, (seed + i) & 0xFFFFFFFFFFFFFFFF) for i, (g, c) in enumerate(order)], size
