"""What ``bench guidance`` plans and makes of its cells; the cells themselves take hours and a host."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equipoise.benchmarks.core.children import cores, current_peak_megabytes, in_children, peak_megabytes, reset_peak
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.guidance import guidance as bench
from equipoise.benchmarks.guidance import guidance_figures as figures
from equipoise.benchmarks.guidance.guidance_cells import (
    BASE,
    BATCHES,
    FIRST,
    LATENT,
    METHODS,
    MIXING,
    OURS,
    PER_IMAGE,
    QUOTA,
    SAMPLE,
    SCALES,
    TARGETS,
    TEXT,
    TRIAL_SEED,
    UNCONDITIONAL,
    UNIVERSAL,
    Cell,
    at_edge,
    best_scale,
    cells,
    target_batches,
    trials,
)
from equipoise.benchmarks.guidance.guidance_samples import facts, prompt_of, reordered_cells
from equipoise.benchmarks.guidance.per_image import SampleGuidance, drawn_cells, independent_cells
from equipoise.benchmarks.guidance.universal import guided_denoised
from equipoise.factory.portraits import ATTRIBUTES
from equipoise.methods.core.run import Call
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.guidance.moves import GRADIENT
from equipoise.methods.guidance.run import GuidanceSettings
from equipoise.models.files import write_safetensors
from equipoise.models.noise_level import log_snr
from equipoise.models.sites import pool
from torch import Tensor

CONTRACT = {"base", "chi-square", "kl", "sample", "label-mixing", "latent-editing", "universal", "ours"}
CONTRACT |= {"sample+quota", "latent-editing+quota", "universal+quota"}
NEEDED = {"fd", "fd_low", "fd_high", "frechet", "drift", "unsure", "seconds_per_image", "peak_mb"}


def planned(quick: bool) -> list[Cell]:
    return list(cells(quick, {key: of_key[0].strength for key, of_key in trials(quick).items()}))


@pytest.mark.parametrize("quick", [False, True])
def test_every_method_is_measured_everywhere_beside_plain_images_of_its_seeds(quick: bool) -> None:
    made = planned(quick)
    assert len({c.name for c in made}) == len(made) and set(METHODS) >= CONTRACT
    for target, batch in target_batches(quick):
        here = {c.method for c in made if c.batch == batch and c.target in (None, target)}
        assert here == set(METHODS)
    assert all(c.plain in made and c.images % c.batch == 0 for c in made)
    assert {b for t, b in target_batches(quick) if t == FIRST} == ({1, 16} if quick else set(BATCHES))
    assert quick or {t for t, _ in target_batches(quick)} == set(TARGETS)
    assert {c.bed for c in made if c.kind == MIXING} == {TEXT} and (OURS, TEXT) in {(c.method, c.bed) for c in made}


def test_without_a_text_model_nothing_needs_one() -> None:
    scales = {key: of_key[0].strength for key, of_key in trials(True).items()}
    without = list(cells(True, scales, text=False))
    assert {c.bed for c in without} == {UNCONDITIONAL} and {c.kind for c in without} == set(SCALES) | {BASE, OURS}


@pytest.mark.parametrize("quick", [False, True])
def test_scales_are_chosen_on_other_seeds_and_under_names_of_their_own(quick: bool) -> None:
    tried = [c for of_key in trials(quick).values() for c in of_key]
    reported = planned(quick)
    assert not {c.name for c in tried} & {c.name for c in reported}
    assert {c.seed for c in tried} == {TRIAL_SEED}
    assert max(c.seed + c.images // c.batch for c in reported) < min(c.seed for c in tried), "seeds are counted on by batch"
    batches = {(c.target, c.batch) for c in tried if c.kind == "chi-square"}
    assert batches == set(target_batches(quick)), "the paper's losses have a scale for every target and batch size"


def test_of_scales_that_do_as_well_the_smallest_is_taken() -> None:
    assert best_scale({1.0: 0.5, 3.0: 0.109, 10.0: 0.1}) == 3.0
    assert best_scale({1.0: 0.5, 3.0: 0.12, 10.0: 0.1}) == 10.0


def test_facts_change_with_what_a_cell_uses() -> None:
    ours, mixed = Cell(OURS, FIRST, 4, 8), Cell(MIXING, FIRST, 4, 8, bed=TEXT)
    assert json.dumps(facts(ours)) and facts(ours)["target"] == TARGETS[FIRST]
    assert len(facts(ours)["files"]) == 3 and len(facts(mixed)["files"]) == 2 == len(facts(ours.plain)["files"])
    assert facts(Cell(UNIVERSAL, FIRST, 4, 8))["files"][-1] not in facts(ours)["files"]


def test_independent_classes_vary_and_quotas_do_not() -> None:
    target = parse_target("skin_tone: light=0.5, medium=0.3, dark=0.2", ATTRIBUTES)
    drawn = [independent_cells(target.shares, 10, seed) for seed in range(400)]
    shares = np.bincount(np.concatenate(drawn), minlength=3) / 4000
    assert np.abs(shares - target.shares).max() < 4 * 0.5 / 4000**0.5
    assert len({d.count(0) for d in drawn}) > 4 and drawn[0] == independent_cells(target.shares, 10, 0)
    quota = [drawn_cells(target, 10, seed, by_quota=True) for seed in range(20)]
    assert {tuple(np.bincount(q, minlength=3)) for q in quota} == {(5, 3, 2)} and len(set(quota)) > 10


def test_prompts_name_the_classes_in_the_words_of_the_captions() -> None:
    assert prompt_of("doctor", {}) == "a photo of a doctor"
    named = {"eyeglasses": "no", "hair": "long"}
    assert prompt_of("chef", named) == "a photo of a chef without eyeglasses and with long hair"


def test_cells_are_brought_to_the_judges_order() -> None:
    given = parse_target("a x b: uniform", {"a": ("p", "q"), "b": ("x", "y", "z")})
    wanted = parse_target("a x b: uniform", {"a": ("q", "p"), "b": ("z", "x", "y")})
    moved = reordered_cells(torch.arange(6), given, wanted)
    assert [wanted.cells[i] for i in moved] == given.cells


def test_sample_guidance_goes_up_the_softened_probability_of_the_assigned_class(load_module: Callable[..., Any], repository: Path) -> None:
    known = {"eyeglasses": ("no", "yes"), "hair": ("short", "long")}
    adp = random_adp(known, 8)
    settings = GuidanceSettings(parse_target("eyeglasses x hair: uniform", known), 1e-3, direction=GRADIENT, cells=(3, 0))
    run = SampleGuidance(adp, settings)
    h = torch.randn(4, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([2.0])
    out = run.edit("middle", h, Call.read({"sigmas": sigma.expand(2), "cond_or_uncond": [1, 0]}))
    assert torch.equal(out[:2], h[:2]), "rows of the negative stay"

    def score(x: Tensor) -> Tensor:
        logits = adp.predictor(pool(x[None]), log_snr(sigma))
        return sum((logits[a][0] / 8).softmax(-1)[k] for a, k in (("eyeglasses", 1), ("hair", 1)))

    # By finite differences, for the image that is to be the last cell.
    x, step = h[2].double().float(), torch.zeros(8, 4, 4)
    for place in [(0, 0, 0), (3, 2, 1), (7, 3, 3)]:
        step[place] = 1e-2
        slope = (score(x + step) - score(x - step)) / 2e-2
        step[place] = 0
        moved = (out[2] - h[2])[place] / (1e-3 * x.square().sum())
        assert float(moved) == pytest.approx(float(slope), rel=0.05, abs=2e-6)
    assert score(out[2]) > score(h[2]) and not torch.equal(out[3], h[3])


def test_universal_guidance_follows_its_formula_on_a_linear_denoiser() -> None:
    a, mean, strength = 0.7, 2.0, 3.0
    x, sigma = torch.randn(3, 2, 4, 4), torch.tensor([0.5, 2.0, 2.0])
    chosen = torch.tensor([False, True, True])

    def score(denoised: Tensor) -> Tensor:
        assert len(denoised) == 2
        return -0.5 * (denoised - mean).square().sum()

    with torch.inference_mode():  # as the host samples
        out = guided_denoised(lambda x: a * x, x.clone(), sigma, chosen, score, strength)
    expected = a * x + strength * sigma.square()[:, None, None, None] * a * (mean - a * x)
    torch.testing.assert_close(out[chosen], expected[chosen])
    assert torch.equal(out[0], a * x[0]) and not out.requires_grad


def test_children_work_alone_and_their_failure_is_told(tmp_path: Path) -> None:
    def work(task: int) -> None:
        if task < 0:
            raise SystemExit(3)
        (tmp_path / f"{task}").write_text(str(peak_megabytes()), encoding="utf-8")

    in_children(work, [1, 2, 3], 2, "fork")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"]
    assert all(float(p.read_text(encoding="utf-8")) > 10 for p in tmp_path.iterdir())
    with pytest.raises(ChildProcessError, match=r"-1 \(exit code 3\).*Run it again"):
        in_children(work, [-1, 4], 1, "fork")
    assert not (tmp_path / "4").exists() and cores() >= 1


def test_a_peak_can_begin_anew() -> None:
    if not reset_peak():
        pytest.skip("only Linux lets a process reset its peak of memory")
    before = current_peak_megabytes()
    # Pages of its own: a tensor may come from what the process once freed and still holds.
    with mmap.mmap(-1, 120_000_000) as pages:
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1
    assert current_peak_megabytes() > before + 100
    assert reset_peak() and current_peak_megabytes() < before + 100


def write_cell(
    folder: Path, cell: Cell, eyeglasses: list[int], hair: list[int], assigned: list[int] | None = None, sure: float = 0.9
) -> None:
    """A cell's images as the judge read them."""
    n, features = len(eyeglasses), torch.randn(len(eyeglasses), 64, generator=torch.Generator().manual_seed(0))
    seen = {"features": features}
    for attribute, classes in ATTRIBUTES.items():
        hard = torch.tensor({"eyeglasses": eyeglasses, "hair": hair}.get(attribute, [0] * n))
        rest = (1 - sure) / (len(classes) - 1)
        seen[f"read.{attribute}"] = torch.full((n, len(classes)), rest).scatter(1, hard[:, None], sure)
    if assigned is not None:
        seen["cells"] = torch.tensor(assigned)
    write_safetensors(folder / f"{cell.name}.safetensors", seen)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> figures.Reference:
    return figures.Reference(tmp_path_factory.mktemp("drawn"), images=300)


