"""The paper's losses: gradients in closed form and by finite differences, any number of classes, finite at shares of 0 and 1."""

from __future__ import annotations

import pytest
import torch
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.core.targets import TargetDistribution
from equipoise.methods.guidance.losses import CHI_SQUARE, KL, SMOOTHING, SOFT_LOSSES, soft_loss, soft_loss_gradient
from torch import Tensor

TAU = 8.0
SHAPE = (3, 2, 2)
KNOWN = {"eyeglasses": ("no", "yes"), "hair": ("short", "long"), "skin": ("light", "medium", "dark")}


def problem(target: TargetDistribution, n: int = 5, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Features [n, 3, 2, 2] in double precision and one linear map per attribute [K, 12]."""
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    sizes = {a: len(c) for a, c in zip(target.attributes, target.classes, strict=True)}
    maps = {a: torch.randn(k, 12, generator=generator, dtype=torch.float64) for a, k in sizes.items()}
    return x, maps


def gradient(mode: str, x: Tensor, maps: dict[str, Tensor], target: TargetDistribution) -> Tensor:
    x = x.clone().requires_grad_(True)
    return soft_loss_gradient(mode, x, {a: x.flatten(1) @ w.T for a, w in maps.items()}, target, TAU)


def loss_at(mode: str, x: Tensor, maps: dict[str, Tensor], target: TargetDistribution) -> Tensor:
    """The loss by its definition, with the joint table formed cell by cell."""
    q = {a: (x.flatten(1) @ w.T / TAU).softmax(-1) for a, w in maps.items()}
    mean = torch.zeros(len(target.shares), dtype=x.dtype)
    for cell in range(len(target.shares)):
        p = torch.ones(len(x), dtype=x.dtype)
        for attribute, k in target.cell_classes(cell).items():
            p = p * q[attribute][:, k]
        mean[cell] = p.mean()
    return soft_loss(mode, mean, torch.tensor(target.shares, dtype=x.dtype))


@pytest.mark.parametrize("mode", SOFT_LOSSES)
@pytest.mark.parametrize(
    "text", ["eyeglasses: yes=0.8", "skin: uniform", "skin: dark=0.6", "eyeglasses x skin: yes/light=0.5, no/medium=0.4", "hair: long=1"]
)
def test_the_gradient_is_that_of_finite_differences(mode: str, text: str) -> None:
    target = parse_target(text, KNOWN)
    x, maps = problem(target)
    found = gradient(mode, x, maps, target)
    assert found.shape == x.shape
    numeric = torch.zeros_like(x)
    step = 1e-5
    for index in range(x.numel()):
        up, down = x.clone(), x.clone()
        up.view(-1)[index] += step
        down.view(-1)[index] -= step
        numeric.view(-1)[index] = (loss_at(mode, up, maps, target) - loss_at(mode, down, maps, target)) / (2 * step)
    assert numeric.abs().max() > 1e-7
    torch.testing.assert_close(found, numeric, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.1])
def test_two_classes_in_closed_form(share: float) -> None:
    """dL/dh_i = 2/(N tau) [(p1 - r1)/r1 - (p0 - r0)/r0] q_i1 q_i0 (w1 - w0), and ln(p1/r1) - ln(p0/r0) for KL, the shares smoothed."""
    target = parse_target(f"eyeglasses: yes={share}", KNOWN)
    x, maps = problem(target, n=6)
    w = maps["eyeglasses"]
    q = (x.flatten(1) @ w.T / TAU).softmax(-1)
    p, r = q.mean(0) + SMOOTHING, torch.tensor(target.shares, dtype=x.dtype) + SMOOTHING
    common = (q[:, 1] * q[:, 0])[:, None] * (w[1] - w[0])[None] / (len(x) * TAU) / (1 + 2 * SMOOTHING)
    chi = 2 * ((p[1] - r[1]) / r[1] - (p[0] - r[0]) / r[0]) * common
    kl = ((p[1] / r[1]).log() - (p[0] / r[0]).log()) * common
    torch.testing.assert_close(gradient(CHI_SQUARE, x, maps, target).flatten(1), chi)
    torch.testing.assert_close(gradient(KL, x, maps, target).flatten(1), kl)


@pytest.mark.parametrize("mode", SOFT_LOSSES)
def test_any_number_of_classes_in_closed_form(mode: str) -> None:
    """dL/dh_i = 1/(N tau) W^T (diag(q_i) - q_i q_i^T) g, with g = dL/dp."""
    target = parse_target("skin: light=0.2, medium=0.5, dark=0.3", KNOWN)
    x, maps = problem(target, n=4)
    w = maps["skin"]
    q = (x.flatten(1) @ w.T / TAU).softmax(-1)
    mean = q.mean(0).requires_grad_(True)
    (g,) = torch.autograd.grad(soft_loss(mode, mean, torch.tensor(target.shares, dtype=x.dtype)), mean)
    expected = torch.stack([w.T @ (torch.diag(qi) - torch.outer(qi, qi)) @ g for qi in q]) / (len(x) * TAU)
    torch.testing.assert_close(gradient(mode, x, maps, target).flatten(1), expected)


@pytest.mark.parametrize("mode", SOFT_LOSSES)
def test_the_loss_is_zero_at_the_target_and_more_elsewhere(mode: str) -> None:
    r = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    assert float(soft_loss(mode, r, r)) == pytest.approx(0, abs=1e-12)
    for other in ([0.3, 0.3, 0.4], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]):
        assert float(soft_loss(mode, torch.tensor(other, dtype=torch.float64), r)) > 1e-3


@pytest.mark.parametrize("mode", SOFT_LOSSES)
@pytest.mark.parametrize("text", ["eyeglasses: yes=1, no=0", "eyeglasses: yes=0, no=1", "skin: dark=1, light=0, medium=0"])
def test_shares_of_0_and_1_stay_finite_and_point_the_right_way(mode: str, text: str) -> None:
    target = parse_target(text, KNOWN)
    x, maps = problem(target)
    (attribute,) = target.attributes
    wanted = target.shares.index(1.0)
    # One image is certain of the class that shall not be: logits far beyond what exp can hold in float32.
    x[0] = 1e4 * (maps[attribute][wanted - 1] - maps[attribute][wanted]).view(SHAPE)
    found = gradient(mode, x.float(), {a: w.float() for a, w in maps.items()}, target)
    assert found.isfinite().all()
    before = loss_at(mode, x, maps, target)
    after = loss_at(mode, x - 1e-3 * gradient(mode, x, maps, target), maps, target)
    assert before.isfinite() and after < before


def test_an_unknown_mode_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="'l2' is not one of chi-square, kl"):
        soft_loss("l2", torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]))
