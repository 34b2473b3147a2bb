"""What ``bench steering`` makes of its rows; the rows themselves take an hour and a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.bias_features.steering import (
    OURS,
    PAPER,
    PLAIN,
    STRENGTHS,
    TARGETS,
    SteeringRow,
    compare_with_plain,
    monotone,
    steering_result,
    steering_rows,
)
from equipoise.factory.portraits import ATTRIBUTES
from equipoise.models.files import write_safetensors


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_has_a_name_of_its_own_and_plain_ones_of_as_many_images(quick: bool) -> None:
    made = list(steering_rows(quick))
    assert len({r.name for r in made}) == len(made)
    for row in made:
        assert row.images <= next(r.images for r in made if r.bed == row.bed and r.how == PLAIN)
    assert {r.attribute for r in made if r.how == OURS} == ({"eyeglasses"} if quick else set(TARGETS))


def test_monotone_within_a_point() -> None:
    assert monotone([[-1.0, 0.0], [0.0, 0.5], [1.0, 0.492]])
    assert not monotone([[-1.0, 0.0], [0.0, 0.5], [1.0, 0.48]])


def written(folder: Path, row: SteeringRow, eyeglasses: list[int], hair: list[int], turn: float = 0.0) -> None:
    n = len(eyeglasses)
    features = torch.stack([torch.cos(torch.arange(n) + turn), torch.sin(torch.arange(n) + turn)], 1)
    hard = {a: torch.zeros(n, dtype=torch.long) for a in ATTRIBUTES}
    hard |= {"eyeglasses": torch.tensor(eyeglasses), "hair": torch.tensor(hair)}
    write_safetensors(folder / f"{row.name}.safetensors", {"features": features.half(), **{f"hard.{a}": h for a, h in hard.items()}})


def test_drift_and_similarity_are_to_plain_images_of_the_same_seeds(tmp_path: Path) -> None:
    plain, paper = SteeringRow("unconditional", PLAIN, images=4), SteeringRow("unconditional", PAPER, "eyeglasses", 2, 3.0)
    written(tmp_path, plain, [0, 0, 1, 1], [0, 0, 1, 1])
    written(tmp_path, paper, [1, 1], [0, 1], turn=torch.pi / 3)
    found = compare_with_plain(tmp_path, paper, plain)
    # Of the first two plain images none has long hair; half of the row's have.
    assert found["moved"] == {"hair": 0.5, "skin_tone": 0.0, "profession": 0.0} and found["drift"] == 0.5
    assert found["similarity"] == pytest.approx(0.5, abs=1e-3)


def figures(fd: float) -> dict[str, Any]:
    return {"fd": fd, "frechet": 1.0, "drift": 0.01, "seconds_per_image": 0.1}


def test_the_paper_is_shown_at_its_better_factor_and_what_is_missing_is_said() -> None:
    made = list(steering_rows(True))
    of = {r.name: figures(0.4 if r.factor == 3 else 0.2) for r in made if r.how == PAPER}
    of |= {r.name: figures(0.01) for r in made if r.how == OURS}
    sweep = {"eyeglasses": {"control": [[s, (s + 1) / 2] for s in STRENGTHS]}}
    out = steering_result(of, sweep, made)
    assert out["ours"]["fd"] == 0.01 and out["paper"]["fd"] == 0.2
    assert out["control_monotone"] is True and out["text_model"] is None and "text_model" in out["notes"]
    full = list(steering_rows(False))
    of |= {r.name: figures(0.3) for r in full}
    assert steering_result(of, sweep, full)["text_model"]["ours"]["fd"] == 0.3
