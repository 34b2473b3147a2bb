"""What guidance does to h at one U-Net call: who is moved, how far, and who is left alone."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp, random_move
from equipoise.methods.core.batch_run import COND_AND_UNCOND
from equipoise.methods.core.run import Call
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.guidance.moves import GRADIENT, move_vector, resized
from equipoise.methods.guidance.run import MODES, GuidanceRun, GuidanceSettings
from equipoise.models.adp import AdpFile
from equipoise.models.noise_level import log_snr
from equipoise.models.sites import MIDDLE, pool
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "skin": ("light", "medium", "dark")}
C = 6
SIGMA = 1.3
HALF = parse_target("eyeglasses: yes=0.5", ATTRIBUTES)
THREE = parse_target("skin: uniform", ATTRIBUTES)
JOINT = parse_target("eyeglasses x skin: uniform", ATTRIBUTES)


@pytest.fixture(scope="module")
def adp() -> AdpFile:
    return random_adp(ATTRIBUTES, C)


def features(n: int, height: int = 8, width: int = 8, seed: int = 0, channels: int = C) -> Tensor:
    return 3 * torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def options(batch: int, marks: list[int] | None = None, sigma: float = SIGMA, **more: Any) -> dict[str, Any]:
    return {"sigmas": torch.full((batch,), sigma), "cond_or_uncond": marks or [0], **more}


def run_of(adp: AdpFile, target: Any = HALF, **settings: Any) -> GuidanceRun:
    return GuidanceRun(adp, GuidanceSettings(target, **settings))


def norms(x: Tensor) -> Tensor:
    return x.float().flatten(1).norm(dim=1)


def steps(before: Tensor, after: Tensor) -> Tensor:
    """Length of each row's step, in norms of h."""
    return norms(after.float() - before.float()) / norms(before)


# -- the vector ----------------------------------------------------------------------------------------------------------------------

