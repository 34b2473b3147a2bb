"""Draw procedural portraits: 32x32 faces whose attributes are known, with a stated skew and stated correlations.

A small world in which the truth is known. Every portrait has four attributes as they are seen in the drawing: eyeglasses (yes, no), hair
(short, long), skin tone (light, medium, dark) and profession (firefighter, chef, doctor, teacher), shown by clothing and background.
Everything else (position, size, colours, expression, light) is nuisance. Drawn with signed distances, so edges are anti-aliased.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 32

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "eyeglasses": ("yes", "no"),
    "hair": ("short", "long"),
    "skin_tone": ("light", "medium", "dark"),
    "profession": ("firefighter", "chef", "doctor", "teacher"),
}
"""Attribute -> classes, in the order of their indices everywhere in this package."""

P_EYEGLASSES = (0.05, 0.10, 0.20, 0.45)
"""P(eyeglasses = yes | profession); 0.20 overall, as the professions are equally frequent."""
P_LONG_HAIR = (0.10, 0.25, 0.35, 0.50)
"""P(hair = long | profession); 0.30 overall."""
P_SKIN_TONE = (0.70, 0.20, 0.10)
"""P(skin tone), independent of everything else."""

_SKIN = torch.tensor([[0.95, 0.80, 0.70], [0.74, 0.53, 0.38], [0.40, 0.26, 0.18]])
_HAIR = torch.tensor(
    [[0.10, 0.08, 0.08], [0.30, 0.18, 0.10], [0.52, 0.34, 0.16], [0.85, 0.70, 0.35], [0.60, 0.22, 0.10], [0.62, 0.62, 0.64]]
)
_FRAME = torch.tensor([[0.06, 0.06, 0.08], [0.22, 0.10, 0.05], [0.08, 0.10, 0.30], [0.35, 0.05, 0.08]])
_WALL = torch.tensor([[0.78, 0.46, 0.32], [0.62, 0.66, 0.72], [0.70, 0.88, 0.86], [0.22, 0.42, 0.30]])
_CLOTH = torch.tensor([[0.20, 0.20, 0.26], [0.93, 0.93, 0.91], [0.90, 0.93, 0.96], [0.50, 0.26, 0.46]])


@dataclass(frozen=True)
class Portraits:
    """Hold a batch of drawings."""

    images: Tensor
    """Pixels, float32 [N, 3, 32, 32] in 0..1."""
    labels: dict[str, Tensor]
    """Attribute -> class indices, int64 [N]."""


def sample_labels(n: int, generator: torch.Generator, profession: int | None = None) -> dict[str, Tensor]:
    """Draw attributes from the stated joint distribution; ``profession`` fixes that one. Returns int64 [n] each."""
    prof = torch.randint(0, 4, (n,), generator=generator)
    if profession is not None:
        prof = torch.full((n,), profession)
    glasses = torch.rand(n, generator=generator) < torch.tensor(P_EYEGLASSES)[prof]
    long_hair = torch.rand(n, generator=generator) < torch.tensor(P_LONG_HAIR)[prof]
    skin = torch.multinomial(torch.tensor(P_SKIN_TONE), n, replacement=True, generator=generator)
    return {"eyeglasses": (~glasses).long(), "hair": long_hair.long(), "skin_tone": skin, "profession": prof}


class _Canvas:
    """Paint a batch of images, shape by shape.

    Each shape is given by its signed distance (negative inside).
    """

    def __init__(self, n: int) -> None:
        axis = (torch.arange(SIZE, dtype=torch.float32) + 0.5) / SIZE * 2 - 1
        self.y, self.x = axis.view(1, SIZE, 1), axis.view(1, 1, SIZE)
        self.image = torch.zeros(n, 3, SIZE, SIZE)

    def paint(self, distance: Tensor, colour: Tensor, opacity: Tensor | float = 1.0) -> None:
        """Paint a shape.

        distance [n, S, S] in units of half the image; colour [n, 3]; opacity scalar or [n].
        """
        alpha = (0.5 - distance * (SIZE / 2)).clamp(0, 1)
        alpha = (alpha * (opacity.view(-1, 1, 1) if isinstance(opacity, Tensor) else opacity)).unsqueeze(1)
        self.image = self.image + alpha * (colour[:, :, None, None] - self.image)

    def ellipse(self, cx: Tensor, cy: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
        """Compute the distance of every pixel to an ellipse: [n, S, S]."""
        rx, ry = _column(rx, cx), _column(ry, cx)
        dx, dy = self.x - cx.view(-1, 1, 1), self.y - cy.view(-1, 1, 1)
        return (torch.sqrt((dx / rx) ** 2 + (dy / ry) ** 2 + 1e-9) - 1) * torch.minimum(rx, ry)

    def box(self, cx: Tensor, cy: Tensor, hx: Tensor | float, hy: Tensor | float) -> Tensor:
        """Compute the distance of every pixel to a box: [n, S, S]."""
        dx = (self.x - cx.view(-1, 1, 1)).abs() - _column(hx, cx)
        dy = (self.y - cy.view(-1, 1, 1)).abs() - _column(hy, cx)
        return torch.maximum(dx, dy)


@dataclass(frozen=True)
class Between:
    """Describe drawings between classes, as a diffusion model makes them now and then."""

    skin_to: Tensor
    """Another skin tone, int64 [N]."""
    skin_share: Tensor
    """How far the colour is from its own to that tone [N], in 0..1."""
    frames: Tensor
    """Opacity of the spectacles at the left and right eye [2, N], in 0..1."""


def _column(value: Tensor | float, like: Tensor) -> Tensor:
    return value.view(-1, 1, 1) if isinstance(value, Tensor) else torch.full_like(like, value).view(-1, 1, 1)


def draw_portraits(labels: Mapping[str, Tensor], generator: torch.Generator, between: Between | None = None) -> Tensor:
    """Draw portraits with the given attributes: float32 [N, 3, 32, 32] in 0..1.

    labels: int64 [N] each.

    ``between`` replaces the spectacles of ``labels`` and shifts their skin tones.
    """
    n = labels["hair"].shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    def jitter(colour: Tensor, scale: float) -> Tensor:
        return (colour + (torch.rand(n, 3, generator=generator) * 2 - 1) * scale).clamp(0, 1)

    prof, skin_id = labels["profession"], labels["skin_tone"]
    glasses, long_hair = labels["eyeglasses"] == 0, labels["hair"] == 1
    is_prof = [(prof == i).float() for i in range(4)]
    black, white = torch.zeros(n, 3), torch.ones(n, 3)

    tone = _SKIN[skin_id] if between is None else torch.lerp(_SKIN[skin_id], _SKIN[between.skin_to], between.skin_share[:, None])
    skin = (tone * (1 + uniform(-0.05, 0.05))[:, None] + (torch.rand(n, 3, generator=generator) * 2 - 1) * 0.02).clamp(0, 1)
    hair = jitter(_HAIR[torch.randint(0, len(_HAIR), (n,), generator=generator)], 0.05)
    wall, cloth = jitter(_WALL[prof], 0.10), jitter(_CLOTH[prof], 0.06)
    hx, hy = uniform(-0.14, 0.14), uniform(-0.16, 0.02)
    scale = uniform(0.88, 1.10)
    rx, ry = 0.42 * scale * uniform(0.92, 1.08), 0.52 * scale * uniform(0.95, 1.05)

    c = _Canvas(n)
    flat = torch.zeros(n)
    c.paint(c.box(flat, flat, 2.0, 2.0), wall)
    # Backgrounds: brick courses, tiles, a plain wall with a skirting, a chalk line on the board.
    phase = uniform(0, 0.5)
    for k in range(5):
        c.paint(c.box(flat, phase - 1.0 + 0.5 * k, 2.0, 0.03), wall * 0.72, is_prof[0])
        c.paint(c.box(phase - 1.0 + 0.5 * k, flat, 0.03, 2.0), wall * 1.18, is_prof[1])
    c.paint(c.box(flat, flat + uniform(0.3, 0.5), 2.0, 0.08), wall * 0.75, is_prof[2])
    c.paint(c.box(uniform(-0.4, 0.4), uniform(-0.85, -0.75), 0.5, 0.04), white * 0.85, is_prof[3])

    # Shoulders and what they wear.
    body_y = 1.12 + hy * 0.3
    body = c.ellipse(hx * 0.6, body_y, 0.86 * scale, 0.50)
    c.paint(body, cloth)
    bx = hx * 0.6
    yellow = jitter(torch.tensor([0.95, 0.85, 0.15]).expand(n, 3), 0.05)
    c.paint(torch.maximum(body, c.box(bx, body_y - 0.26, 2.0, 0.06)), yellow, is_prof[0])
    for side in (-1.0, 1.0):
        c.paint(c.box(bx + side * 0.12, body_y - 0.22, 0.045, 0.05), black + 0.15, is_prof[1])
    teal = jitter(torch.tensor([0.10, 0.50, 0.55]).expand(n, 3), 0.06)
    v_neck = torch.maximum(body, (c.x - bx.view(-1, 1, 1)).abs() - (body_y.view(-1, 1, 1) - 0.10 - c.y) * 0.7)
    c.paint(v_neck, teal, is_prof[2])
    collar = torch.maximum(body, (c.x - bx.view(-1, 1, 1)).abs() - (body_y.view(-1, 1, 1) - 0.22 - c.y) * 1.1)
    c.paint(collar, jitter(torch.tensor([0.95, 0.92, 0.75]).expand(n, 3), 0.05), is_prof[3])

    # Hair behind the face: long hair falls to the shoulders.
    fall = c.box(hx, hy + 0.42 * scale, rx * 1.28, 0.46 * scale)
    crown = c.ellipse(hx, hy - 0.06 * scale, rx * 1.30, ry * 1.14)
    c.paint(torch.minimum(crown, fall), hair, long_hair.float())
    short = c.ellipse(hx, hy - 0.16 * scale, rx * 1.10, ry * 0.98)
    c.paint(torch.maximum(short, c.y - (hy + 0.02).view(-1, 1, 1)), hair, (~long_hair).float())

    # Neck, face, ears (hidden by long hair).
    c.paint(c.box(hx, hy + ry + 0.04, 0.15 * scale, 0.14), skin * 0.86)
    for side in (-1.0, 1.0):
        c.paint(c.ellipse(hx + side * rx, hy + 0.04, 0.07, 0.11), skin * 0.92, (~long_hair).float())
    face = c.ellipse(hx, hy, rx, ry)
    c.paint(face, skin)
    fringe_y = hy - ry * uniform(0.48, 0.66)
    tilt = uniform(-0.25, 0.25)
    fringe = torch.maximum(face - 0.03, c.y - fringe_y.view(-1, 1, 1) - tilt.view(-1, 1, 1) * (c.x - hx.view(-1, 1, 1)))
    c.paint(fringe, hair)

    # Features.
    eye_y, gap = hy - 0.04 * scale, rx * uniform(0.44, 0.52)
    iris = jitter(torch.tensor([0.15, 0.14, 0.14]).expand(n, 3), 0.10)
    brow_y = eye_y - 0.15 * scale - uniform(0.0, 0.04)
    smile, mouth_y = uniform(-0.9, 1.4), hy + ry * 0.52
    frame = jitter(_FRAME[torch.randint(0, len(_FRAME), (n,), generator=generator)], 0.04)
    lens_x, lens_y = 0.155 * scale * uniform(0.92, 1.10), 0.135 * scale * uniform(0.9, 1.15)
    frames = glasses.float().expand(2, n) if between is None else between.frames
    for side, g in zip((-1.0, 1.0), frames, strict=True):
        ex = hx + side * gap
        c.paint(c.box(ex, brow_y, 0.10 * scale, 0.022), hair * 0.7)
        c.paint(c.ellipse(ex, eye_y, 0.085 * scale, 0.06 * scale), white * 0.95)
        lens = c.ellipse(ex, eye_y, lens_x, lens_y)
        c.paint(lens, white * 0.92, g * 0.35)
        c.paint(c.ellipse(ex, eye_y, 0.045, 0.055), iris)
        c.paint(lens.abs() - 0.030, frame, g)
        c.paint(c.box(hx + side * (gap + lens_x + rx) / 2, eye_y, (rx - gap - lens_x).clamp(min=0) / 2 + 0.02, 0.026), frame, g)
    c.paint(c.box(hx, eye_y, (gap - lens_x).clamp(min=0.0), 0.028), frame, frames.mean(0))
    c.paint(c.ellipse(hx, hy + ry * 0.20, 0.045, 0.07), skin * 0.80)
    dx = c.x - hx.view(-1, 1, 1)
    curve = c.y - mouth_y.view(-1, 1, 1) + smile.view(-1, 1, 1) * dx**2 - smile.view(-1, 1, 1) * 0.02
    mouth = torch.maximum(curve.abs() - 0.035, dx.abs() - (rx * uniform(0.30, 0.45)).view(-1, 1, 1))
    c.paint(mouth, (skin * torch.tensor([0.85, 0.45, 0.45])).clamp(0, 1))

    # Light: overall gain and a slope from one side.
    gain = uniform(0.90, 1.08).view(-1, 1, 1, 1)
    slope = uniform(-0.10, 0.10).view(-1, 1, 1, 1) * c.x.view(1, 1, 1, SIZE)
    return (c.image * (gain + slope)).clamp(0, 1)


def portraits(n: int, seed: int, profession: int | None = None, labels: Mapping[str, Tensor] | None = None) -> Portraits:
    """Draw ``n`` portraits from a seed. ``profession`` fixes that attribute; ``labels`` fixes all of them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = dict(labels) if labels is not None else sample_labels(n, generator, profession)
    return Portraits(draw_portraits(chosen, generator), chosen)
