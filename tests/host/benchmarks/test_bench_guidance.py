"""Cells of ``bench guidance`` and the watch of ``bench overhead``, at their smallest, through the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.guidance import guidance_samples
from equipoise.benchmarks.guidance.guidance_cells import (
    BASE,
    FIRST,
    LATENT,
    MIXING,
    OURS,
    QUOTA,
    SAMPLE,
    TEXT,
    UNCONDITIONAL,
    UNIVERSAL,
    Cell,
)
from equipoise.benchmarks.guidance.guidance_figures import CellData, fairness
from torch import Tensor

BATCH = 4


@pytest.fixture(scope="module")
def sampler(host: Any) -> Iterator[guidance_samples.CellSampler]:
    """Both models, loaded as a benchmark loads them: outside inference mode."""
    threads, boot = torch.get_num_threads(), guidance_samples.boot_host
    guidance_samples.boot_host = lambda: None
    try:
        yield guidance_samples.CellSampler((UNCONDITIONAL, TEXT))
    finally:
        guidance_samples.boot_host = boot
        torch.set_num_threads(threads)


def images(sampler: guidance_samples.CellSampler, cell: Cell) -> Tensor:
    with torch.no_grad():
        return sampler.sampled(cell)[0]


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not depend on how good the images are."""
    monkeypatch.setattr(guidance_samples, "STEPS", 6)


@pytest.fixture
def plain(sampler: guidance_samples.CellSampler, few_steps: None) -> Tensor:
    return images(sampler, Cell(BASE, None, BATCH, BATCH))


@pytest.mark.parametrize("method", ["chi-square", "kl", SAMPLE, SAMPLE + QUOTA, LATENT, LATENT + QUOTA, UNIVERSAL, UNIVERSAL + QUOTA, OURS])
def test_every_method_changes_images_and_keeps_what_its_figures_need(
    sampler: guidance_samples.CellSampler, plain: Tensor, tmp_path: Path, method: str
) -> None:
    cell = Cell(method, "eyeglasses x hair uniform", BATCH, BATCH)
    measured = sampler.make(cell, tmp_path)
    assert measured["n"] == BATCH and measured["seconds_per_image"] > 0 and measured["peak_mb"] > 100
    kept = CellData(tmp_path, cell)
    assert kept.features.shape[0] == BATCH and abs(kept.read["hair"].sum(1) - 1).max() < 1e-4
    plain_features = sampler.judge.embed(plain).numpy()
    assert abs(kept.features - plain_features).max() > 1e-4
    if cell.kind in ("chi-square", "kl"):
        assert kept.cells is None
    elif cell.by_quota:
        assert sorted(kept.cells.tolist()) == [0, 1, 2, 3], "four cells, one image each"
    else:
        assert len(kept.cells) == BATCH


@pytest.mark.parametrize("method", [SAMPLE, UNIVERSAL])
def test_a_scale_of_0_is_plain_sampling(sampler: guidance_samples.CellSampler, plain: Tensor, method: str) -> None:
    torch.testing.assert_close(images(sampler, Cell(method, FIRST, BATCH, BATCH, strength=0.0)), plain, rtol=1e-4, atol=1e-4)


def test_universal_guidance_brings_images_to_their_classes(sampler: guidance_samples.CellSampler, tmp_path: Path) -> None:
    cell = Cell(UNIVERSAL + QUOTA, FIRST, BATCH, 2 * BATCH, strength=10.0)
    sampler.make(cell, tmp_path)
    found = fairness(cell, CellData(tmp_path, cell), FIRST, bootstrap=0)
    assert found["hit"] >= 0.75, "by the judge, while the gradient is the labeller's"


def test_mixed_prompts_are_obeyed_and_show_the_same_professions(sampler: guidance_samples.CellSampler, tmp_path: Path) -> None:
    cell = Cell(MIXING + QUOTA, FIRST, BATCH, 2 * BATCH, bed=TEXT)
    for made in (cell, cell.plain):
        sampler.make(made, tmp_path)
    mixed, plain = CellData(tmp_path, cell), CellData(tmp_path, cell.plain)
    assert fairness(cell, mixed, FIRST, bootstrap=0)["hit"] >= 0.75
    for kept in (mixed, plain):
        assert kept.read["profession"].argmax(1).tolist() == [0, 1, 2, 3] * 2


def test_universal_guidance_leaves_the_negatives_rows_alone(sampler: guidance_samples.CellSampler) -> None:
    """With text, a negative prompt and attention, whose default on a CPU no gradient passes."""
    from equipoise.benchmarks.guidance.universal import apply_universal
    from equipoise.host.core.sampling import SamplerSettings, ksample
    from equipoise.host.small_models.adm_model import empty_latent

    bed, seen = sampler.beds[TEXT], []

    def score(denoised: Tensor) -> Tensor:
        seen.append(len(denoised))
        return -denoised.square().sum()

    def sample(model: Any) -> Tensor:
        settings = SamplerSettings(0, 3, 4.0, "euler", "normal")
        with torch.no_grad():
            return ksample(model, settings, bed.positive, bed.negative, empty_latent(model, 0, 0, 2))["samples"]

    before = sample(bed.model)
    guided = sample(apply_universal(bed.model, score, 1e-3))
    assert seen == [2, 2, 2] and guided.isfinite().all() and not torch.equal(guided, before)
    assert torch.equal(sample(bed.model), before), "the original is left as it was"


def test_a_watch_times_every_step_and_changes_nothing(sampler: guidance_samples.CellSampler) -> None:
    from equipoise.benchmarks.host.full_width import Watch
    from equipoise.host.core.sampling import SamplerSettings, ksample
    from equipoise.host.small_models.adm_model import empty_latent

    bed = sampler.beds[UNCONDITIONAL]
    watch = Watch(bed.model)
    latent, settings = empty_latent(bed.model, 0, 0, 1), SamplerSettings(0, 3, 1.0, "euler", "normal")
    with torch.no_grad():
        watched = ksample(watch.model, settings, bed.positive, bed.negative, latent)["samples"]
        plain = ksample(bed.model, settings, bed.positive, bed.negative, latent)["samples"]
    assert len(watch.processor) == len(watch.clock) == 3 and min(watch.processor) > 0
    assert torch.equal(watched, plain)