SIZES = [(4, 4), (8, 8), (16, 16), (8, 12), (26, 38), (5, 7), (9, 4), (4, 6), (64, 64), (3, 3), (2, 2), (2, 16), (1, 1)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("from_to", [False, True])
def test_a_move_has_the_same_norm_at_every_size(height: int, width: int, from_to: bool) -> None:
    move = random_move(3, C, from_to=from_to)
    classes = torch.tensor([0, 1, 2, 2])
    reading = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
    expected = norms(move_vector(move, classes, reading, 1.0, torch.Size((4, C, 4, 4))))
    vector = move_vector(move, classes, reading, 1.0, torch.Size((4, C, height, width)))
    assert vector.shape == (4, C, height, width) and vector.dtype == torch.float32
    torch.testing.assert_close(norms(vector), expected)
    assert (expected > 0.05).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_move_that_is_even_stays_even(height: int, width: int) -> None:
    out = resized(torch.ones(1, 2, 4, 4), height, width)
    torch.testing.assert_close(out, torch.full((1, 2, height, width), float(out[0, 0, 0, 0])))
    assert float(norms(out)) == pytest.approx(32**0.5)


def test_a_move_keeps_its_places_and_its_gradient() -> None:
    corner = torch.zeros(1, 1, 4, 4)
    corner[0, 0, 3, 1] = 1.0
    for height, width in ((8, 8), (10, 6), (2, 3)):
        out = resized(corner, height, width)
        bottom_left = out[0, 0, height // 2 :, : -(-width // 2)]
        assert float(bottom_left.sum()) == pytest.approx(float(out.sum())) and float(out.sum()) > 0
    # In fitting, vectors start at zero, where the ratio of norms says nothing.
    zero = torch.zeros(1, 1, 4, 4, requires_grad=True)
    resized(zero, 5, 7).sum().backward()
    assert zero.grad.isfinite().all() and zero.grad.abs().max() > 0
    assert not resized(torch.zeros(2, 1, 4, 4), 5, 2).any()


def test_vectors_and_signed_sizes_are_interpolated_over_the_level() -> None:
    move = random_move(2, C, from_to=False)
    one = torch.tensor([1])

    def vector(level: float) -> Tensor:
        return move_vector(move, one, None, level, torch.Size((1, C, 4, 4)))[0]

    torch.testing.assert_close(vector(0.0), move.vectors[2, 1, 0] * move.sizes[2, 1])
    torch.testing.assert_close(vector(-12.0), move.vectors[0, 1, 0] * move.sizes[0, 1])
    assert move.sizes[0, 1] < 0 < move.sizes[2, 1]
    middle = (move.vectors[2, 1, 0] + move.vectors[3, 1, 0]) / 2 * (move.sizes[2, 1] + move.sizes[3, 1]) / 2
    torch.testing.assert_close(vector(3.0), middle)
    torch.testing.assert_close(vector(99.0), vector(12.0))


def test_a_move_from_what_is_read_mixes_its_vectors() -> None:
    move = random_move(3, C)
    shape = torch.Size((1, C, 4, 4))
    two = torch.tensor([2])
    parts = [move_vector(move, two, torch.eye(3)[k : k + 1], 0.0, shape) for k in range(3)]
    reading = torch.tensor([[0.2, 0.3, 0.5]])
    torch.testing.assert_close(move_vector(move, two, reading, 0.0, shape), 0.2 * parts[0] + 0.3 * parts[1] + 0.5 * parts[2])
    torch.testing.assert_close(move_vector(move, two, None, 0.0, shape), sum(parts) / 3)


def test_a_move_for_another_width_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="have 6 channels at 'middle', and this model has 8 there.*another diffusion model"):
        move_vector(random_move(2, C), torch.tensor([0]), None, 0.0, torch.Size((1, 8, 4, 4)))


# -- off -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("settings", "marks", "rows"),
    [
        ({"strength": 0.0}, [0], 3),
        ({"sigma_start": SIGMA / 2}, [0], 3),
        ({"sigma_end": SIGMA * 2}, [0], 3),
        ({"sigma_start": 0.0, "sigma_end": float("inf")}, [0], 3),
        ({}, [1], 3),
        ({}, [1, 0], 4),
    ],
    ids=["strength 0", "too early", "too late", "empty window", "negative's rows alone", "rows that do not divide"],
)
def test_where_nothing_is_to_be_done_the_same_object_comes_back(
    adp: AdpFile, mode: str, settings: dict[str, Any], marks: list[int], rows: int
) -> None:
    h = features(rows)
    before = h.clone()
    run = run_of(adp, mode=mode, **settings)
    assert run.edit(MIDDLE, h, Call.read(options(3, marks))) is h
    assert torch.equal(h, before) and run.cells is None


def test_h_itself_is_never_written_to(adp: AdpFile) -> None:
    for mode in MODES:
        h = features(4)
        before = h.clone()
        out = run_of(adp, mode=mode).edit(MIDDLE, h, Call.read(options(4)))
        assert out is not h and torch.equal(h, before)
        assert (steps(h, out) > 1e-3).all()


def test_a_site_without_a_move_is_left_alone() -> None:
    adp = random_adp(ATTRIBUTES, C, {"eyeglasses": ("output.2", 10)})
    run = run_of(adp)
    assert run.sites == {MIDDLE, "output.2"}
    h, up = features(4), features(4, 16, 16, channels=10)
    assert run.edit(MIDDLE, h, Call.read(options(4))) is h
    out = run.edit("output.2", up, Call.read(options(4)))
    assert out.shape == up.shape and (steps(up, out) > 1e-3).all()
    assert run_of(adp, mode="kl").sites == {MIDDLE}
    soft = run_of(adp, mode="kl")
    assert soft.edit("output.2", up, Call.read(options(4))) is up


