"""Figures by noise level, checked against cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from equipoise.methods.adp.figures import (
    Figures,
    calibration_error,
    figures,
    fit_temperature,
    reads_between,
    share_above,
    threshold_of,
    trajectory,
    verdict,
)

KNOTS = torch.tensor([-4.0, 0.0, 4.0])
WAY = [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


def test_calibration_error_of_known_cases() -> None:
    p = torch.tensor([[0.9, 0.1]]).repeat(10, 1)
    truth = torch.eye(2)[torch.tensor([0] * 9 + [1])]
    assert calibration_error(p, truth) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(p, torch.eye(2)[torch.tensor([0] * 6 + [1] * 4)]) == pytest.approx(0.3, abs=1e-6)
    assert calibration_error(p, p) == pytest.approx(0.0, abs=1e-6), "soft labels that say the same"
    mixed = torch.cat([p, torch.tensor([[0.6, 0.4]]).repeat(10, 1)])
    truth = torch.cat([truth, torch.eye(2)[torch.zeros(10, dtype=torch.long)]])
    assert calibration_error(mixed, truth) == pytest.approx(0.5 * 0.0 + 0.5 * 0.4, abs=1e-6), "bins are not averaged out against each other"


def test_calibration_error_with_class_weights_is_that_of_balanced_classes() -> None:
    """10% of the images are of class 1, and the answer is always 0 with 50%: right for classes that are equally frequent."""
    p = torch.full((100, 2), 0.5)
    truth = torch.eye(2)[(torch.arange(100) < 10).long()]
    assert calibration_error(p, truth) == pytest.approx(0.4, abs=1e-6)
    assert calibration_error(p, truth, torch.tensor([0.5 / 0.9, 0.5 / 0.1])) == pytest.approx(0.0, abs=1e-6)


def test_temperature_undoes_overconfidence_level_by_level() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 4000
    honest = torch.randn(n, 2, generator=generator)
    truth = torch.eye(2)[torch.multinomial(honest.softmax(-1), 1, generator=generator)[:, 0]]
    level = torch.where(torch.arange(n) % 2 == 0, -4.0, 0.0)
    factor = torch.where(level < -1, 4.0, 0.5)
    table = fit_temperature(honest * factor[:, None], truth, level, KNOTS)
    assert table[0] == pytest.approx(4.0, rel=0.15) and table[1] == pytest.approx(0.5, rel=0.15)
    assert table[2] == table[1], "a level that no row is near takes its neighbour's"
    assert torch.equal(fit_temperature(honest[:5], truth[:5], level[:5], KNOTS), torch.ones(3)), "too few rows anywhere"


def test_figures_are_measured_on_images_that_the_temperature_has_not_seen() -> None:
    """Labels by coin: a temperature that had seen them would look calibrated; crossed over it cannot."""
    generator = torch.Generator().manual_seed(1)
    n = 60
    logits = torch.randn(n, 2, generator=generator) * 6
    truth = torch.eye(2)[torch.randint(0, 2, (n,), generator=generator)]
    level, ids = torch.zeros(n), torch.arange(n)
    found = figures(logits, truth, level, ids, KNOTS, torch.ones(2))
    assert found.accuracy[0][0] == 0.0 and len(found.accuracy) == len(found.loss) == len(found.calibration_error) == 1
    seen = logits / fit_temperature(logits, truth, level, KNOTS)[1]
    own = -(truth * seen.log_softmax(-1)).sum(-1).mean()
    assert found.loss[0][1] > float(own) and sum(found.images) == n
    sure = figures(20 * (2 * truth - 1), truth, level, ids, KNOTS, torch.ones(2))
    assert sure.accuracy == [[0.0, 1.0]] and sure.calibration_error[0][1] < 1e-3


def test_the_way_is_made_of_the_recorded_calls() -> None:
    assert trajectory(torch.tensor([4.0, -6.0, 1.0]).repeat(7)) == [-6.0, 1.0, 4.0]
    spread = torch.linspace(-5, 5, 999)
    way = trajectory(spread)
    assert len(way) == 51 and way[0] == -5 and way[-1] == 5 and way[25] == pytest.approx(0, abs=0.02)


def test_shares_of_the_way() -> None:
    curve = [[-4.0, 0.5], [0.0, 0.7], [4.0, 1.0]]
    assert share_above(curve, WAY, 0.69) == 0.5 and share_above(curve, WAY, 1.1) == 0.0
    assert reads_between(curve, WAY, 0.69) == (4, 8) and reads_between(curve, WAY, 1.1) is None
    assert reads_between([[-4.0, 0.9], [0.0, 0.4], [1.0, 0.9]], WAY, 0.69) == (5, 8), "the longer of two stretches"


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([[-4.0, 0.5], [-1.0, 0.5], [0.0, 0.94], [3.0, 0.98]], "96% accurate on held-out images from 50% of the sampling steps on, and"),
        ([[-4.0, 0.9], [3.0, 0.9]], "90% accurate on held-out images. It reaches"),
        ([[-4.0, 0.9], [0.0, 0.9], [1.0, 0.5]], "90% accurate on held-out images up to 62% of the sampling steps, and below 70% af"),
        ([[-4.0, 0.5], [-3.0, 0.8], [0.0, 0.8], [1.0, 0.6]], "80% accurate on held-out images from 12% to 62% of the sampling steps, and"),
        ([[-4.0, 0.5], [3.0, 0.6]], "hair cannot be read: 60% accurate at best, and guessing gives 50%."),
    ],
)
def test_verdicts(curve: list[list[float]], expected: str) -> None:
    text = verdict("hair", ("short", "long"), Figures(curve, [], [], (50, 50)), WAY)
    assert text.removeprefix("hair: ").startswith(expected) and "Too few" not in text
    assert "Too few held-out images to be sure: 3 of long." in verdict("hair", ("short", "long"), Figures(curve, [], [], (50, 3)), WAY)


def test_the_threshold_rises_from_chance() -> None:
    assert threshold_of(2) == pytest.approx(0.7) and threshold_of(3) == pytest.approx(0.6)
    assert math.isclose(threshold_of(4), 0.55)