def test_the_figures_of_a_cell(tmp_path: Path, reference: figures.Reference) -> None:
    cell = Cell(OURS, FIRST, 4, 8)
    write_cell(tmp_path, cell, [0, 0, 0, 0, 1, 1, 1, 0], [0] * 6 + [1] * 2, assigned=[0, 0, 0, 0, 1, 1, 1, 1])
    write_cell(tmp_path, cell.plain, [1] * 8, [0] * 8, sure=0.7)
    sampled = {"seconds_per_image": 0.25, "peak_mb": 900.0}
    ours = figures.cell_figures(cell, FIRST, sampled, tmp_path, reference)
    assert set(ours) >= NEEDED and json.dumps(ours)
    assert ours["shares"] == {"yes": 0.625, "no": 0.375} and ours["fd"] == pytest.approx(0.125 * 2**0.5)
    assert (ours["hit"], ours["unsure"], ours["seconds_per_image"]) == (0.875, 0.0, 0.25)
    assert ours["drift_by_attribute"] == {"hair": 0.25, "skin_tone": 0.0, "profession": 0.0}
    assert 0 < ours["drift_floor"] <= ours["drift"] == 0.25
    plain = figures.cell_figures(cell.plain, "eyeglasses x hair uniform", sampled, tmp_path, reference)
    assert plain["drift"] == 0 and plain["unsure"] == 1 and plain["hit"] is None and len(plain["shares"]) == 4
    assert figures.scale_figure(cell, tmp_path) == pytest.approx(0.125)
    soft = Cell("kl", FIRST, 4, 8)
    write_cell(tmp_path, soft, [0] * 8, [0] * 8)
    assert figures.scale_figure(soft, tmp_path) == pytest.approx(0.5 * 2**0.5), "a loss on the mean assigns nothing"


