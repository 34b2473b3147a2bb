"""Learn Directions From Prompts: moves fitted to what a text model's own words do, without classifier, labels or pictures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...methods.core.fit_state import SIGNATURE
from ...methods.guidance.fit_moves import FitSettings
from ...methods.guidance.fit_prompts import UNEDITED, fit_prompt_moves, prompt_state
from ...methods.guidance.moves import LEARNED_PROMPTS
from ...methods.guidance.prompt_classes import PromptClasses
from ...models.adp import AdpFile
from ...models.digests import tensors_digest
from ...models.files import read_safetensors, write_safetensors
from ..core.fit.differentiable import model_conditions
from ..core.fit.learning_images import encoded_prompts
from ..core.fit.session import AUTO, Learned, begin, chosen_site, diffusion_of, finish, gradients, learning_path, loaded, plain_predictor
from ..core.sampling import SamplerSettings, draw
from ..core.sites import check_fit
from ..core.versions import fitting_latent
from ..data.recording import conditioning_facts, tensor_facts, weights_mark

IMAGES = 96
WEAK = 0.01
"""Root mean square of what words change, below which the report doubts that the model knows them."""


@dataclass(frozen=True)
class _Plan:
    """``batches``: (group of aligned prompts, class, seed) each; ``size``: images of a batch."""

    batches: list[tuple[int, int, int]]
    size: int


def learn_from_prompts(
    model: Any,
    clip: Any,
    prompts: PromptClasses,
    settings: FitSettings,
    name: str,
    *,
    latent: dict[str, Any],
    sampler: SamplerSettings,
    images: int = IMAGES,
    negative: str = "",
    adp: AdpFile | None = None,
    site: str = AUTO,
) -> Learned:
    """Sample ``images`` latents (rounded up to equal parts of the class prompts) and fit the move of one attribute to them.

    With an ADP that reads the attribute, moves depend on the reading; else there is one vector per class, assigned seeded. Interrupted or
    killed, the same settings under the same ``name`` go on where they stopped. Raises ValueError, in a sentence, where the parts do not fit
    each other or memory does not suffice; the host's exception where the user interrupts.
    """
    started = time.monotonic()
    path = learning_path(name)
    place = chosen_site(model, site)
    attribute, classes = prompts.attribute, prompts.classes
    if adp is not None:
        check_fit(model, adp)
        known = adp.attributes.get(attribute, classes)
        if set(known) != set(classes):
            raise ValueError(
                f"the ADP's classes of '{attribute}' are {', '.join(known)}, and the prompts {', '.join(classes)}: name them alike."
            )
        classes = known
    aligned = [dict(zip(prompts.classes, group, strict=True)) for group in prompts.aligned()]
    neutral = prompts.neutral()
    texts = [negative, *(neutral[g % len(neutral)] for g in range(len(aligned)))]
    texts += [group[c] for group in aligned for c in classes]
    conditionings, which = encoded_prompts(clip, texts)
    start = fitting_latent(model, latent)
    groups = len(aligned)
    plan = _plan(groups, len(classes), images, start.shape[0], sampler.seed)
    of_class = which[1 + groups :].reshape(groups, len(classes))
    facts = {
        "model": weights_mark(model),
        "conditions": [conditioning_facts(c) for c in conditionings],
        "texts": texts,
        "sampler": asdict(sampler),
        "latent": tensor_facts(start),
        "plan": [plan.batches, plan.size],
    }
    clean = _samples(model, conditionings, of_class, int(which[0]), start, sampler, plan, path, json.dumps(facts, sort_keys=True))
    conditions = model_conditions(model, conditionings, clean.shape[1:])
    network = loaded(model, conditions, (settings.batch, *clean.shape[1:]))
    facts |= {
        "source": LEARNED_PROMPTS,
        "settings": asdict(settings),
        "site": place[0],
        "attribute": attribute,
        "classes": classes,
        "predictor": None if adp is None or adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
    }
    with gradients(settings.batch):
        group = torch.tensor([g for g, _, _ in plan.batches]).repeat_interleave(plan.size)
        drawn = torch.tensor([c for _, c, _ in plan.batches]).repeat_interleave(plan.size)
        predictor = plain_predictor(None if adp is None else adp.predictor)
        state = prompt_state(len(classes), predictor, attribute, place, settings, network.device)
        checkpoint, said = begin(state, name, facts)
        fit_prompt_moves(
            diffusion_of(network),
            clean,
            drawn,
            which[1 : 1 + groups][group],
            of_class[group],
            predictor,
            attribute,
            place,
            settings,
            checkpoint=checkpoint,
            state=state,
            **({} if adp is None else {"read_at": adp.site}),
        )
    lines = [f"{len(clean)} latents sampled under {len(aligned) * len(classes)} prompts of {len(classes)} classes"]
    lines += [said] if said else []
    most = float(state.fixed[UNEDITED].max().sqrt())
    weak = ": hardly anything, so the model may not know them, and there is little to learn" if most < WEAK else ""
    lines.append(f"the words change the prediction by up to {most:.2%} of its scale{weak}")
    lines.append(f"{settings.steps} steps of {settings.batch} latents; {time.monotonic() - started:.0f} s")
    return finish(state, {attribute: place}, LEARNED_PROMPTS, adp, model, {attribute: classes}, settings, lines)


def _plan(groups: int, classes: int, images: int, batch: int, seed: int) -> _Plan:
    """Equal parts for every prompt, in batches of one prompt each that are no larger than the latent's."""
    parts = groups * classes
    size = max(1, min(batch, images // parts))
    rounds = max(1, -(-images // (parts * size)))
    order = [(g, c) for _ in range(rounds) for g in range(groups) for c in range(classes)]
    return _Plan([(g, c, (seed + i) & 0xFFFFFFFFFFFFFFFF) for i, (g, c) in enumerate(order)], size)


def _samples(
    model: Any,
    conditionings: list[Any],
    of_class: Tensor,
    negative: int,
    start: Tensor,
    s: SamplerSettings,
    plan: _Plan,
    path: Path,
    signature: str,
) -> Tensor:
    """Latents [N, C, H, W] on the CPU in the model's own scale, batch after batch; those that are kept beside the checkpoint are not
    sampled again."""
    kept = path.with_name(f"{path.stem}.latents.safetensors")
    parts: list[Tensor] = []
    if kept.is_file():
        try:
            tensors, meta = read_safetensors(kept)
            parts = list(tensors["latents"].split(plan.size)) if meta.get(SIGNATURE) == signature else []
        except (KeyError, ValueError):
            parts = []
    bar = comfy.utils.ProgressBar(len(plan.batches) * s.steps)
    for number in range(len(parts), len(plan.batches)):
        group, chosen, seed = plan.batches[number]

        def step(done: int, x0: Tensor, x: Tensor, total: int, begun: int = number * s.steps) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(begun + done + 1)

        positive = conditionings[int(of_class[group, chosen])]
        part = {"samples": start[: plan.size]}
        samples = draw(model, replace(s, seed=seed), positive, conditionings[negative], part, step)
        parts.append(model.model.process_latent_in(samples).float().cpu())
        write_safetensors(kept, {"latents": torch.cat(parts)}, {SIGNATURE: signature})
    with torch.inference_mode(False):
        return torch.cat(parts)
