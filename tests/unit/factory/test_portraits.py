"""The procedural portraits: same seed, same picture; the stated frequencies and correlations; attributes that can be seen."""

from __future__ import annotations

import math

import pytest
import torch
from equipoise.factory.portraits import (
    ATTRIBUTES,
    P_EYEGLASSES,
    P_LONG_HAIR,
    P_SKIN_TONE,
    SIZE,
    Between,
    draw_portraits,
    portraits,
    sample_labels,
)
from equipoise.factory.train_classifiers import draw_between
from torch import Tensor

N = 40_000


@pytest.fixture(scope="module")
def labels() -> dict[str, Tensor]:
    return sample_labels(N, torch.Generator().manual_seed(11))


def near(share: Tensor, stated: float, n: int) -> bool:
    """Within five standard errors of what is stated."""
    return abs(share.item() - stated) < 5 * math.sqrt(stated * (1 - stated) / n)


def test_same_seed_same_picture() -> None:
    a, b, c = portraits(6, 1), portraits(6, 1), portraits(6, 2)
    assert torch.equal(a.images, b.images)
    assert all(torch.equal(a.labels[k], b.labels[k]) for k in ATTRIBUTES)
    assert not torch.equal(a.images, c.images)


def test_shapes_and_range() -> None:
    drawn = portraits(8, 3)
    assert drawn.images.shape == (8, 3, SIZE, SIZE) and drawn.images.dtype == torch.float32
    assert drawn.images.min() >= 0 and drawn.images.max() <= 1
    assert list(drawn.labels) == list(ATTRIBUTES)
    for name, classes in ATTRIBUTES.items():
        assert drawn.labels[name].dtype == torch.int64 and drawn.labels[name].shape == (8,)
        assert drawn.labels[name].min() >= 0 and drawn.labels[name].max() < len(classes)


def test_stated_frequencies(labels: dict[str, Tensor]) -> None:
    assert near((labels["eyeglasses"] == 0).float().mean(), 0.20, N)
    assert near((labels["hair"] == 1).float().mean(), 0.30, N)
    for tone, stated in enumerate(P_SKIN_TONE):
        assert near((labels["skin_tone"] == tone).float().mean(), stated, N)
    assert P_SKIN_TONE == (0.70, 0.20, 0.10)
    for profession in range(4):
        assert near((labels["profession"] == profession).float().mean(), 0.25, N)


def test_stated_correlations_with_profession(labels: dict[str, Tensor]) -> None:
    assert P_EYEGLASSES == (0.05, 0.10, 0.20, 0.45)
    for profession in range(4):
        rows = labels["profession"] == profession
        count = int(rows.sum())
        assert near((labels["eyeglasses"][rows] == 0).float().mean(), P_EYEGLASSES[profession], count)
        assert near((labels["hair"][rows] == 1).float().mean(), P_LONG_HAIR[profession], count)
        assert near((labels["skin_tone"][rows] == 2).float().mean(), 0.10, count)


def test_eyeglasses_and_hair_are_linked_through_the_profession_alone(labels: dict[str, Tensor]) -> None:
    glasses, hair = (labels["eyeglasses"] == 0).double(), (labels["hair"] == 1).double()
    assert torch.corrcoef(torch.stack([glasses, hair]))[0, 1] > 0.05
    for profession in range(4):
        rows = labels["profession"] == profession
        within = torch.corrcoef(torch.stack([glasses[rows], hair[rows]]))[0, 1]
        assert abs(within) < 5 / math.sqrt(int(rows.sum()))


def test_profession_can_be_fixed() -> None:
    assert (portraits(5, 4, profession=2).labels["profession"] == 2).all()


def test_labels_can_be_fixed() -> None:
    wanted = {k: torch.full((3,), len(c) - 1) for k, c in ATTRIBUTES.items()}
    drawn = portraits(3, 5, labels=wanted)
    assert all(torch.equal(drawn.labels[k], wanted[k]) for k in wanted)
    assert torch.equal(drawn.images, draw_portraits(wanted, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("attribute", list(ATTRIBUTES))
def test_every_class_can_be_seen(attribute: str) -> None:
    """The same portrait with another class differs by more than light or noise would explain, and not everywhere."""
    base = {k: torch.zeros(16, dtype=torch.int64) for k in ATTRIBUTES}
    first = draw_portraits(base, torch.Generator().manual_seed(6))
    for index in range(1, len(ATTRIBUTES[attribute])):
        other = draw_portraits({**base, attribute: torch.full((16,), index)}, torch.Generator().manual_seed(6))
        changed = (other - first).abs().amax(dim=1)
        assert (changed > 0.15).flatten(1).sum(1).min() >= 12, f"{attribute} {index}: too few pixels change"
        if attribute == "eyeglasses":
            assert (changed > 0.02).flatten(1).float().mean() < 0.35  # around the eyes, nowhere else
            assert changed[:, 26:].max() < 0.02


def test_no_pixel_tells_the_eyeglasses() -> None:
    """Position, size and colours vary enough: the best single channel value read against a threshold is far from certain."""
    n = 1500
    chosen = sample_labels(n, torch.Generator().manual_seed(7))
    chosen["eyeglasses"] = torch.arange(n) % 2
    images = draw_portraits(chosen, torch.Generator().manual_seed(8)).flatten(1)
    best = 0.0
    for low in (0.2, 0.35, 0.5, 0.65, 0.8):
        agree = ((images > low).long() == chosen["eyeglasses"][:, None]).float().mean(0)
        best = max(best, torch.maximum(agree, 1 - agree).max().item())
    assert best < 0.85


def test_between_classes_lies_between_their_drawings() -> None:
    n = 24
    labels = sample_labels(n, torch.Generator().manual_seed(4))
    to = (labels["skin_tone"] + 1).clamp(max=2)

    def drawn(share: float, frames: torch.Tensor) -> torch.Tensor:
        return draw_portraits(labels, torch.Generator().manual_seed(5), Between(to, torch.full((n,), share), frames))

    as_labelled = (labels["eyeglasses"] == 0).float().expand(2, n)
    plain = draw_portraits(labels, torch.Generator().manual_seed(5))
    assert torch.equal(drawn(0.0, as_labelled), plain)
    there = draw_portraits({**labels, "skin_tone": to}, torch.Generator().manual_seed(5))
    assert torch.equal(drawn(1.0, as_labelled), there)
    middle = drawn(0.5, as_labelled)
    low, high = torch.minimum(plain, there), torch.maximum(plain, there)
    assert (middle >= low - 1e-5).all() and (middle <= high + 1e-5).all() and not torch.equal(middle, plain)
    bare, left = drawn(0.0, torch.zeros(2, n)), drawn(0.0, torch.tensor([[1.0], [0.0]]).expand(2, n))
    changed = (left - bare).abs().amax(1)  # [N, 32, 32]
    assert (changed[:, :, :16].sum((1, 2)) > changed[:, :, 16:].sum((1, 2))).all()  # heads stand a little off the middle, at most


def test_drawings_between_classes_count_as_the_nearer_one() -> None:
    images, labels = draw_between(64, 3)
    again, _ = draw_between(64, 3)
    assert images.shape == (64, 3, 32, 32) and images.dtype == torch.uint8 and torch.equal(images, again)
    assert all(set(labels[a].tolist()) == set(range(len(ATTRIBUTES[a]))) for a in ATTRIBUTES)