def test_the_drawn_portraits_are_weighted_to_the_target(reference: figures.Reference) -> None:
    target = parse_target(TARGETS["eyeglasses x hair skewed"], ATTRIBUTES)
    weights = reference.weights(target)
    long = reference.classes["hair"] == ATTRIBUTES["hair"].index("long")
    with_glasses = reference.classes["eyeglasses"] == ATTRIBUTES["eyeglasses"].index("yes")
    assert weights[long & with_glasses].sum() / weights.sum() == pytest.approx(0.4)
    assert weights[long & ~with_glasses].sum() / weights.sum() == pytest.approx(0.1)
    assert reference.distance(reference.features, target) > 0


def fake(fd: float, commit: str = "a" * 40) -> dict[str, Any]:
    return {**dict.fromkeys(NEEDED, 0.1), "fd": fd, "fd_low": fd, "fd_high": fd + 0.01, "commit": commit}


def all_figures(quick: bool, text: bool = True) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    fd = {BASE: 0.4, "chi-square": 0.2, "kl": 0.3, OURS: 0.02, SAMPLE: 0.25}
    found = {}
    for target, batch in target_batches(quick):
        for cell in (c for c in planned(quick) if c.batch == batch and c.target in (None, target) and (text or c.bed != TEXT)):
            found[cell.bed, cell.method, target, batch] = fake(fd.get(cell.method, 0.1))
    return found


