"""bench downstream: what the sets hold, that nothing leaks between them, and how figures are put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.data import downstream
from equipoise.benchmarks.data.downstream import (
    DRAWN,
    HAIR,
    OVERSAMPLED,
    PLAIN_OVERSAMPLED,
    SETS,
    SKEWED,
    SKIN_TONE,
    DownstreamBench,
    Size,
    balanced_portraits,
    downstream_result,
    over_repetitions,
    oversampled,
    skewed_set,
    task_group_cells,
    task_only,
)
from equipoise.benchmarks.data.downstream_images import BATCH, KINDS, ImageSet, ImageSetSampler
from equipoise.factory.portraits import ATTRIBUTES
from PIL import Image

TINY = Size(repetitions=2, images=32, test=120, steps=2)


class Stub(ImageSetSampler):
    """Hands out drawn images for sampled ones."""

    asked: list[tuple[str, str, int]]

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def made(self, folder: Path, kind: str, target: str, repetition: int, n: int) -> ImageSet:
        self.asked.append((kind, target, repetition))
        group = HAIR if "hair" in target else SKIN_TONE
        drawn = balanced_portraits(group, n, KINDS.index(kind))
        return ImageSet(drawn.images, drawn.labels, None)


@pytest.fixture
def bench(tmp_path: Path) -> DownstreamBench:
    made = DownstreamBench(tmp_path, TINY)
    made.sampler = Stub()
    return made


def test_skewed_sets_are_skewed_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "_drawn", lambda labels, _: torch.zeros(len(labels[HAIR]), 3, 1, 1, dtype=torch.uint8))
    hair = [torch.bincount(task_group_cells(skewed_set(HAIR, r)), minlength=4).tolist() for r in range(5)]
    for yes_short, yes_long, no_short, no_long in hair:
        assert yes_short < 20 and no_long < 60 and yes_long > 140 and no_short > 700
    skin = [torch.bincount(task_group_cells(skewed_set(SKIN_TONE, r)), minlength=6).tolist() for r in range(5)]
    for light, medium, dark, *_ in skin:
        assert 300 < light < 400 and 20 < medium < 70 and 1 <= dark < 15
    assert len({tuple(x) for x in hair + skin}) == 10  # every repetition has a set of its own


def test_tests_are_balanced_and_of_other_drawings() -> None:
    for group in (HAIR, SKIN_TONE):
        test = balanced_portraits(group, 600, downstream.TEST_SEED)
        counts = torch.bincount(task_group_cells(test))
        assert int(counts.max() - counts.min()) == 0
        known = {x.numpy().tobytes() for x in skewed_set(group, 0).images}
        assert not any(x.numpy().tobytes() in known for x in test.images)


def test_sets_hold_what_their_names_say(bench: DownstreamBench) -> None:
    for group in (HAIR, SKIN_TONE):
        sets = {name: bench.training_set(group, name, 1) for name in SETS}
        base = sets[SKEWED]
        assert len(base) == 1000 and not base.generated.any()
        for name in (*KINDS, DRAWN):
            assert len(sets[name]) == 1032 and int(sets[name].generated.sum()) == 32
            assert torch.equal(sets[name].images[:1000], base.images)
        for name in (OVERSAMPLED, PLAIN_OVERSAMPLED):
            counts = torch.bincount(task_group_cells(sets[name]))
            assert int(counts.max()) == int(counts.min())
        assert not sets[OVERSAMPLED].generated.any() and sets[PLAIN_OVERSAMPLED].generated.any()
        assert {a for a in task_only(base).labels} == {"eyeglasses"}
    asked = set(bench.sampler.asked)
    assert ("guided", "eyeglasses x hair: uniform", 1) in asked and ("steered", "eyeglasses x skin_tone: uniform", 1) in asked


def test_oversampling_only_repeats(bench: DownstreamBench) -> None:
    base = skewed_set(HAIR, 0)
    made = oversampled(base, 3)
    known = {x.numpy().tobytes() for x in base.images}
    assert all(x.numpy().tobytes() in known for x in made.images) and torch.equal(made.images, oversampled(base, 3).images)


def test_facts_change_with_what_figures_depend_on(bench: DownstreamBench) -> None:
    facts = bench.facts(HAIR, "guided", 0)
    assert facts == bench.facts(HAIR, "guided", 0)
    others = [(HAIR, "guided", 1), (HAIR, "plain", 0), (SKIN_TONE, "guided", 0), (HAIR, SKEWED, 0)]
    assert all(bench.facts(*o) != facts for o in others)
    assert len(facts["images"]["files"].split()) == 3 and len(bench.facts(HAIR, "steered", 0)["images"]["files"].split()) == 5
    assert bench.facts(HAIR, "plain", 0)["images"]["target"] == "" and bench.facts(HAIR, SKEWED, 0)["images"] == {}


def test_sampled_sets_are_kept_and_made_again_where_they_would_be_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, calls = ImageSetSampler(), []

    def sample(kind: str, target: str, repetition: int, n: int) -> ImageSet:
        calls.append((kind, target, repetition, n))
        images = torch.full((n, 3, 2, 2), len(calls), dtype=torch.uint8)
        return ImageSet(images, {"hair": torch.zeros(n, dtype=torch.long)}, torch.arange(n))

    monkeypatch.setattr(sampler, "_sample", sample)
    first = sampler.made(tmp_path, "guided", "eyeglasses x hair: uniform", 0, BATCH)
    again = sampler.made(tmp_path, "guided", "eyeglasses x hair: uniform", 0, BATCH)
    assert len(calls) == 1 and torch.equal(first.images, again.images) and torch.equal(first.cells, again.cells)
    sampler.made(tmp_path, "guided", "eyeglasses x hair: uniform", 0, 2 * BATCH)
    sampler.made(tmp_path, "guided", "eyeglasses x skin_tone: uniform", 0, BATCH)
    assert len(calls) == 3
    sampler.made(tmp_path, "plain", "eyeglasses x hair: uniform", 0, BATCH)
    sampler.made(tmp_path, "plain", "eyeglasses x skin_tone: uniform", 0, BATCH)
    assert len(calls) == 4  # plain images have no target, and serve both


def test_intervals_are_students() -> None:
    mean, low, high = over_repetitions([0.1, 0.2, 0.3])
    assert (mean, low) == (pytest.approx(0.2), 0.0) and high == pytest.approx(0.2 + 4.302653 * 0.1 / 3**0.5, abs=1e-6)
    assert over_repetitions([0.5]) == [0.5, None, None] and over_repetitions([0.9, 1.0, 1.0])[2] == 1.0
    assert over_repetitions([-2.0, -1.0], -float("inf"))[1] < -2


def figures(accuracy: float, odds: float) -> dict[str, Any]:
    r = {"value": accuracy}
    group = {"accuracy": r, "by_class": {"yes": {"true_positive": r, "false_positive": {"value": 0.0}}}}
    found = {k: {"value": accuracy, "chance": 0.01} for k in downstream.FIGURES}
    found["equalised_odds_difference"] = {"value": odds, "chance": 0.01}
    return {**found, "groups": [{"name": n, **group} for n in ATTRIBUTES[HAIR]], "cells": [1, 2, 3, 4]}


def test_cuts_and_gains_are_paired_by_repetition() -> None:
    runs = {SKEWED: [figures(0.8, 0.4), figures(0.6, 0.8)], "guided": [figures(0.9, 0.1), figures(0.8, 0.4)]}
    made = downstream_result({HAIR: runs}, TINY)
    assert made["guided"]["cut"][0] == pytest.approx((0.75 + 0.5) / 2) and made["guided"]["gain"][0] == pytest.approx(0.15)
    assert "cut" not in made[SKEWED] and made[SKEWED]["accuracy"][0] == pytest.approx(0.7)
    assert set(made["by_skew"][HAIR]["guided"]["by_group"]) == set(ATTRIBUTES[HAIR])
    for key in ("accuracy", "worst_group_accuracy", "equalised_odds_difference"):
        assert len(made["guided"][key]) == 3


def test_it_trains_judges_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "QUICK", Size((HAIR,), repetitions=2, images=32, test=40, steps=1))
    monkeypatch.setattr(downstream, "ImageSetSampler", Stub)
    made = downstream.run(quick=True, folder=tmp_path)
    assert set(made) >= {*SETS, "by_skew", "notes"} and made["guided"]["accuracy"][1] is not None
    with Image.open(tmp_path / "quick" / "downstream.png") as picture:
        assert picture.width == 960
    monkeypatch.setattr(DownstreamBench, "measure", None)  # nothing is measured twice
    assert downstream.run(quick=True, folder=tmp_path)["by_skew"] == made["by_skew"]
