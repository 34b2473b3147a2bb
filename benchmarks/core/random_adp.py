"""Make ADPs with random weights and moves, for tests and for measurements of cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...models.adp import AdpFile, AttributePredictor, Move
from ...models.sites import GRID, MIDDLE

KNOTS = torch.tensor([-12.0, -6.0, 0.0, 6.0, 12.0])
"""Wider than the log-SNR range of any sampler, so that moves act at every call unless ``window`` narrows them."""


def random_predictor(
    attributes: Mapping[str, tuple[str, ...]], channels: int, kind: str = "mlp", seed: int = 0, hidden: int = 8
) -> AttributePredictor:
    """Make a predictor whose parameters and buffers are all random (float32).

    Standard deviations and temperatures are positive.
    """
    generator = torch.Generator().manual_seed(seed)
    predictor = AttributePredictor(attributes, channels, KNOTS, kind, hidden)
    with torch.no_grad():
        for name, value in predictor.state_dict().items():
            if name == "knots":
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if name.startswith(("std", "temperature")):
                drawn = drawn.abs() + 0.5
            elif value.ndim > 1 and name != "mean":
                drawn = 2 * drawn / value.shape[-1] ** 0.5
            value.copy_(drawn)
    return predictor.eval().requires_grad_(False)


def random_move(
    classes: int,
    channels: int,
    site: str = MIDDLE,
    size: float = 0.5,
    from_to: bool = True,
    assign: str = "reading",
    window: bool = False,
    seed: int = 0,
) -> Move:
    """Make a move with random vectors of norm 1 or less and random signed sizes.

    ``size`` is the largest size. With ``window`` the move acts only from log-SNR -6 to 6.
    """
    generator = torch.Generator().manual_seed(seed + 1000)
    shape = (len(KNOTS), classes, classes if from_to else 1, channels, GRID, GRID)
    vectors = torch.randn(shape, generator=generator)
    vectors /= vectors.flatten(3).norm(dim=-1).flatten(1).amax(1).view(-1, *[1] * (len(shape) - 1))
    sizes = size * (0.5 + 0.5 * torch.rand(len(KNOTS), classes, generator=generator))
    sizes[0] *= -1  # the sign turns at high noise
    if window:
        sizes[[0, 1, 3, 4]] = 0.0
    return Move(site, KNOTS, vectors, sizes, assign, "random")


def random_adp(
    attributes: Mapping[str, tuple[str, ...]],
    channels: int,
    sites: Mapping[str, tuple[str, int]] | None = None,
    base_model: str = "",
    kind: str = "mlp",
    seed: int = 0,
    hidden: int = 8,
    **move: object,
) -> AdpFile:
    """Make an ADP with a random predictor and a random move for every attribute.

    ``sites``: attribute -> (site, channels there) of its move; the default is the middle block. ``move``: arguments of random_move.
    """
    moves = {}
    for i, (attribute, classes) in enumerate(attributes.items()):
        site, width = (sites or {}).get(attribute, (MIDDLE, channels))
        moves[attribute] = random_move(len(classes), width, site, seed=seed + i, **move)
    return AdpFile(random_predictor(attributes, channels, kind, seed, hidden), moves, base_model)
