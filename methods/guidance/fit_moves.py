"""Fit the vectors in h that move images to a class, through the decoder, once.

The network runs with h + |h| sum_k p_k V[t, c, k], where p is the ADP's reading of h. The vectors V of a level t serve two objectives at
once. Images of class c, noised, should be denoised as well as possible (the conditional score of c written as an edit of h: textual
inversion, Gal et al. 2023, in h). And images of any class should be predicted as clean images that the labeller calls c. The from-to form
is that of the gradient of a softmax classifier, w_c - sum_k p_k w_k. If no predictor reads the attribute, there is one vector per class,
V[t, c]; if no labeller knows it, denoising is the only objective. The fit finds directions and signs at every noise level. Gradients run
through the decoder half of the U-Net only, and never in sampling, which just adds the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.adp import AttributePredictor, Move
from ...models.noise_level import at_level, log_snr
from ...models.sites import GRID, MIDDLE, block_site, pool
from ..core.trainer import Progress, VectorFit
from .moves import move_vector
from .raking import raked

SCALE = "scale"
"""Name of the unit of vectors by level, [T], among what a fit has measured; 1 if absent."""
WIDTH = 96
"""Channels for which the learning rate was chosen."""


@dataclass(frozen=True)
class Diffusion:
    """Hold a diffusion model as a fit needs it, differentiable.

    Latents [B, C, H, W] have unit variance at every timestep (variance-preserving form).
    """

    output: Callable[[Tensor, int, dict[str, Any]], Tensor]
    """output(x, t, transformer_options): the network's output for latents at one timestep."""
    wanted: Callable[[Tensor, Tensor, int], Tensor]
    """wanted(clean, noise, t): the output of a perfect network."""
    clean: Callable[[Tensor, Tensor, int], Tensor]
    """clean(x, output, t): the clean latents that an output stands for."""
    logits: Callable[[Tensor], dict[str, Tensor]]
    """logits(clean): the labeller's logits of clean latents, attribute -> [B, K]."""
    alphas_cumprod: Tensor
    """Noise schedule of the model, by timestep."""
    judged: tuple[str, ...] | None = None
    """Attributes that the labeller knows; None means all."""
    scale: float = 1.0
    """Factor of the loss while gradients are taken, for networks in half precision."""
    device: torch.device = torch.device("cpu")
    """Device that the model runs on."""

    @property
    def levels(self) -> Tensor:
        """Return the log-SNR of every timestep."""
        return log_snr(((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt())

    def noised(self, clean: Tensor, noise: Tensor, t: int) -> Tensor:
        """Add noise to clean latents, up to a timestep."""
        return self.alphas_cumprod[t].sqrt() * clean + (1 - self.alphas_cumprod[t]).sqrt() * noise


@dataclass(frozen=True)
class FitSettings:
    """Set how moves are fitted."""

    steps: int = 1600
    """Number of steps."""
    batch: int = 48
    """Images per step."""
    lr: float = 1e-3
    """Learning rate of Adam for up to ``WIDTH`` channels; more channels get less. 4e-3 gave vectors twice as long as 6e-4 and no better
    ones: the rest was the noise of the gradient."""
    label_range: tuple[float, float] = (-5.0, 1.5)
    """Log-SNR between which images are sent to other classes: sharp enough to be labelled, and not yet decided."""
    denoising: float = 5.0
    """Weight of the denoising loss; the labelling loss has weight 1."""
    confident: float = 0.02
    """Cross-entropy below which an image adds no loss, so that no class is overdone."""
    shortness: float = 0.1
    """Weight of the squared length of a step, which keeps directions without a gradient at zero."""
    hold: float = 0.0
    """Weight of keeping the labels of attributes whose class an image is not sent away from. With it, images are also drawn so that
    attributes are independent of each other (:func:`.raking.raked`)."""
    seed: int = 0
    """Seed of all random numbers."""


@dataclass(frozen=True)
class FitImages:
    """Hold the images that moves are fitted to."""

    clean: Tensor
    """Images of the model itself in latent space, [N, C, H, W]."""
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    """Attribute -> class probabilities [N, K], of the attributes that are fitted."""
    conditioning: Tensor | None = None
    """Conditions [N] for ``transformer_options["y"]``, if the model has any."""
    preserved: Mapping[str, Tensor] = field(default_factory=dict)
    """Attribute -> class probabilities [N, K], of further attributes that the labeller reads and that should stay (``hold``)."""


@dataclass(frozen=True)
class SitePredictor:
    """Hold a predictor and the site that it reads."""

    predictor: AttributePredictor | None = None
    """Predictor of an ADP; None reads nothing."""
    site: str = MIDDLE
    """Site at which the predictor reads h."""

    @property
    def attributes(self) -> Collection[str]:
        """Return the attributes that are read."""
        return () if self.predictor is None else self.predictor.attributes


def move_knots(low: float = -9.0, high: float = 6.0, count: int = 11) -> Tensor:
    """Return the log-SNR levels at which moves are stored (sigma 90 to 0.05)."""
    return torch.linspace(low, high, count)


def fit_moves(
    model: Diffusion,
    images: FitImages,
    reads: SitePredictor,
    sites: Mapping[str, tuple[str, int]],
    settings: FitSettings | None = None,
    progress: Progress | None = None,
    fit: VectorFit | None = None,
    hook: MoveHook | None = None,
) -> dict[str, Move]:
    """Fit the moves of several attributes at once.

    Every row is under a random subset of them, so that they compose.

    ``sites``: attribute -> (site, channels). An attribute that the predictor does not read gets one vector per class, and is assigned
    seeded. ``fit``: from :func:`new_fit`, if the caller wants its curve or resumes it. ``hook``: applies the fit's vectors, if they are not
    added to h. Returns moves with their fitted sizes.
    """
    s = settings or FitSettings()
    clean, conditioning, names = images.clean, images.conditioning, list(sites)
    hard = {a: images.labels[a].argmax(-1) for a in names}
    classes = {a: images.labels[a].shape[1] for a in names}
    fit = fit or new_fit(classes, reads, sites, s, model.device)
    judged = [a for a in names if model.judged is None or a in model.judged]
    hook = hook or MoveHook(sites, fit.vectors, reads, model.device)
    preserved = hard | {a: t.argmax(-1) for a, t in images.preserved.items()} if s.hold else {}
    if s.hold:
        weights = {a: raked(preserved, a) for a in names}
    else:
        weights = {a: 1.0 / torch.bincount(hard[a], minlength=classes[a]).clamp(min=1).float()[hard[a]] for a in names}
    level_of, generator = model.levels, fit.generator

    def step_loss(step: int) -> tuple[Tensor, list[float]]:
        t, level = draw_level(level_of, hook.knots, generator)
        # Rows balanced over the classes of one attribute in turn: rare classes need as many as common ones.
        balanced = names[step % len(names)]
        index = torch.multinomial(weights[balanced], s.batch, replacement=True, generator=generator)
        start = clean[index].float()
        noise = torch.randn(start.shape, generator=generator).to(model.device)
        start = start.to(model.device)
        x = model.noised(start, noise, t)
        # The first half of the rows keeps its class (denoising), the second is sent to a random one (labelling).
        half = s.batch // 2 if judged and s.label_range[0] <= level <= s.label_range[1] else s.batch
        wanted_class = {a: hard[a][index].clone() for a in names}
        for a in judged:
            wanted_class[a][half:] = torch.randint(0, classes[a], (s.batch - half,), generator=generator)
        # The balanced attribute is always moved: without it the others' vectors would learn what goes along with them in a balanced set.
        include = {a: (torch.rand(s.batch, generator=generator) < (1.0 if a == balanced else 0.4)).float() for a in names}
        options = hook.options(level, wanted_class, include)
        if conditioning is not None:
            options["y"] = conditioning[index]
        output = model.output(x, t, options)
        error = ((output - model.wanted(start, noise, t))[:half] ** 2).mean()
        # What a prediction leaves over differs by orders of magnitude between levels; dividing by it lets every level count alike.
        loss = s.denoising * error / error.detach().clamp(min=1e-6)
        label_loss = torch.zeros(())
        if half < s.batch:
            logits = model.logits(model.clean(x[half:], output[half:], t))
            per_row = sum(
                (F.cross_entropy(logits[a], hook.wanted[a][half:], reduction="none") - s.confident).clamp(min=0) * hook.include[a][half:]
                for a in judged
            )
            for a in preserved:
                if a in logits:
                    change = F.cross_entropy(logits[a], preserved[a][index[half:]].to(logits[a].device), reduction="none")
                    unmoved = 1 - hook.include[a][half:] if a in hook.include else 1.0
                    per_row = per_row + s.hold * (change - s.confident).clamp(min=0) * unmoved
            label_loss = per_row.mean()
        loss = loss + label_loss + s.shortness * sum(v.mean() for v in hook.lengths)
        return loss, [error.item(), label_loss.item() if half < s.batch else float("nan")]

    fit.fit(step_loss, progress, model.scale)
    return finished_moves(fit, sites)


def new_fit(
    classes: Mapping[str, int],
    reads: SitePredictor,
    sites: Mapping[str, tuple[str, int]],
    settings: FitSettings,
    device: torch.device,
    columns: tuple[str, ...] = ("denoising", "labelling"),
) -> VectorFit:
    """Begin a fit with all vectors at zero.

    They are [T, K, K, C, 4, 4] for attributes that the predictor reads, and [T, K, 1, C, 4, 4] for others.
    """
    knots = len(move_knots())
    shapes = {a: (knots, k, k if a in reads.attributes else 1, sites[a][1], GRID, GRID) for a, k in classes.items()}
    vectors = {a: torch.zeros(shape, device=device) for a, shape in shapes.items()}
    # Adam moves every number alike far: with more of them, less each, so that a vector goes as far in a step at any width.
    lr = settings.lr * min(1.0, math.sqrt(WIDTH / max(channels for _, channels in sites.values())))
    return VectorFit(vectors, lr, settings.steps, settings.seed, columns)


def finished_moves(fit: VectorFit, sites: Mapping[str, tuple[str, int]], source: str = "learned") -> dict[str, Move]:
    """Take the moves of a fit, on the CPU."""
    knots, scale = move_knots(), fit.measured.get(SCALE)
    vectors = {a: v.detach().cpu() if scale is None else scaled(v.detach().cpu(), scale) for a, v in fit.vectors.items()}
    return {a: normalised_move(sites[a][0], knots, v, source) for a, v in vectors.items()}


def scaled(vectors: Tensor, scale: Tensor) -> Tensor:
    """Scale vectors [T, ...] by a unit for every level [T]."""
    return vectors * scale.to(vectors).view(-1, *[1] * (vectors.ndim - 1))


def draw_level(level_of: Tensor, knots: Tensor, generator: torch.Generator) -> tuple[int, float]:
    """Draw one timestep and its log-SNR for a whole call, as in sampling.

    Uniform in log-SNR over the knots and down to pure noise.
    """
    low, high = min(float(knots[0]), float(level_of.min())), float(knots[-1])
    drawn = low + (high - low) * float(torch.rand((), generator=generator))
    t = int((level_of - drawn).abs().argmin())
    return t, float(level_of[t])


class MoveHook:
    """Apply vectors in the network while they are fitted.

    ``lengths``: squared lengths of the steps of the last call, per site [B]; ``wanted`` and ``include``: its classes and whether rows are
    moved, on the device.
    """

    def __init__(
        self,
        sites: Mapping[str, tuple[str, int]],
        vectors: Mapping[str, Tensor],
        reads: SitePredictor,
        device: torch.device,
        scale: Tensor | None = None,
    ) -> None:
        """``scale`` [T]: unit of the vectors and of the lengths, by level."""
        self.sites, self.vectors, self.device, self.scale, self.read_at = sites, vectors, device, scale, reads.site
        self.predictor = None if reads.predictor is None else reads.predictor.on(device)
        self.knots = move_knots()
        self._ones = {a: torch.ones(v.shape[:2], device=device) for a, v in vectors.items()}
        self._moves: dict[str, Move] = {}
        self._square = 1.0
        self._read: dict[str, Tensor] = {}
        self.lengths: list[Tensor] = []
        self.wanted: dict[str, Tensor] = {}
        self.include: dict[str, Tensor] = {}
        self._level = 0.0

    def options(self, level: float, wanted: Mapping[str, Tensor], include: Mapping[str, Tensor]) -> dict[str, Any]:
        """Make the transformer options of the next call.

        ``wanted``: attribute -> class int64 [B]. ``include``: attribute -> 0 or 1 [B].
        """
        self._level, self._read, self.lengths = level, {}, []
        self.wanted = {a: w.to(self.device) for a, w in wanted.items()}
        self.include = {a: i.to(self.device) for a, i in include.items()}
        vectors, knots = self.vectors, self.knots.to(self.device)
        if self.scale is not None:
            vectors = {a: scaled(v, self.scale) for a, v in vectors.items()}
            self._square = float(at_level(self.scale, self.knots, torch.tensor([level]))[0]) ** 2
        self._moves = {a: Move(self.sites[a][0], knots, v, self._ones[a]) for a, v in vectors.items()}
        return {"patches": {"output_block_patch": [self.patch]}}

    def patch(self, h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Edit h, as a patch that the host calls at every output block."""
        site = block_site(options["block"])
        self.read(site, h)
        dtype = h.dtype
        norm = h.detach().float().flatten(1).norm(dim=1)[:, None, None, None]
        for a in self.sites:
            if self.sites[a][0] == site:
                step = move_vector(self._moves[a], self.wanted[a], self._read.get(a), self._level, h.shape)
                self.lengths.append(step.flatten(1).pow(2).sum(1) / self._square)
                h = h.float() + norm * step * self.include[a][:, None, None, None]
        return h.to(dtype), skip

    def read(self, site: str, h: Tensor) -> None:
        """Take a reading, if this is the predictor's site."""
        if site == self.read_at and self.predictor is not None:
            logits = self.predictor(pool(h.detach()), torch.full((h.shape[0],), self._level, device=self.device))
            self._read = {a: logits[a].softmax(-1) for a in self.sites if a in logits}


def normalised_move(site: str, knots: Tensor, vectors: Tensor, source: str = "learned") -> Move:
    """Make a move of vectors [T, K, R, C, 4, 4].

    The longest vector of a knot has norm 1; the sizes hold the lengths [T, K].

    Without a reading (R = 1) images are assigned seeded.
    """
    longest = vectors.flatten(3).norm(dim=-1).flatten(1).amax(1).clamp(min=1e-8)
    sizes = longest[:, None].expand(-1, vectors.shape[1]).clone()
    assign = "seeded" if vectors.shape[2] == 1 else "reading"
    return Move(site, knots, vectors / longest.view(-1, *[1] * (vectors.ndim - 1)), sizes, assign, source)


def natural_lengths(move: Move) -> list[float]:
    """Return the fitted length per knot, in norms of h (for logs)."""
    return [round(float(v), 4) for v in at_level(move.sizes, move.knots, move.knots).amax(1)]
