"""Learn how to move images to a class: vectors in h-space, fitted through the decoder, once, off line.

Two things are asked of the vectors V of a level t at the same time, the network running with h + |h| sum_k p_k V[t, c, k], p being the
ADP's reading of h. Images of class c, noised, are to be denoised as well as possible (the conditional score of c written as an edit of h:
textual inversion, Gal et al. 2023, in h-space). And images of any class are to be predicted as clean images that the labeller calls c.
The from-to form is that of the gradient of a softmax classifier, w_c - sum_k p_k w_k. Directions and signs at every noise level come out
of the fit; nothing is assumed of them. Gradients run through the decoder half of the U-Net only, and never in sampling, which just adds
the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.adp import GRID, MIDDLE, AttributePredictor, Move, at_level, log_snr, pool
from .guidance import move_vector
from .training import Progress, warmup_cosine


@dataclass(frozen=True)
class Diffusion:
    """A diffusion model as the fit needs it, differentiable.

    ``output(x, t, transformer_options)``: the network's output for latents [B, C, H, W] at one timestep; ``wanted(clean, noise, t)``: the
    output of a perfect network; ``clean(x, output, t)``: the clean latents that an output stands for; ``logits(clean)``: the labeller's
    logits of them, attribute -> [B, K].
    """

    output: Callable[[Tensor, int, dict[str, Any]], Tensor]
    wanted: Callable[[Tensor, Tensor, int], Tensor]
    clean: Callable[[Tensor, Tensor, int], Tensor]
    logits: Callable[[Tensor], dict[str, Tensor]]
    alphas_cumprod: Tensor


@dataclass(frozen=True)
class FitSettings:
    """``label_range``: log-SNR between which images are sent to other classes: sharp enough to be labelled, and not yet decided;
    ``denoising``: weight of the denoising loss beside the labelling loss; ``confident``: cross-entropy below which an image asks for
    nothing more, so that no class is overdone; ``shortness``: weight of the squared length of a step, which keeps directions that nothing
    asks for at zero. ``lr``: with Adam, 4e-3 gave vectors twice as long as 6e-4 and no better ones: the rest was the noise of the gradient.
    """

    steps: int = 1600
    batch: int = 48
    lr: float = 1e-3
    label_range: tuple[float, float] = (-5.0, 1.5)
    denoising: float = 5.0
    confident: float = 0.02
    shortness: float = 0.1
    seed: int = 0


def move_knots(low: float = -9.0, high: float = 6.0, count: int = 11) -> Tensor:
    """Log-SNR levels at which moves are stored (sigma 90 to 0.05)."""
    return torch.linspace(low, high, count)


def fit_moves(
    model: Diffusion,
    clean: Tensor,
    labels: Mapping[str, Tensor],
    predictor: AttributePredictor,
    sites: Mapping[str, tuple[str, int]],
    settings: FitSettings | None = None,
    conditioning: Tensor | None = None,
    progress: Progress | None = None,
) -> dict[str, Move]:
    """Fit moves of several attributes at once, every row under a random subset of them, so that they compose.

    clean [N, C, H, W]: images of the model itself in latent space; labels: attribute -> class probabilities [N, K]; sites: attribute ->
    (site, channels there). ``conditioning`` [N] goes to ``transformer_options["y"]`` where the model has one. Returns moves with their
    fitted sizes.
    """
    s = settings or FitSettings()
    generator = torch.Generator().manual_seed(s.seed)
    knots, names = move_knots(), list(sites)
    hard = {a: labels[a].argmax(-1) for a in names}
    classes = {a: labels[a].shape[1] for a in names}
    vectors = {a: nn.Parameter(torch.zeros(len(knots), classes[a], classes[a], sites[a][1], GRID, GRID)) for a in names}
    unit = {a: torch.ones(len(knots), classes[a]) for a in names}
    optimizer = torch.optim.Adam(vectors.values(), lr=s.lr, betas=(0.9, 0.99))
    level_of = log_snr(((1 - model.alphas_cumprod) / model.alphas_cumprod).sqrt())
    weights = {a: 1.0 / torch.bincount(hard[a], minlength=classes[a]).clamp(min=1).float()[hard[a]] for a in names}
    running: list[tuple[float, float]] = []
    for step in range(s.steps):
        for group in optimizer.param_groups:
            group["lr"] = s.lr * warmup_cosine(step, s.steps, 30)
        t, level = _draw_level(level_of, knots, generator)
        # Rows balanced over the classes of one attribute in turn: rare classes need as many as common ones.
        balanced = names[step % len(names)]
        index = torch.multinomial(weights[balanced], s.batch, replacement=True, generator=generator)
        noise = torch.randn(clean[index].shape, generator=generator)
        x = model.alphas_cumprod[t].sqrt() * clean[index] + (1 - model.alphas_cumprod[t]).sqrt() * noise
        # The first half of the rows keeps its class (denoising), the second is sent to a random one (labelling).
        half = s.batch // 2 if s.label_range[0] <= level <= s.label_range[1] else s.batch
        wanted_class = {a: hard[a][index].clone() for a in names}
        for a in names:
            wanted_class[a][half:] = torch.randint(0, classes[a], (s.batch - half,), generator=generator)
        # Always told the balanced attribute: without it the others' vectors would learn what goes along with them in a balanced set.
        include = {a: (torch.rand(s.batch, generator=generator) < (1.0 if a == balanced else 0.4)).float() for a in names}
        options, lengths = _hooked(sites, knots, vectors, unit, predictor, level, wanted_class, include)
        if conditioning is not None:
            options["y"] = conditioning[index]
        output = model.output(x, t, options)
        error = ((output - model.wanted(clean[index], noise, t))[:half] ** 2).mean()
        # What a prediction leaves over differs by orders of magnitude between levels; dividing by it lets every level count alike.
        loss = s.denoising * error / error.detach().clamp(min=1e-6)
        label_loss = torch.zeros(())
        if half < s.batch:
            logits = model.logits(model.clean(x[half:], output[half:], t))
            per_row = sum(
                (F.cross_entropy(logits[a], wanted_class[a][half:], reduction="none") - s.confident).clamp(min=0) * include[a][half:]
                for a in names
            )
            label_loss = per_row.mean()
        loss = loss + label_loss + s.shortness * sum(v.mean() for v in lengths)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        running.append((error.item(), label_loss.item()))
        if progress and (step + 1) % 50 == 0:
            recent = torch.tensor(running[-50:])
            progress(step + 1, s.steps, {"denoising": recent[:, 0].mean().item(), "labelling": recent[:, 1].mean().item()})
    return {a: normalised_move(sites[a][0], knots, vectors[a].detach()) for a in names}


def _draw_level(level_of: Tensor, knots: Tensor, generator: torch.Generator) -> tuple[int, float]:
    """One timestep for the whole call, uniform in log-SNR over the knots and down to pure noise: the hook then works as in sampling."""
    low, high = min(float(knots[0]), float(level_of.min())), float(knots[-1])
    drawn = low + (high - low) * float(torch.rand((), generator=generator))
    t = int((level_of - drawn).abs().argmin())
    return t, float(level_of[t])


def _hooked(
    sites: Mapping[str, tuple[str, int]],
    knots: Tensor,
    vectors: Mapping[str, Tensor],
    unit: Mapping[str, Tensor],
    predictor: AttributePredictor,
    level: float,
    wanted: Mapping[str, Tensor],
    include: Mapping[str, Tensor],
) -> tuple[dict[str, Any], list[Tensor]]:
    """transformer_options with a patch that applies the vectors, and a list that receives the squared lengths of the steps."""
    reading: dict[str, Tensor] = {}
    lengths: list[Tensor] = []

    def hook(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        site = block_site(options["block"])
        if site == MIDDLE:
            logits = predictor(pool(h.detach()), torch.full((h.shape[0],), level))
            reading.update({a: logits[a].softmax(-1) for a in sites})
        norm = h.detach().flatten(1).norm(dim=1)[:, None, None, None]
        for a in sites:
            if sites[a][0] == site:
                step = move_vector(Move(site, knots, vectors[a], unit[a]), wanted[a], reading[a], level, h.shape)
                lengths.append(step.flatten(1).pow(2).sum(1))
                h = h + norm * step * include[a][:, None, None, None]
        return h, skip

    return {"patches": {"output_block_patch": [hook]}}, lengths


def block_site(block: tuple[str, int]) -> str:
    """Name of what arrives at an output block: "middle" at ("output", 0), "output.N" at ("output", N + 1)."""
    return MIDDLE if block[1] == 0 else f"output.{block[1] - 1}"


def normalised_move(site: str, knots: Tensor, vectors: Tensor, source: str = "learned") -> Move:
    """Vectors [T, K, R, C, 4, 4] -> a move whose longest vector per knot has norm 1; the sizes hold the lengths [T, K]."""
    longest = vectors.flatten(3).norm(dim=-1).flatten(1).amax(1).clamp(min=1e-8)
    sizes = longest[:, None].expand(-1, vectors.shape[1]).clone()
    return Move(site, knots, vectors / longest.view(-1, *[1] * (vectors.ndim - 1)), sizes, source=source)


def natural_lengths(move: Move) -> list[float]:
    """Fitted length per knot, in norms of h (for logs)."""
    return [round(float(v), 4) for v in at_level(move.sizes, move.knots, move.knots).amax(1)]