# -- quotas --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [HALF, THREE, JOINT, parse_target("eyeglasses: yes=0.1", ATTRIBUTES)], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 16])
def test_a_batch_of_any_size_gets_its_quotas(adp: AdpFile, target: Any, n: int) -> None:
    for seed in range(3):
        run = run_of(adp, target, seed=seed)
        run.edit(MIDDLE, features(n, seed=seed), Call.read(options(n)))
        assert run.cells.shape == (n,) and run.cells.dtype == torch.int64
        counts = [run.cells.tolist().count(c) for c in range(len(target.shares))]
        assert counts == run.counts
        assert all(abs(count - share * n) < 1 for count, share in zip(counts, target.shares, strict=True))


def test_images_go_where_the_least_change_is_asked(adp: AdpFile) -> None:
    h = features(8)
    p = adp.predictor(pool(h), torch.full((8,), float(log_snr(SIGMA))))["eyeglasses"].softmax(-1)
    run = run_of(adp)
    run.edit(MIDDLE, h, Call.read(options(8)))
    most_likely = p[:, 1].argsort(descending=True)[:4]
    assert sorted(run.cells.nonzero().flatten().tolist()) == sorted(most_likely.tolist())
    torch.testing.assert_close(torch.tensor(run.readings.shares[0]["eyeglasses"]), p.mean(0))
    assert run.readings.log_snr == [pytest.approx(float(log_snr(SIGMA)))]


def test_joint_cells_are_assigned_by_the_product_of_the_readings(adp: AdpFile) -> None:
    h = features(12)
    logits = adp.predictor(pool(h), torch.full((12,), float(log_snr(SIGMA))))
    target = parse_target("eyeglasses x skin: yes/dark=1", ATTRIBUTES)
    run = run_of(adp, target)
    run.edit(MIDDLE, h, Call.read(options(12)))
    assert [target.names[c] for c in run.cells.tolist()] == ["yes/dark"] * 12
    target = parse_target("eyeglasses x skin: no/light=0.25, yes/dark=0.75", ATTRIBUTES)
    run = run_of(adp, target)
    run.edit(MIDDLE, h, Call.read(options(12)))
    first, second = logits["eyeglasses"].log_softmax(-1), logits["skin"].log_softmax(-1)
    gain = (first[:, 0] + second[:, 0]) - (first[:, 1] + second[:, 2])
    light = [i for i, c in enumerate(run.cells.tolist()) if target.names[c] == "no/light"]
    assert sorted(light) == sorted(gain.argsort(descending=True)[:3].tolist())


def test_the_target_may_name_the_classes_in_another_order(adp: AdpFile) -> None:
    other = parse_target("eyeglasses: yes=0.75, no=0.25", {"eyeglasses": ("yes", "no")})
    same = parse_target("eyeglasses: yes=0.75, no=0.25", ATTRIBUTES)
    h = features(4)
    one, two = run_of(adp, other), run_of(adp, same)
    assert torch.equal(one.edit(MIDDLE, h, Call.read(options(4))), two.edit(MIDDLE, h, Call.read(options(4))))
    assert Counter(one.cells.tolist()) == {ATTRIBUTES["eyeglasses"].index("yes"): 3, 0: 1}


def test_images_keep_their_class_to_the_end_of_the_run(adp: AdpFile) -> None:
    run = run_of(adp)
    run.edit(MIDDLE, features(8, seed=1), Call.read(options(8, sigma=20.0)))
    cells = run.cells.clone()
    for seed in range(2, 6):
        run.edit(MIDDLE, features(8, seed=seed), Call.read(options(8, sigma=10.0 / seed)))
    assert torch.equal(run.cells, cells) and len(run.readings.log_snr) == 5


def test_classes_are_decided_at_the_first_call_of_the_window() -> None:
    adp = random_adp(ATTRIBUTES, C, window=True)
    run = run_of(adp)
    early = features(8)
    assert run.edit(MIDDLE, early, Call.read(options(8, sigma=30.0))) is early  # log-SNR -6.8, the window is -6 to 6
    assert run.cells is None and len(run.readings.log_snr) == 1
    h = features(8, seed=1)
    assert run.edit(MIDDLE, h, Call.read(options(8, sigma=10.0))) is not h
    p = adp.predictor(pool(h), torch.full((8,), float(log_snr(10.0))))["eyeglasses"].softmax(-1)
    assert sorted(run.cells.nonzero().flatten().tolist()) == sorted(p[:, 1].argsort()[-4:].tolist())
    late = features(8, seed=2)
    assert run.edit(MIDDLE, late, Call.read(options(8, sigma=0.04))) is late


