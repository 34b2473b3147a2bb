"""Moves are calibrated by what they do to labels: trials whose outcome is a known function of the sizes."""

from __future__ import annotations

import pytest
import torch
from equipoise.methods.core.trials import TrialResult, composition, composition_drift
from equipoise.methods.guidance.calibration import BANDS, EARLY, calibrate, calibrate_direction, with_bands, with_gains
from equipoise.methods.guidance.fit_moves import normalised_move
from equipoise.models.adp import Move

KNOTS = torch.tensor([-8.0, EARLY, -1.0, 0.5, 4.0])


def make_move() -> Move:
    vectors = torch.randn(len(KNOTS), 3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return normalised_move("middle", KNOTS, vectors)


def gains_of(candidate: Move, move: Move) -> tuple[torch.Tensor, float]:
    """Gains per class at the late levels, and the early gain."""
    ratio = candidate.sizes / move.sizes
    assert torch.allclose(ratio[2], ratio[4]) and torch.allclose(ratio[0], ratio[1]) and torch.allclose(ratio[0], ratio[0, :1])
    return ratio[2], float(ratio[0, 0])


def test_gains_are_early_and_late() -> None:
    move = make_move()
    late, early = gains_of(with_gains(move, [0.5, 1.0, 2.0], early=1.5), move)
    assert early == pytest.approx(1.5) and torch.allclose(late, torch.tensor([0.5, 1.0, 2.0]))


def test_the_smallest_gain_that_is_enough_for_each_class_and_the_early_gain_with_the_least_drift() -> None:
    move, need = make_move(), torch.tensor([0.5, 0.8, 1.4])

    def trial(candidate: Move) -> TrialResult:
        late, early = gains_of(candidate, move)
        drift = abs(early - 1.5) * 0.1 if candidate.assign == "seeded" else 0.2
        return TrialResult((late / need).clamp(max=1.0), drift)

    best, record = calibrate(move, trial, margin=1.0)
    assert record["assign"] == best.assign == "seeded" and record["seeded"]["early_gain"] == 1.5
    assert record["seeded"]["gains"] == [0.5, 0.85, 1.5] == record["reading"]["gains"]
    assert torch.allclose(best.sizes, with_gains(move, [0.5, 0.85, 1.5], 1.5).sizes)
    assert "2" not in record["seeded"]["trials"]  # larger gains were not tried


def test_seeded_assignment_that_misses_more_is_not_kept() -> None:
    move = make_move()

    def trial(candidate: Move) -> TrialResult:
        seeded = candidate.assign == "seeded"
        late, _ = gains_of(candidate, move)
        return TrialResult(0.9 - (late - 1.0).abs() * 0.3 - 0.02 * seeded, 0.0 if seeded else 0.3)

    best, record = calibrate(move, trial)
    assert best.assign == record["assign"] == "reading"
    assert record["reading"]["gains"] == [1.0, 1.0, 1.0]  # none is enough: the one that hits most
    assert record["reading"]["early_gain"] == 1.0


def test_a_direction_gets_signed_sizes_by_band() -> None:
    move = make_move()
    assert with_bands(move, (1.0, 2.0, 3.0)).sizes[:, 0].tolist() == [1.0, 2.0, 2.0, 2.0, 3.0] and BANDS == (-4.0, 1.0)

    def trial(candidate: Move) -> TrialResult:
        high, middle, low = (float(candidate.sizes[i, 0]) for i in (0, 2, 4))
        assert (candidate.sizes == candidate.sizes[:, :1]).all()
        hit = 0.5 + 0.3 * min(middle / 0.4, 1.0) - 0.15 * high / 0.4 - 0.1 * (low > 0)
        return TrialResult(torch.tensor([hit, hit, hit]), 0.0)

    best, result, tried = calibrate_direction(move, trial)
    assert best.sizes[:, 1].tolist() == pytest.approx([-0.4, 0.4, 0.4, 0.4, 0.0])  # the sign turns at high noise, low noise is left out
    assert float(result.hits[0]) == pytest.approx(0.95) and tried["-0.4/0.4/0"][0] == pytest.approx(0.95)
    assert "0/0.15/0" in tried and "-0.4/0.4/0.4" in tried


def test_drift_is_the_distance_of_what_goes_along_with_a_class() -> None:
    classes = {"eyeglasses": 2, "hair": 2, "skin": 3}
    rows = {"eyeglasses": [0, 0, 0, 0, 1, 1], "hair": [0, 0, 1, 1, 1, 1], "skin": [0, 1, 2, 0, 0, 0]}
    read = {a: torch.tensor(v) for a, v in rows.items()}
    table = composition(read, "eyeglasses", classes)
    assert list(table) == ["hair", "skin"]
    assert table["hair"].tolist() == [[0.5, 0.5], [0.0, 1.0]] and table["skin"][0].tolist() == [0.5, 0.25, 0.25]
    weighted = composition(read, "eyeglasses", classes, torch.tensor([3.0, 3.0, 1.0, 1.0, 1.0, 1.0]))
    assert weighted["hair"].tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert composition_drift(table, table) == 0.0
    assert composition_drift({"hair": table["hair"]}, {"hair": weighted["hair"]}) == pytest.approx(0.125)
    empty = composition({**read, "eyeglasses": torch.zeros(6, dtype=torch.long)}, "eyeglasses", classes)
    assert composition_drift({"hair": empty["hair"]}, {"hair": table["hair"]}) == pytest.approx(1 / 6)  # the empty class says nothing
