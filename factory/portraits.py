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
    """A batch of drawings."""

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
    """Drawings between classes, as a diffusion model makes them now and then."""

    skin_to: Tensor
    """Another skin tone, int64 [N]."""
    skin_share: Tensor
    """How far the colour is from its own to that tone [N], in 0..1."""
    frames: Tensor
    """Opacity of the spectacles at the left and right eye [2, N], in 0..1."""


def _column(value: Tensor | float, like: Tensor) -> Tensor:
    return value.view(-1, 1, 1) if isinstance(value, Tensor) else torch.full_like(like, value).view(-1, 1, 1)


@dataclass(frozen=True)
class _Chance:
    """Random numbers for the nuisance of a batch.

    The order of the calls decides what is drawn from a seed. Shipped weights were trained on these images, so keep the order.
    """

    n: int
    """Number of images."""
    generator: torch.Generator
    """Source of all random numbers."""

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw a number for each image: [n]."""
        return torch.rand(self.n, generator=self.generator) * (high - low) + low

    def jitter(self, colour: Tensor, scale: float) -> Tensor:
        """Change colours a little: [n, 3] in 0..1."""
        return (colour + self.offsets() * scale).clamp(0, 1)

    def offsets(self) -> Tensor:
        """Draw offsets of three colour channels: [n, 3] in -1..1."""
        return torch.rand(self.n, 3, generator=self.generator) * 2 - 1

    def choose(self, colours: Tensor) -> Tensor:
        """Choose one of the colours for each image: [n, 3]."""
        return colours[torch.randint(0, len(colours), (self.n,), generator=self.generator)]


@dataclass(frozen=True)
class _Sitters:
    """Colours, place and size of the people of a batch."""

    skin: Tensor
    """Colour of the skin [n, 3]."""
    hair: Tensor
    """Colour of the hair [n, 3]."""
    wall: Tensor
    """Colour of the background [n, 3]."""
    cloth: Tensor
    """Colour of the clothing [n, 3]."""
    hx: Tensor
    """Centre of the head, horizontal [n]."""
    hy: Tensor
    """Centre of the head, vertical [n]."""
    scale: Tensor
    """Size of the person [n]."""
    rx: Tensor
    """Half the width of the face [n]."""
    ry: Tensor
    """Half the height of the face [n]."""
    professions: list[Tensor]
    """Per profession, 1.0 for the images that show it and 0.0 for the others [n]."""
    long_hair: Tensor
    """Whether the hair is long, bool [n]."""


@dataclass(frozen=True)
class _Features:
    """Eyes, spectacles and smile of the people of a batch."""

    eye_y: Tensor
    """Height of the eyes [n]."""
    gap: Tensor
    """Distance of an eye from the middle of the face [n]."""
    iris: Tensor
    """Colour of the eyes [n, 3]."""
    brow_y: Tensor
    """Height of the eyebrows [n]."""
    smile: Tensor
    """Curvature of the mouth [n]; positive is a smile."""
    frame: Tensor
    """Colour of the spectacles [n, 3]."""
    lens_x: Tensor
    """Half the width of a lens [n]."""
    lens_y: Tensor
    """Half the height of a lens [n]."""


def draw_portraits(labels: Mapping[str, Tensor], generator: torch.Generator, between: Between | None = None) -> Tensor:
    """Draw portraits with the given attributes: float32 [N, 3, 32, 32] in 0..1.

    labels: int64 [N] each.

    ``between`` replaces the spectacles of ``labels`` and shifts their skin tones.
    """
    n = labels["hair"].shape[0]
    chance, c = _Chance(n, generator), _Canvas(n)
    sitters = _choose_sitters(labels, chance, between)
    _paint_background(c, sitters, chance)
    _paint_clothing(c, sitters, chance)
    _paint_hair(c, sitters)
    _paint_face(c, sitters, chance)
    features = _choose_features(sitters, chance)
    frames = (labels["eyeglasses"] == 0).float().expand(2, n) if between is None else between.frames
    _paint_eyes(c, sitters, features, frames)
    _paint_nose_and_mouth(c, sitters, features, chance)
    return _light(c, chance)


def _choose_sitters(labels: Mapping[str, Tensor], chance: _Chance, between: Between | None) -> _Sitters:
    """Choose colours, place and size for each portrait."""
    prof, skin_id = labels["profession"], labels["skin_tone"]
    tone = _SKIN[skin_id] if between is None else torch.lerp(_SKIN[skin_id], _SKIN[between.skin_to], between.skin_share[:, None])
    skin = (tone * (1 + chance.uniform(-0.05, 0.05))[:, None] + chance.offsets() * 0.02).clamp(0, 1)
    hair = chance.jitter(chance.choose(_HAIR), 0.05)
    wall, cloth = chance.jitter(_WALL[prof], 0.10), chance.jitter(_CLOTH[prof], 0.06)
    hx, hy = chance.uniform(-0.14, 0.14), chance.uniform(-0.16, 0.02)
    scale = chance.uniform(0.88, 1.10)
    rx, ry = 0.42 * scale * chance.uniform(0.92, 1.08), 0.52 * scale * chance.uniform(0.95, 1.05)
    professions = [(prof == i).float() for i in range(4)]
    return _Sitters(skin, hair, wall, cloth, hx, hy, scale, rx, ry, professions, labels["hair"] == 1)


def _paint_background(c: _Canvas, s: _Sitters, chance: _Chance) -> None:
    """Paint brick courses, tiles, a plain wall with a skirting, or a chalk line on a board."""
    flat = torch.zeros(chance.n)
    c.paint(c.box(flat, flat, 2.0, 2.0), s.wall)
    firefighter, chef, doctor, teacher = s.professions
    phase = chance.uniform(0, 0.5)
    for k in range(5):
        c.paint(c.box(flat, phase - 1.0 + 0.5 * k, 2.0, 0.03), s.wall * 0.72, firefighter)
        c.paint(c.box(phase - 1.0 + 0.5 * k, flat, 0.03, 2.0), s.wall * 1.18, chef)
    c.paint(c.box(flat, flat + chance.uniform(0.3, 0.5), 2.0, 0.08), s.wall * 0.75, doctor)
    chalk = torch.ones(chance.n, 3) * 0.85
    c.paint(c.box(chance.uniform(-0.4, 0.4), chance.uniform(-0.85, -0.75), 0.5, 0.04), chalk, teacher)


def _paint_clothing(c: _Canvas, s: _Sitters, chance: _Chance) -> None:
    """Paint the shoulders and what shows the profession: a stripe, buttons, a neckline or a collar."""
    n = chance.n
    firefighter, chef, doctor, teacher = s.professions
    body_y = 1.12 + s.hy * 0.3
    body = c.ellipse(s.hx * 0.6, body_y, 0.86 * s.scale, 0.50)
    c.paint(body, s.cloth)
    bx = s.hx * 0.6
    yellow = chance.jitter(torch.tensor([0.95, 0.85, 0.15]).expand(n, 3), 0.05)
    c.paint(torch.maximum(body, c.box(bx, body_y - 0.26, 2.0, 0.06)), yellow, firefighter)
    for side in (-1.0, 1.0):
        c.paint(c.box(bx + side * 0.12, body_y - 0.22, 0.045, 0.05), torch.zeros(n, 3) + 0.15, chef)
    teal = chance.jitter(torch.tensor([0.10, 0.50, 0.55]).expand(n, 3), 0.06)
    v_neck = torch.maximum(body, (c.x - bx.view(-1, 1, 1)).abs() - (body_y.view(-1, 1, 1) - 0.10 - c.y) * 0.7)
    c.paint(v_neck, teal, doctor)
    collar = torch.maximum(body, (c.x - bx.view(-1, 1, 1)).abs() - (body_y.view(-1, 1, 1) - 0.22 - c.y) * 1.1)
    c.paint(collar, chance.jitter(torch.tensor([0.95, 0.92, 0.75]).expand(n, 3), 0.05), teacher)


def _paint_hair(c: _Canvas, s: _Sitters) -> None:
    """Paint the hair behind the face; long hair falls to the shoulders."""
    fall = c.box(s.hx, s.hy + 0.42 * s.scale, s.rx * 1.28, 0.46 * s.scale)
    crown = c.ellipse(s.hx, s.hy - 0.06 * s.scale, s.rx * 1.30, s.ry * 1.14)
    c.paint(torch.minimum(crown, fall), s.hair, s.long_hair.float())
    short = c.ellipse(s.hx, s.hy - 0.16 * s.scale, s.rx * 1.10, s.ry * 0.98)
    c.paint(torch.maximum(short, c.y - (s.hy + 0.02).view(-1, 1, 1)), s.hair, (~s.long_hair).float())


def _paint_face(c: _Canvas, s: _Sitters, chance: _Chance) -> None:
    """Paint neck, face, fringe and ears; long hair hides the ears."""
    c.paint(c.box(s.hx, s.hy + s.ry + 0.04, 0.15 * s.scale, 0.14), s.skin * 0.86)
    for side in (-1.0, 1.0):
        c.paint(c.ellipse(s.hx + side * s.rx, s.hy + 0.04, 0.07, 0.11), s.skin * 0.92, (~s.long_hair).float())
    face = c.ellipse(s.hx, s.hy, s.rx, s.ry)
    c.paint(face, s.skin)
    fringe_y = s.hy - s.ry * chance.uniform(0.48, 0.66)
    tilt = chance.uniform(-0.25, 0.25)
    fringe = torch.maximum(face - 0.03, c.y - fringe_y.view(-1, 1, 1) - tilt.view(-1, 1, 1) * (c.x - s.hx.view(-1, 1, 1)))
    c.paint(fringe, s.hair)


def _choose_features(s: _Sitters, chance: _Chance) -> _Features:
    """Choose eyes, spectacles and smile for each portrait."""
    eye_y, gap = s.hy - 0.04 * s.scale, s.rx * chance.uniform(0.44, 0.52)
    iris = chance.jitter(torch.tensor([0.15, 0.14, 0.14]).expand(chance.n, 3), 0.10)
    brow_y = eye_y - 0.15 * s.scale - chance.uniform(0.0, 0.04)
    smile = chance.uniform(-0.9, 1.4)
    frame = chance.jitter(chance.choose(_FRAME), 0.04)
    lens_x, lens_y = 0.155 * s.scale * chance.uniform(0.92, 1.10), 0.135 * s.scale * chance.uniform(0.9, 1.15)
    return _Features(eye_y, gap, iris, brow_y, smile, frame, lens_x, lens_y)


def _paint_eyes(c: _Canvas, s: _Sitters, f: _Features, frames: Tensor) -> None:
    """Paint eyebrows, eyes and spectacles.

    frames: opacity of the spectacles at the left and right eye [2, n].
    """
    white = torch.ones_like(s.skin)
    for side, opacity in zip((-1.0, 1.0), frames, strict=True):
        ex = s.hx + side * f.gap
        c.paint(c.box(ex, f.brow_y, 0.10 * s.scale, 0.022), s.hair * 0.7)
        c.paint(c.ellipse(ex, f.eye_y, 0.085 * s.scale, 0.06 * s.scale), white * 0.95)
        lens = c.ellipse(ex, f.eye_y, f.lens_x, f.lens_y)
        c.paint(lens, white * 0.92, opacity * 0.35)
        c.paint(c.ellipse(ex, f.eye_y, 0.045, 0.055), f.iris)
        c.paint(lens.abs() - 0.030, f.frame, opacity)
        temple = c.box(s.hx + side * (f.gap + f.lens_x + s.rx) / 2, f.eye_y, (s.rx - f.gap - f.lens_x).clamp(min=0) / 2 + 0.02, 0.026)
        c.paint(temple, f.frame, opacity)
    c.paint(c.box(s.hx, f.eye_y, (f.gap - f.lens_x).clamp(min=0.0), 0.028), f.frame, frames.mean(0))


def _paint_nose_and_mouth(c: _Canvas, s: _Sitters, f: _Features, chance: _Chance) -> None:
    """Paint the nose and the mouth."""
    c.paint(c.ellipse(s.hx, s.hy + s.ry * 0.20, 0.045, 0.07), s.skin * 0.80)
    mouth_y = s.hy + s.ry * 0.52
    dx = c.x - s.hx.view(-1, 1, 1)
    curve = c.y - mouth_y.view(-1, 1, 1) + f.smile.view(-1, 1, 1) * dx**2 - f.smile.view(-1, 1, 1) * 0.02
    mouth = torch.maximum(curve.abs() - 0.035, dx.abs() - (s.rx * chance.uniform(0.30, 0.45)).view(-1, 1, 1))
    c.paint(mouth, (s.skin * torch.tensor([0.85, 0.45, 0.45])).clamp(0, 1))


def _light(c: _Canvas, chance: _Chance) -> Tensor:
    """Light the images: brighter or darker overall, and a slope from one side."""
    gain = chance.uniform(0.90, 1.08).view(-1, 1, 1, 1)
    slope = chance.uniform(-0.10, 0.10).view(-1, 1, 1, 1) * c.x.view(1, 1, 1, SIZE)
    return (c.image * (gain + slope)).clamp(0, 1)


def portraits(n: int, seed: int, profession: int | None = None, labels: Mapping[str, Tensor] | None = None) -> Portraits:
    """Draw ``n`` portraits from a seed. ``profession`` fixes that attribute; ``labels`` fixes all of them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = dict(labels) if labels is not None else sample_labels(n, generator, profession)
    return Portraits(draw_portraits(chosen, generator), chosen)