@pytest.mark.parametrize("quick", [False, True])
def test_the_contracts_keys(tmp_path: Path, quick: bool) -> None:
    out = bench.guidance_result(all_figures(quick), {}, quick, tmp_path)
    assert list(out["by_batch"]) == (["1", "16"] if quick else [str(b) for b in BATCHES])
    for methods in (*out["by_batch"].values(), *out["by_target"].values()):
        assert set(methods) >= CONTRACT and all(set(f) >= NEEDED for f in methods.values())
    assert set(out["by_target"]) == ({FIRST} if quick else set(TARGETS))
    assert out["noise_floor"] == pytest.approx(0.564 / out["n"] ** 0.5, rel=0.01)
    assert out["text_model"]["16"][OURS]["fd"] == 0.02 and "null" not in out["notes"] and "commit" not in out["notes"]
    assert (tmp_path / "guidance.png").stat().st_size > 10_000 and json.dumps(out, allow_nan=False)
    assert out["comparison"]["1"] == {
        "lowest": OURS, "lowest_fd": 0.02, "ours": 0.02, "reaches_lowest": True, "within_lowest": True,
        "of_paper": pytest.approx(0.1), "at_most_a_fifth": True,
    }  # fmt: skip
    of_text = {"lowest": OURS, "lowest_fd": 0.02, "ours": 0.02, "reaches_lowest": True, "within_lowest": True}
    assert out["text_comparison"]["1"] == of_text


