"""Learn how to move images to a class: vectors in h-space that make the denoiser predict the noise of images of that class.

For images of class c, noised to a level t, vectors V are fitted so that the network with h + |h| sum_k p_k V[t, c, k] predicts their noise best,
p being the ADP's reading of h. That is the conditional score of c, written as an edit of h: the analogue of textual inversion (Gal et al. 2023)
in h-space, with the from-to form that the gradient of a softmax classifier has (w_c - sum_k p_k w_k). Directions and signs at every noise
level come out of the fit; nothing is assumed of them. Gradients run through the decoder half only, once, off line; sampling adds the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..models.adp import GRID, MIDDLE, AttributePredictor, Move, at_level, log_snr, pool
from .guidance import move_vector
from .training import Progress, warmup_cosine

Denoise = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]
"""denoise(x, timesteps, transformer_options) -> the network's output."""
Wanted = Callable[[Tensor, Tensor, int], Tensor]
"""wanted(clean, noise, timestep) -> the output that a perfect network would give: the noise, or the velocity."""


def move_knots(low: float = -9.0, high: float = 6.0, count: int = 11) -> Tensor:
    """Log-SNR levels at which moves are stored (sigma 90 to 0.05)."""
    return torch.linspace(low, high, count)


def fit_moves(
    denoise: Denoise,
    wanted: Wanted,
    clean: Tensor,
    labels: Mapping[str, Tensor],
    predictor: AttributePredictor,
    alphas_cumprod: Tensor,
    sites: Mapping[str, tuple[str, int]],
    steps: int = 1500,
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    conditioning: Tensor | None = None,
    progress: Progress | None = None,
) -> dict[str, Move]:
    """Fit moves of several attributes at once, every row under a random subset of them, so that they compose.

    clean [N, C, H, W]: images of the model itself in latent space; labels attribute ->
    class probabilities [N, K]; sites attribute -> (site, channels there). ``conditioning`` [N] goes to ``transformer_options["y"]`` where the
    model has one. Returns moves whose sizes are the fitted (natural) ones; calibration scales them.
    """
    generator = torch.Generator().manual_seed(seed)
    knots = move_knots()
    names = list(sites)
    hard = {a: labels[a].argmax(-1) for a in names}
    vectors = {
        a: nn.Parameter(torch.zeros(len(knots), labels[a].shape[1], labels[a].shape[1], sites[a][1], GRID, GRID)) for a in names
    }
    unit = {a: torch.ones(len(knots), labels[a].shape[1]) for a in names}
    optimizer = torch.optim.Adam(vectors.values(), lr=lr, betas=(0.9, 0.99))
    level_of = log_snr(((1 - alphas_cumprod) / alphas_cumprod).sqrt())
    eligible = ((level_of >= knots[0]) & (level_of <= knots[-1])).nonzero().flatten()
    weights = {a: 1.0 / torch.bincount(hard[a], minlength=labels[a].shape[1]).clamp(min=1).float()[hard[a]] for a in names}
    running: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(step, steps, 50)
        # Rows balanced over the classes of one attribute in turn: rare classes need as many as common ones.
        index = torch.multinomial(weights[names[step % len(names)]], batch, replacement=True, generator=generator)
        # One level per call: it is uniform in log-SNR, and the hook then works as it does in sampling.
        low, high = float(knots[0]), float(knots[-1])
        drawn = low + (high - low) * float(torch.rand((), generator=generator))
        t = int(eligible[(level_of[eligible] - drawn).abs().argmin()])
        level = float(level_of[t])
        noise = torch.randn(clean[index].shape, generator=generator)
        x = alphas_cumprod[t].sqrt() * clean[index] + (1 - alphas_cumprod[t]).sqrt() * noise
        include = {a: (torch.rand(batch, generator=generator) < 0.6).float() for a in names}
        reading: dict[str, Tensor] = {}

        def hook(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
            site = block_site(options["block"])
            if site == MIDDLE:
                logits = predictor(pool(h.detach()), torch.full((h.shape[0],), level))  # noqa: B023 (used within this step)
                reading.update({a: logits[a].softmax(-1) for a in names})  # noqa: B023
            norm = h.detach().flatten(1).norm(dim=1)[:, None, None, None]
            for a in names:
                if sites[a][0] == site:
                    move = Move(site, knots, vectors[a], unit[a])
                    step_vector = move_vector(move, hard[a][index], reading[a], level, h.shape)  # noqa: B023
                    h = h + norm * step_vector * include[a][:, None, None, None]  # noqa: B023
            return h, skip

        options = {"patches": {"output_block_patch": [hook]}}
        if conditioning is not None:
            options["y"] = conditioning[index]
        error = ((denoise(x, torch.full((batch,), float(t)), options)[:, : x.shape[1]] - wanted(clean[index], noise, t)) ** 2).mean()
        # What a prediction leaves over differs by orders of magnitude between levels; dividing by it lets every level count alike.
        loss = error / error.detach().clamp(min=1e-6)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        running.append(error.item())
        if progress and (step + 1) % 50 == 0:
            progress(step + 1, steps, {"loss": sum(running[-50:]) / 50})
    return {a: normalised_move(sites[a][0], knots, vectors[a].detach()) for a in names}


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
