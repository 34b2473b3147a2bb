"""Fit moves to what prompts do: the neutral prompt's prediction with the edit should equal the explicit prompt's without it.

No classifier and no labels: the text model itself says what a class looks like at every noise level. Both predictions are of the same
noised latents, so that only what the words change is learned; it is written into h by the same vectors as in :mod:`.fit_moves`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.adp import Move
from ...models.noise_level import at_level
from ...models.sites import GRID
from ..core.trainer import Progress, VectorFit
from .fit_moves import SCALE, Diffusion, FitSettings, MoveHook, SitePredictor, draw_level, finished_moves, move_knots, new_fit
from .moves import LEARNED_PROMPTS

UNEDITED = "unedited"
"""Name of what the words change, mean square by knot [T], among what a fit has measured."""
FLOOR = 1e-2
"""Share of the largest change below which a level counts less, instead of being blown up."""
TRIED, NEEDED = 0.05, 0.5
"""Length of the random edit that is tried at every level, and the length for which the learning rate was chosen, in norms of h. If words
change less than an edit of that length, vectors are fitted in a smaller unit, because Adam's steps would overshoot."""


@dataclass(frozen=True)
class PromptImages:
    """Hold latents and their conditions: numbers for ``transformer_options["y"]``."""

    clean: Tensor
    """Latents [N, C, H, W], sampled under class prompts."""
    drawn: Tensor
    """Class of each latent's prompt, int64 [N]."""
    neutral: Tensor
    """Condition of the prompt without a class, int64 [N]."""
    explicit: Tensor
    """Conditions of the same prompt with each class, int64 [N, K]."""


def fit_prompt_moves(
    model: Diffusion,
    images: PromptImages,
    reads: SitePredictor,
    attribute: str,
    site: tuple[str, int],
    settings: FitSettings | None = None,
    progress: Progress | None = None,
    fit: VectorFit | None = None,
) -> Move:
    """Fit the move of one attribute at a site, given with its channels.

    The figure "unexplained" is the mean square of what the edit leaves over, as a share of what the words change at that noise level.
    """
    s, k = settings or FitSettings(), images.explicit.shape[1]
    clean, neutral, explicit = images.clean, images.neutral, images.explicit
    sites = {attribute: site}
    fit = fit or new_prompt_fit(k, reads, attribute, site, s, model.device)
    if UNEDITED not in fit.measured:
        words, edit = _measured(model, images, attribute, site, s)
        fit.measured |= {UNEDITED: words, SCALE: (TRIED * (words / edit.clamp(min=1e-20)).sqrt() / NEEDED).clamp(1e-3, 1.0)}
    hook = MoveHook(sites, fit.vectors, reads, model.device, fit.measured[SCALE])
    level_of, generator = model.levels, fit.generator
    change = fit.measured[UNEDITED]
    change = change.clamp(min=max(FLOOR * float(change.max()), 1e-12))

    def step_loss(_: int) -> tuple[Tensor, list[float]]:
        t, level = draw_level(level_of, hook.knots, generator)
        index = torch.randint(0, len(clean), (s.batch,), generator=generator)
        x = _noised(model, clean[index], t, generator)
        # Half of the rows keep their class, as they do once guidance has worked; the others are sent to any class.
        wanted = images.drawn[index].clone()
        half = s.batch // 2
        wanted[half:] = torch.randint(0, k, (s.batch - half,), generator=generator)
        with torch.no_grad():
            target = model.output(x, t, {"y": explicit[index, wanted]})
        options = hook.options(level, {attribute: wanted}, {attribute: torch.ones(s.batch)})
        output = model.output(x, t, {**options, "y": neutral[index]})
        share = ((output - target) ** 2).mean() / float(at_level(change, hook.knots, torch.tensor([level]))[0])
        loss = s.denoising * share + s.shortness * sum(v.mean() for v in hook.lengths)
        return loss, [share.item()]

    fit.fit(step_loss, progress, model.scale)
    return finished_moves(fit, sites, LEARNED_PROMPTS)[attribute]


def new_prompt_fit(
    classes: int, reads: SitePredictor, attribute: str, site: tuple[str, int], settings: FitSettings, device: torch.device
) -> VectorFit:
    """Begin a fit at zero."""
    return new_fit({attribute: classes}, reads, {attribute: site}, settings, device, ("unexplained",))


def _noised(model: Diffusion, clean: Tensor, t: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(clean.shape, generator=generator).to(model.device)
    return model.noised(clean.float().to(model.device), noise, t)


def _measured(model: Diffusion, images: PromptImages, attribute: str, site: tuple[str, int], s: FitSettings) -> tuple[Tensor, Tensor]:
    """Measure the mean squares by knot of what words, and random edits, change: [T].

    Both have random numbers of their own.
    """
    clean, neutral, explicit = images.clean, images.neutral, images.explicit
    generator = torch.Generator().manual_seed(s.seed + 1)
    edit = torch.randn(1, 1, 1, site[1], GRID, GRID, generator=generator)
    edit = (TRIED * edit / edit.norm()).expand(len(move_knots()), -1, -1, -1, -1, -1).to(model.device)
    hook = MoveHook({attribute: site}, {attribute: edit}, SitePredictor(), model.device)
    squares = []
    for knot in hook.knots:
        t = int((model.levels - knot).abs().argmin())
        index = torch.randint(0, len(clean), (s.batch,), generator=generator)
        wanted = torch.randint(0, explicit.shape[1], (s.batch,), generator=generator)
        x = _noised(model, clean[index], t, generator)
        options = hook.options(float(model.levels[t]), {attribute: torch.zeros_like(wanted)}, {attribute: torch.ones(s.batch)})
        with torch.no_grad():
            plain = model.output(x, t, {"y": neutral[index]})
            named = model.output(x, t, {"y": explicit[index, wanted]})
            edited = model.output(x, t, {**options, "y": neutral[index]})
        squares.append(torch.stack([((named - plain) ** 2).mean(), ((edited - plain) ** 2).mean()]).cpu())
    words, edits = torch.stack(squares).unbind(1)
    return words.contiguous(), edits.contiguous()