def test_seeded_classes_are_drawn_at_the_first_call_and_do_not_read() -> None:
    adp = random_adp(ATTRIBUTES, C, assign="seeded", window=True)
    drawn = []
    for seed in (3, 3, 4, 5, 6):
        run = run_of(adp, seed=seed)
        run.edit(MIDDLE, features(8, seed=len(drawn)), Call.read(options(8, sigma=30.0)))
        drawn.append(tuple(run.cells.tolist()))
        assert sum(drawn[-1]) == 4
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    read = run_of(adp, assign="reading")
    read.edit(MIDDLE, features(8), Call.read(options(8, sigma=30.0)))
    assert read.cells is None
    forced = run_of(random_adp(ATTRIBUTES, C), assign="seeded", seed=3)
    forced.edit(MIDDLE, features(8, seed=9), Call.read(options(8)))
    assert tuple(forced.cells.tolist()) == drawn[0]


def test_classes_fixed_beforehand_are_kept(adp: AdpFile) -> None:
    run = run_of(adp, cells=(1, 1, 0))
    run.edit(MIDDLE, features(3), Call.read(options(3)))
    assert run.cells.tolist() == [1, 1, 0] and run.counts is None
    with pytest.raises(ValueError, match="3 images were assigned a class beforehand, and the batch has 4"):
        run_of(adp, cells=(1, 1, 0)).edit(MIDDLE, features(4), Call.read(options(4)))


# -- the step ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["calibrated", GRADIENT])
@pytest.mark.parametrize("target", [HALF, JOINT], ids=str)
def test_an_image_of_a_batch_is_what_it_is_alone(adp: AdpFile, target: Any, direction: str) -> None:
    h = features(5)
    run = run_of(adp, target, direction=direction)
    together = run.edit(MIDDLE, h, Call.read(options(5)))
    for i, cell in enumerate(run.cells.tolist()):
        alone = run_of(adp, target, direction=direction, cells=(cell,)).edit(MIDDLE, h[i : i + 1], Call.read(options(1)))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_the_step_is_in_norms_of_h() -> None:
    """By the size at that level times the strength, whatever the size of the numbers and of the map."""
    adp = random_adp(ATTRIBUTES, C, from_to=False)
    move = adp.moves["eyeglasses"]
    level = float(log_snr(SIGMA))
    expected = {k: float(norms(move_vector(move, torch.tensor([k]), None, level, torch.Size((1, C, 4, 4))))) for k in (0, 1)}
    for scale, strength, side in ((1.0, 1.0, 8), (100.0, 1.0, 4), (1.0, 0.5, 16), (0.01, 2.0, 6)):
        h = scale * features(4, side, side)
        run = run_of(adp, strength=strength)
        found = steps(h, run.edit(MIDDLE, h, Call.read(options(4))))
        torch.testing.assert_close(found, strength * torch.tensor([expected[c] for c in run.cells.tolist()]), rtol=1e-4, atol=0)


def test_the_step_goes_from_what_the_image_is_read_as_now(adp: AdpFile) -> None:
    h = features(4)
    level = float(log_snr(SIGMA))
    out = run_of(adp, cells=(0, 1, 0, 1)).edit(MIDDLE, h, Call.read(options(4)))
    p = adp.predictor(pool(h), torch.full((4,), level))["eyeglasses"].softmax(-1)
    vector = move_vector(adp.moves["eyeglasses"], torch.tensor([0, 1, 0, 1]), p, level, h.shape)
    torch.testing.assert_close(out - h, vector * norms(h)[:, None, None, None], rtol=1e-3, atol=1e-5)