def test_methods_are_compared_on_one_model_only(tmp_path: Path) -> None:
    found = all_figures(True)
    found[TEXT, MIXING, FIRST, 1] = fake(0.0)
    found[TEXT, OURS, FIRST, 16] = {**fake(0.12), "fd_low": 0.09}
    out = bench.guidance_result(found, {}, True, tmp_path)
    assert out["comparison"]["1"]["lowest"] == OURS
    first, other = out["text_comparison"]["1"], out["text_comparison"]["16"]
    assert first["lowest"] == MIXING and not first["reaches_lowest"] and not first["within_lowest"]
    assert other["lowest"] == MIXING and other["reaches_lowest"] and not other["within_lowest"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    found = all_figures(True, text=False)
    found[UNCONDITIONAL, OURS, FIRST, 1] = fake(0.05, commit="b" * 40)
    found[UNCONDITIONAL, LATENT + QUOTA, FIRST, 1] = fake(0.03)
    out = bench.guidance_result(found, {}, True, tmp_path)
    assert out["by_batch"]["1"][MIXING] is None and out["by_batch"]["16"][MIXING + QUOTA] is None and out["text_model"] is None
    assert "label-mixing is null" in out["notes"]["null"] and "aaaaaaaaa, bbbbbbbbb" in out["notes"]["commit"]
    beside = out["comparison"]["1"]
    assert beside["lowest"] == LATENT + QUOTA and not beside["reaches_lowest"]
    assert not beside["within_lowest"] and not beside["at_most_a_fifth"]


def test_a_scale_at_the_edge_of_what_was_tried_is_told(tmp_path: Path) -> None:
    tried = {(SAMPLE, FIRST, 16): [Cell(SAMPLE + QUOTA, FIRST, 16, 16, s, seed=TRIAL_SEED) for s in (1.0, 3.0, 10.0)]}
    for cell, hits in zip(tried[SAMPLE, FIRST, 16], (8, 12, 16), strict=True):
        write_cell(tmp_path, cell, [0] * 16, [0] * 16, assigned=[0] * hits + [1] * (16 - hits))
    scales, table = bench.choose_scales(tmp_path, tried)
    assert scales == {(SAMPLE, FIRST, 16): 10.0}
    (row,) = table.values()
    assert row["at_edge"] and row["missed"] == pytest.approx({"1": 0.5, "3": 0.25, "10": 0.0})


def test_larger_scales_are_tried_while_the_largest_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(scale: float) -> Cell:
        return Cell(SAMPLE + QUOTA, FIRST, 16, 16, scale, seed=TRIAL_SEED)

    hits = {3.0: 8, 10.0: 9, 30.0: 12, 100.0: 11}
    asked: list[float] = []

    def sampled(folder: Path, wanted: list[Cell], beds: tuple[str, ...], workers: int) -> None:
        for trial in wanted:
            asked.append(trial.strength)
            right = hits[trial.strength]
            write_cell(folder, trial, [0] * 16, [0] * 16, assigned=[0] * right + [1] * (16 - right))

    monkeypatch.setattr(bench, "sample_cells", sampled)
    sampled(tmp_path, [cell(3.0), cell(10.0)], (), 1)
    tried = {(SAMPLE, FIRST, 16): [cell(3.0), cell(10.0)]}
    bench.try_further(tmp_path, tried, (), 1)
    assert asked == [3.0, 10.0, 30.0, 100.0] and [c.strength for c in tried[SAMPLE, FIRST, 16]] == asked
    assert bench.choose_scales(tmp_path, tried)[0] == {(SAMPLE, FIRST, 16): 30.0}
    assert at_edge({1.0: 0.2, 3.0: 0.2}) == 3.0 and at_edge({1.0: 0.1, 3.0: 0.2}) == 1.0
    assert at_edge({1.0: 0.3, 3.0: 0.1, 10.0: 0.2}) is None


def test_cells_that_are_kept_are_not_sampled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Cell(BASE, None, 4, 8), Cell(OURS, FIRST, 4, 8)]
    asked: list[list[Cell]] = []

    class Stand:
        """Samples nothing."""

        def make(self, cell: Cell, folder: Path) -> dict[str, Any]:
            write_cell(folder, cell, [0] * 8, [0] * 8)
            return {"n": 8, "seconds_per_image": 0.1, "peak_mb": 1.0}

    def here(work: Callable[[Cell], None], tasks: list[Cell], workers: int) -> None:
        asked.append(list(tasks))
        for task in tasks:
            work(task)

    monkeypatch.setattr(bench, "_sampler", Stand())
    monkeypatch.setattr(bench, "in_children", here)
    first = bench.sample_cells(tmp_path, wanted, (UNCONDITIONAL,), 1)
    assert bench.sample_cells(tmp_path, wanted, (UNCONDITIONAL,), 1) == first and asked == [wanted]
    (tmp_path / f"{wanted[1].name}.safetensors").unlink()
    bench.sample_cells(tmp_path, wanted, (UNCONDITIONAL,), 1)
    assert asked[1:] == [[wanted[1]]], "figures without what they come from are not kept"


def test_every_per_image_method_comes_twice() -> None:
    assert all(kind + QUOTA in METHODS for kind in PER_IMAGE)
    assert Cell(SAMPLE + QUOTA, FIRST, 4, 8).dependent and not Cell(SAMPLE, FIRST, 4, 8).dependent and Cell("kl", FIRST, 4, 8).dependent
