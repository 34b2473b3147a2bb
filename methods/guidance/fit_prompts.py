"""Learn moves from what prompts do: the neutral prompt's prediction with the edit is fitted to the explicit prompt's without it.

No classifier and no labels: the text model itself says what a class looks like at every noise level. Both predictions are of the same
noised latents, so that only what the words change is learned; it is written into h by the same vectors as in :mod:`.fit_moves`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.adp import AttributePredictor, Move
from ...models.noise_level import at_level
from ...models.sites import GRID, MIDDLE
from ..core.fit_state import Checkpoint, FitState, run_fit
from ..core.trainer import Progress
from .fit_moves import SCALE, Diffusion, FitSettings, MoveHook, draw_level, finished_moves, fit_state, move_knots
from .moves import LEARNED_PROMPTS

UNEDITED = "unedited"
FLOOR = 1e-2
"""Where words change less than this share of what they change most, that level counts less instead of being blown up."""
TRIED, NEEDED = 0.05, 0.5
"""Length of the random edit that is tried at every level, and the length for which the learning rate was found, in norms of h. Where words
change less than an edit of that length would, vectors are learned in a smaller unit: Adam's steps would else overshoot."""


def fit_prompt_moves(
    model: Diffusion,
    clean: Tensor,
    drawn: Tensor,
    neutral: Tensor,
    explicit: Tensor,
    predictor: AttributePredictor | None,
    attribute: str,
    site: tuple[str, int],
    settings: FitSettings | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    state: FitState | None = None,
    read_at: str = MIDDLE,
) -> Move:
    """Fit the move of one attribute. ``read_at``: the predictor's site.

    clean [N, C, H, W]: latents sampled under class prompts; drawn int64 [N]: which class's. neutral int64 [N] and explicit int64 [N, K]:
    conditions (``options["y"]`` of the model) of the prompt without a class, and of the same prompt with each class. The figure
    "unexplained" is the mean square of what the edit leaves over, as a share of what the words change at that noise level.
    """
    s, k = settings or FitSettings(), explicit.shape[1]
    sites = {attribute: site}
    state = state or prompt_state(k, predictor, attribute, site, s, model.device)
    if UNEDITED not in state.fixed:
        words, edit = _measured(model, clean, neutral, explicit, attribute, site, s)
        state.fixed |= {UNEDITED: words, SCALE: (TRIED * (words / edit.clamp(min=1e-20)).sqrt() / NEEDED).clamp(1e-3, 1.0)}
    hook = MoveHook(sites, state.vectors, predictor, model.device, state.fixed[SCALE], read_at)
    level_of, generator = model.levels, state.generator
    change = state.fixed[UNEDITED]
    change = change.clamp(min=max(FLOOR * float(change.max()), 1e-12))

    def step_loss(_: int) -> tuple[Tensor, list[float]]:
        t, level = draw_level(level_of, hook.knots, generator)
        index = torch.randint(0, len(clean), (s.batch,), generator=generator)
        x = _noised(model, clean[index], t, generator)
        # Half of the rows stay what they are, as they do once guidance has worked; the others are to become anything.
        wanted = drawn[index].clone()
        half = s.batch // 2
        wanted[half:] = torch.randint(0, k, (s.batch - half,), generator=generator)
        with torch.no_grad():
            target = model.output(x, t, {"y": explicit[index, wanted]})
        options = hook.options(level, {attribute: wanted}, {attribute: torch.ones(s.batch)})
        output = model.output(x, t, {**options, "y": neutral[index]})
        share = ((output - target) ** 2).mean() / float(at_level(change, hook.knots, torch.tensor([level]))[0])
        loss = s.denoising * share + s.shortness * sum(v.mean() for v in hook.lengths)
        return loss, [share.item()]

    run_fit(state, step_loss, checkpoint, progress, model.scale)
    return finished_moves(state, sites, LEARNED_PROMPTS)[attribute]


def prompt_state(
    classes: int, predictor: AttributePredictor | None, attribute: str, site: tuple[str, int], settings: FitSettings, device: torch.device
) -> FitState:
    """A fit that has not begun."""
    return fit_state({attribute: classes}, predictor, {attribute: site}, settings, device, ("unexplained",))


def _noised(model: Diffusion, clean: Tensor, t: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(clean.shape, generator=generator).to(model.device)
    return model.noised(clean.float().to(model.device), noise, t)


def _measured(
    model: Diffusion, clean: Tensor, neutral: Tensor, explicit: Tensor, attribute: str, site: tuple[str, int], s: FitSettings
) -> tuple[Tensor, Tensor]:
    """Mean squares by knot [T], with random numbers of their own: of what the words change, and of what a random edit changes."""
    generator = torch.Generator().manual_seed(s.seed + 1)
    edit = torch.randn(1, 1, 1, site[1], GRID, GRID, generator=generator)
    edit = (TRIED * edit / edit.norm()).expand(len(move_knots()), -1, -1, -1, -1, -1).to(model.device)
    hook = MoveHook({attribute: site}, {attribute: edit}, None, model.device)
    found = []
    for knot in hook.knots:
        t = int((model.levels - knot).abs().argmin())
        index = torch.randint(0, len(clean), (s.batch,), generator=generator)
        wanted = torch.randint(0, explicit.shape[1], (s.batch,), generator=generator)
        x = _noised(model, clean[index], t, generator)
        options = hook.options(float(model.levels[t]), {attribute: torch.zeros_like(wanted)}, {attribute: torch.ones(s.batch)})
        with torch.no_grad():
            plain = model.output(x, t, {"y": neutral[index]})
            said = model.output(x, t, {"y": explicit[index, wanted]})
            edited = model.output(x, t, {**options, "y": neutral[index]})
        found.append(torch.stack([((said - plain) ** 2).mean(), ((edited - plain) ** 2).mean()]).cpu())
    words, edits = torch.stack(found).unbind(1)
    return words.contiguous(), edits.contiguous()