def test_two_images_of_one_class_take_the_same_step_relative_to_their_norm() -> None:
    adp = random_adp(ATTRIBUTES, C, from_to=False)
    h = features(4)
    out = run_of(adp, cells=(0, 0, 1, 1)).edit(MIDDLE, h, Call.read(options(4)))
    step = (out - h) / norms(h)[:, None, None, None]
    torch.testing.assert_close(step[0], step[1], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(step[2], step[3], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(step[0], step[2], atol=1e-3)


def test_steps_of_two_attributes_add_up(adp: AdpFile) -> None:
    h = features(6)
    target = parse_target("eyeglasses: yes=1, no=0; skin: dark=1", ATTRIBUTES)
    both = run_of(adp, target).edit(MIDDLE, h, Call.read(options(6))) - h
    parts = [
        run_of(adp, parse_target(text, ATTRIBUTES)).edit(MIDDLE, h, Call.read(options(6))) - h
        for text in ("eyeglasses: yes=1, no=0", "skin: dark=1")
    ]
    torch.testing.assert_close(both, parts[0] + parts[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(adp: AdpFile, mode: str, dtype: torch.dtype) -> None:
    h = features(4, 16, 16) * (50 if mode == "quota" else 1)
    h = h.to(dtype)
    settings = {"cells": (0, 1, 0, 1)} if mode == "quota" else {}
    strength = 1.0 if mode == "quota" else 0.01
    out = run_of(adp, mode=mode, strength=strength, **settings).edit(MIDDLE, h, Call.read(options(4)))
    exact = run_of(adp, mode=mode, strength=strength, **settings).edit(MIDDLE, h.float(), Call.read(options(4)))
    assert out.dtype == dtype and out.isfinite().all()
    torch.testing.assert_close(out.float(), exact, rtol=2e-2, atol=2e-2 * float(h.abs().max()))
    assert (steps(h, out) > 1e-3).all()


def test_a_norm_beyond_half_precision_is_no_overflow(adp: AdpFile) -> None:
    h = (features(2, 32, 32) * 1000).half()
    assert float(norms(h).min()) > 65504
    assert run_of(adp, strength=0.1).edit(MIDDLE, h, Call.read(options(2))).isfinite().all()


# -- rows ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("direction", ["calibrated", GRADIENT])
def test_only_the_rows_of_the_positive_are_changed(adp: AdpFile, mode: str, direction: str) -> None:
    h = features(6)
    out = run_of(adp, mode=mode, direction=direction).edit(MIDDLE, h, Call.read(options(3, [1, 0])))
    assert torch.equal(out[:3], h[:3])
    assert (steps(h, out)[3:] > 1e-3).all()
    alone = run_of(adp, mode=mode, direction=direction).edit(MIDDLE, h[3:], Call.read(options(3, [0])))
    torch.testing.assert_close(out[3:], alone, rtol=1e-4, atol=1e-5)


def test_both_kinds_of_rows_are_moved_to_the_same_class_where_asked() -> None:
    adp = random_adp(ATTRIBUTES, C, from_to=False)
    h = features(6)
    run = run_of(adp, rows=COND_AND_UNCOND)
    out = run.edit(MIDDLE, h, Call.read(options(3, [1, 0])))
    step = (out - h) / norms(h)[:, None, None, None]
    torch.testing.assert_close(step[:3], step[3:], rtol=1e-3, atol=1e-6)
    p = adp.predictor(pool(h[3:]), torch.full((3,), float(log_snr(SIGMA))))["eyeglasses"].softmax(-1)
    torch.testing.assert_close(torch.tensor(run.readings.shares[0]["eyeglasses"]), p.mean(0))
    soft = run_of(adp, mode="kl", rows=COND_AND_UNCOND).edit(MIDDLE, h, Call.read(options(3, [1, 0])))
    assert (steps(h, soft) > 1e-3).all()


def test_rows_that_come_in_two_calls_get_what_they_get_in_one(adp: AdpFile) -> None:
    """Short of memory, the host runs the negative's rows first and on their own."""
    h = features(8)
    together = run_of(adp)
    whole = together.edit(MIDDLE, h, Call.read(options(4, [1, 0])))
    apart = run_of(adp)
    assert apart.edit(MIDDLE, h[:4], Call.read(options(4, [1]))) is not None
    assert apart.cells is None
    torch.testing.assert_close(apart.edit(MIDDLE, h[4:], Call.read(options(4, [0]))), whole[4:], rtol=1e-4, atol=1e-5)
    assert torch.equal(apart.cells, together.cells)


def test_the_negatives_rows_alone_decide_nothing(adp: AdpFile) -> None:
    """Where they are edited too, they wait for the first reading, and the classes are those of a joint call."""
    h = features(8)
    together = run_of(adp, rows=COND_AND_UNCOND)
    together.edit(MIDDLE, h, Call.read(options(4, [1, 0])))
    apart = run_of(adp, rows=COND_AND_UNCOND)
    assert torch.equal(apart.edit(MIDDLE, h[:4], Call.read(options(4, [1]))), h[:4])
    assert apart.cells is None
    apart.edit(MIDDLE, h[4:], Call.read(options(4, [0])))
    assert torch.equal(apart.cells, together.cells)
    again = apart.edit(MIDDLE, h[:4], Call.read(options(4, [1], sigma=SIGMA / 2)))
    assert (steps(h[:4], again) > 1e-3).all()


@pytest.mark.parametrize(("marks", "copies"), [([1, 0, 0], 2), ([0, 0, 0], 3)])
def test_several_positives_of_an_image_are_read_together(adp: AdpFile, marks: list[int], copies: int) -> None:
    n = 4
    h = features(n * len(marks))
    run = run_of(adp)
    out = run.edit(MIDDLE, h, Call.read(options(n, marks)))
    level = torch.full((n,), float(log_snr(SIGMA)))
    chunks = [h[i * n : (i + 1) * n] for i, mark in enumerate(marks) if mark == 0]
    p = torch.stack([adp.predictor(pool(chunk), level)["eyeglasses"].softmax(-1) for chunk in chunks]).mean(0)
    assert len(chunks) == copies
    torch.testing.assert_close(torch.tensor(run.readings.shares[0]["eyeglasses"]), p.mean(0))
    assert sorted(run.cells.nonzero().flatten().tolist()) == sorted(p[:, 1].argsort()[-2:].tolist())
    changed = steps(h, out).view(len(marks), n) > 1e-3
    assert changed.all(1).tolist() == [mark == 0 for mark in marks]
    assert changed.any(1).tolist() == [mark == 0 for mark in marks]


def test_tiles_of_an_image_are_read_together(adp: AdpFile) -> None:
    """[t0: uncond, cond, t1: uncond, cond]: rows of a tiling pack."""
    h = features(12)
    run = run_of(adp)
    out = run.edit(MIDDLE, h, Call.read(options(3, [1, 0])))
    level = torch.full((3,), float(log_snr(SIGMA)))
    p = sum(adp.predictor(pool(part), level)["eyeglasses"].softmax(-1) for part in (h[3:6], h[9:12])) / 2
    torch.testing.assert_close(torch.tensor(run.readings.shares[0]["eyeglasses"]), p.mean(0))
    assert (steps(h, out) > 1e-3).tolist() == ([False] * 3 + [True] * 3) * 2
    assert run.cells.shape == (3,)


def test_rows_are_told_apart_by_identity_where_the_guider_names_them(adp: AdpFile) -> None:
    h = features(6)
    roles = {"p": "cond", "n": "uncond"}
    out = run_of(adp).edit(MIDDLE, h, Call.read(options(3, [1, 0], uuids=["p", "n"]), roles))
    assert torch.equal(out[3:], h[3:]) and (steps(h, out)[:3] > 1e-3).all()


# -- soft batch means ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["chi-square", "kl"])
@pytest.mark.parametrize("target", [HALF, THREE, JOINT, parse_target("skin: dark=1", ATTRIBUTES)], ids=str)
def test_the_soft_step_does_not_depend_on_the_batch_size(adp: AdpFile, mode: str, target: Any) -> None:
    """The same images twice over have the same mean, and each of them takes the same step."""
    h = features(4)
    once = run_of(adp, target, mode=mode).edit(MIDDLE, h, Call.read(options(4))) - h
    twice = run_of(adp, target, mode=mode).edit(MIDDLE, torch.cat([h, h, h]), Call.read(options(12))) - torch.cat([h, h, h])
    torch.testing.assert_close(twice, torch.cat([once, once, once]), rtol=1e-3, atol=1e-6)
    assert (norms(once) > 0).all()


@pytest.mark.parametrize("mode", ["chi-square", "kl"])
def test_the_soft_step_goes_down_and_is_in_norms_of_h(adp: AdpFile, mode: str) -> None:
    h = features(6)
    run = run_of(adp, THREE, mode=mode, strength=1e-3)
    out = run.edit(MIDDLE, h, Call.read(options(6)))
    level = torch.full((6,), float(log_snr(SIGMA)))

    def mean(x: Tensor) -> Tensor:
        return (adp.predictor(pool(x), level)["skin"] / 8).softmax(-1).mean(0)

    assert float((mean(out) - 1 / 3).norm()) < float((mean(h) - 1 / 3).norm())
    twice = run_of(adp, THREE, mode=mode, strength=2e-3).edit(MIDDLE, h, Call.read(options(6)))
    torch.testing.assert_close(twice - h, 2 * (out - h), rtol=1e-2, atol=1e-5)
    assert run.cells is None and len(run.readings.shares) == 1


# -- the predictor's own gradient ------------------------------------------------------------------------------------------------------


def test_the_gradient_step_raises_the_assigned_class_by_a_twentieth_of_the_norm(adp: AdpFile) -> None:
    h = features(6)
    run = run_of(adp, THREE, direction=GRADIENT, strength=0.2)
    out = run.edit(MIDDLE, h, Call.read(options(6)))
    torch.testing.assert_close(steps(h, out), torch.full((6,), 0.01), rtol=1e-3, atol=0)
    level = torch.full((6,), float(log_snr(SIGMA)))
    before, after = (adp.predictor(pool(x), level)["skin"].log_softmax(-1).gather(1, run.cells[:, None]) for x in (h, out))
    assert (after > before).all()


def test_the_gradient_needs_no_moves(adp: AdpFile) -> None:
    bare = AdpFile(adp.predictor, {}, "")
    h = features(4)
    run = run_of(bare, direction=GRADIENT)
    assert run.sites == {MIDDLE}
    assert run.edit(MIDDLE, h, Call.read(options(4))) is not h
    assert run_of(bare, mode="kl").edit(MIDDLE, h, Call.read(options(4))) is not h
    with pytest.raises(ValueError, match="has no calibrated moves for 'eyeglasses'.*no other moves.*'adp-gradient'"):
        run_of(bare)


def test_a_direction_chooses_among_the_moves_of_the_file(adp: AdpFile) -> None:
    other = replace(random_move(2, C, site="output.1", seed=9), source="sum")
    both = AdpFile(adp.predictor, adp.moves, adp.base_model, alternatives={"eyeglasses": {"sum": other}})
    own = adp.moves["eyeglasses"]
    assert run_of(both).sites == run_of(both, direction=own.source).sites == {MIDDLE, own.site}
    run, h, up = run_of(both, direction="sum"), features(4), features(4, seed=1)
    assert run.sites == {MIDDLE, "output.1"}
    assert run.edit(MIDDLE, h, Call.read(options(4))) is h
    out = run.edit("output.1", up, Call.read(options(4)))
    level = float(log_snr(SIGMA))
    reading = adp.predictor(pool(h), torch.full((4,), level))["eyeglasses"].softmax(-1)
    torch.testing.assert_close(out - up, norms(up)[:, None, None, None] * move_vector(other, run.cells, reading, level, up.shape))
    with pytest.raises(ValueError, match="has no moves named 'sum' for 'skin' .it has "):
        run_of(both, THREE, direction="sum")


# -- the run -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "direction"), [("quota", "calibrated"), ("quota", GRADIENT), ("chi-square", GRADIENT), ("kl", GRADIENT)])
@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_everything_works_on_inference_tensors(mode: str, direction: str, kind: str) -> None:
    expected = run_of(random_adp(ATTRIBUTES, C, kind=kind), JOINT, mode=mode, direction=direction)
    h = features(8)
    wanted = [expected.edit(MIDDLE, h, Call.read(options(4, [1, 0], sigma=s))) for s in (SIGMA, SIGMA / 2)]
    with torch.inference_mode():
        adp = random_adp(ATTRIBUTES, C, kind=kind)
        assert next(adp.predictor.parameters()).is_inference() and adp.moves["skin"].vectors.is_inference()
        run = run_of(adp, JOINT, mode=mode, direction=direction)
        for sigma, want in zip((SIGMA, SIGMA / 2), wanted, strict=True):
            out = run.edit(MIDDLE, features(8), Call.read(options(4, [1, 0], sigma=sigma)))
            torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)


def test_weights_of_the_adp_are_not_changed_and_need_no_gradient_afterwards(adp: AdpFile) -> None:
    before = {k: v.clone() for k, v in adp.predictor.state_dict().items()}
    for mode in MODES:
        run_of(adp, mode=mode, direction=GRADIENT).edit(MIDDLE, features(4), Call.read(options(4)))
    assert all(torch.equal(v, before[k]) for k, v in adp.predictor.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in adp.predictor.parameters())


def test_the_same_run_twice_gives_the_same_bits(adp: AdpFile) -> None:
    for mode in MODES:
        outs = [run_of(adp, JOINT, mode=mode, seed=7).edit(MIDDLE, features(6), Call.read(options(3, [1, 0]))) for _ in range(2)]
        assert torch.equal(*outs)


def test_a_run_is_one_thing_and_lets_go_of_its_tensors(adp: AdpFile) -> None:
    run = run_of(adp)
    run.edit(MIDDLE, features(4), Call.read(options(4)))
    assert copy.deepcopy({"run": run})["run"] is run
    kept = run.summary()
    run.release()
    held = [v for v in vars(run).values() if isinstance(v, dict | Tensor) and len(v)] + [run._predictor]
    assert [type(v) for v in held] == [Tensor, type(None)] and held[0] is run.cells
    assert torch.equal(kept.cells, run.cells) and kept.counts == run.counts and kept.readings is run.readings
    assert kept._predictor is None and not kept._read


def test_what_the_adp_does_not_know_is_refused_before_sampling(adp: AdpFile) -> None:
    known = {"beard": ("no", "yes"), "eyeglasses": ("no", "sometimes")}
    with pytest.raises(ValueError, match="'beard'.*known: eyeglasses, skin"):
        run_of(adp, parse_target("beard: uniform", known))
    with pytest.raises(ValueError, match="'sometimes' of 'eyeglasses'.*known: no, yes"):
        run_of(adp, parse_target("eyeglasses: uniform", known))


def test_rows_that_fit_no_pattern_are_left_alone_with_one_warning(adp: AdpFile, caplog: pytest.LogCaptureFixture) -> None:
    run, h = run_of(adp), features(5)
    with caplog.at_level("WARNING", logger="equipoise"):
        assert run.edit(MIDDLE, h, Call.read(options(2))) is h
        assert run.edit(MIDDLE, h, Call.read(options(2))) is h
    assert len(caplog.records) == 1 and "5 rows" in caplog.text


def test_features_that_are_no_numbers_do_not_stop_the_others(adp: AdpFile) -> None:
    run, h = run_of(adp), features(4)
    h[0] = float("nan")
    out = run.edit(MIDDLE, h, Call.read(options(4)))
    assert Counter(run.cells.tolist()) == {0: 2, 1: 2}
    assert torch.isfinite(out[1:]).all()
