"""A fit that is cut off ends as if it had not been; fits without a reading, without a judge, and to prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.cli.schedule import alphas_cumprod
from equipoise.methods.core.checkpoint import NOTHING, RESUMED, STALE
from equipoise.methods.core.trainer import OVERFLOWS, VectorFit
from equipoise.methods.guidance.fit_moves import Diffusion, FitImages, FitSettings, SitePredictor, fit_moves, new_fit
from equipoise.methods.guidance.fit_prompts import UNEDITED, PromptImages, fit_prompt_moves, new_prompt_fit
from equipoise.models.adp import AttributePredictor, Move
from torch import Tensor

ABAR = alphas_cumprod()
SITE = ("middle", 4)
CPU = torch.device("cpu")
S = FitSettings(steps=12, batch=8, lr=0.05)


def through_patches(x: Tensor, options: dict[str, Any]) -> Tensor:
    """A decoder that predicts channel 0 of h less channel 1; h is constant, so that only the move tells images apart."""
    h = torch.ones(x.shape[0], 4, 4, 4)
    options["block"] = ("output", 0)
    for patch in options.get("patches", {}).get("output_block_patch", ()):
        h, _ = patch(h, None, options)
    return h[:, :1] - h[:, 1:2]


def toy(**more: Any) -> Diffusion:
    def logits(c: Tensor) -> dict[str, Tensor]:
        return {"side": torch.stack([-c.mean(dim=(1, 2, 3)), c.mean(dim=(1, 2, 3))], dim=1) * 5}

    return replace(
        Diffusion(lambda x, t, o: through_patches(x, o), lambda clean, noise, t: clean, lambda x, out, t: out, logits, ABAR), **more
    )


def data() -> tuple[Tensor, dict[str, Tensor]]:
    labels = torch.arange(64) % 2
    clean = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + (labels.float() * 2 - 1)[:, None, None, None]
    return clean, {"side": torch.nn.functional.one_hot(labels, 2).float()}


def reader() -> AttributePredictor:
    predictor = AttributePredictor({"side": ("low", "high")}, 4, torch.tensor([-9.0, 6.0])).eval().requires_grad_(False)
    for p in predictor.parameters():
        p.fill_(0.01)
    return predictor


def fit(model: Diffusion | None = None, predictor: AttributePredictor | None = None, **more: Any) -> Move:
    clean, labels = data()
    settings = more.pop("settings", S)
    return fit_moves(model or toy(), FitImages(clean, labels), SitePredictor(predictor), {"side": SITE}, settings, **more)["side"]


def new_state(path: Path | None = None, key: str = "", predictor: AttributePredictor | None = None) -> VectorFit:
    state = new_fit({"side": 2}, SitePredictor(predictor), {"side": SITE}, S, CPU)
    state.path, state.key = path, key
    return state


class Stopped(Exception):
    pass


@pytest.mark.parametrize("within", [False, True])
def test_a_fit_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path: Path, within: bool) -> None:
    whole = fit(predictor=reader())
    calls: list[int] = []

    def stop(step: int, _: int) -> None:
        if step == 7 and not within:
            raise Stopped

    def output(x: Tensor, t: int, options: dict[str, Any]) -> Tensor:
        calls.append(t)
        if within and len(calls) == 8:
            raise Stopped  # random numbers are drawn by then, and the step is not taken
        return through_patches(x, options)

    path = tmp_path / "fit.safetensors"
    with pytest.raises(Stopped):
        state = new_state(path, "as set", reader())
        state.after_step = stop
        fit(toy(output=output), reader(), fit=state)
    state = new_state(path, "as set", reader())
    assert state.resume() == RESUMED and state.step == 7 and len(state.history) == 7
    move = fit(predictor=reader(), fit=state)
    assert torch.equal(move.vectors, whole.vectors) and torch.equal(move.sizes, whole.sizes)
    done = new_state(path, "as set", reader())
    assert done.resume() == RESUMED and done.step == S.steps and done.done
    assert [s for s, _ in done.curve(4)] == [3, 6, 9, 12] and all("denoising" in f for _, f in done.curve(4))


def test_other_settings_and_broken_files_are_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    assert new_state(path, "a").resume() == NOTHING
    fit(fit=new_state(path, "a"))
    state = new_state(path, "b")
    assert state.resume() == STALE and state.step == 0 and not any(v.any() for v in state.vectors.values())
    path.write_bytes(path.read_bytes()[:200])
    assert new_state(path, "a").resume() == STALE


def test_without_a_reading_there_is_one_vector_per_class() -> None:
    move = fit(settings=FitSettings(steps=150, batch=16, lr=0.05))
    assert move.vectors.shape == (11, 2, 1, 4, 4, 4) and move.assign == "seeded" and not move.relative
    mean = (move.vectors.mean(dim=(2, 4, 5)) * move.sizes[:, :, None]).mean(0)
    assert float(mean[0, 0] - mean[0, 1]) < -0.01 < 0.01 < float(mean[1, 0] - mean[1, 1])


def test_without_a_judge_the_classes_own_images_are_enough() -> None:
    def refuse(_: Tensor) -> dict[str, Tensor]:
        raise AssertionError("nobody judges")

    move = fit(toy(logits=refuse, judged=()), settings=FitSettings(steps=150, batch=16, lr=0.05))
    mean = (move.vectors.mean(dim=(2, 4, 5)) * move.sizes[:, :, None]).mean(0)
    assert float(mean[0, 0] - mean[0, 1]) < -0.01 < 0.01 < float(mean[1, 0] - mean[1, 1])


def test_a_scaled_loss_gives_the_same_vectors() -> None:
    plain, scaled = fit(), fit(toy(scale=1024.0))
    torch.testing.assert_close(plain.vectors, scaled.vectors, rtol=1e-3, atol=1e-4)


def test_a_gradient_that_is_not_finite_is_passed_over_and_many_are_an_error() -> None:
    calls: list[int] = []

    def output(x: Tensor, t: int, options: dict[str, Any]) -> Tensor:
        calls.append(t)
        return through_patches(x, options) * (float("nan") if len(calls) == 3 else 1.0)

    assert fit(toy(output=output)).vectors.isfinite().all()
    broken = toy(output=lambda x, t, o: through_patches(x, o) * float("nan"))
    with pytest.raises(ValueError, match="half precision") as error:
        fit(broken, settings=replace(S, steps=2 * OVERFLOWS))
    assert "\n" not in str(error.value)


def test_words_that_hardly_tell_are_learned_in_small_steps() -> None:
    """Adam moves far whatever the gradient: without a unit of its own a weak effect would be overshot a hundredfold."""

    def output(x: Tensor, t: int, options: dict[str, Any]) -> Tensor:
        return through_patches(x, options) + 1e-4 * options["y"].float()[:, None, None, None]

    clean, _ = data()
    settings = FitSettings(steps=60, batch=8)
    state = new_prompt_fit(2, SitePredictor(), "side", SITE, settings, CPU)
    explicit = torch.tensor([[1, 2]]).expand(64, 2)
    drawn, neutral = torch.arange(64) % 2, torch.zeros(64, dtype=torch.long)
    images = PromptImages(clean, drawn, neutral, explicit)
    fit_prompt_moves(toy(output=output), images, SitePredictor(), "side", SITE, settings, fit=state)
    assert state.measured["scale"].max() < 0.1
    curve = [f["unexplained"] for _, f in state.curve(6)]
    assert max(curve) < 1.5 and curve[-1] < 0.7, curve


# -- to prompts ------------------------------------------------------------------------------------------------------------------------


def test_the_neutral_prompt_learns_what_the_explicit_ones_do(tmp_path: Path) -> None:
    """Conditions 0 and 1 are neutral and differ in a constant; 2 and 3 name the classes of the first, 4 and 5 those of the second."""
    said = torch.tensor([0.0, 1.0, -0.5, 0.5, 0.5, 1.5])

    def output(x: Tensor, t: int, options: dict[str, Any]) -> Tensor:
        return through_patches(x, options) + said[options["y"]][:, None, None, None]

    model = toy(output=output)
    clean, _ = data()
    template = torch.arange(64) % 2
    explicit = torch.tensor([[2, 3], [4, 5]])[template]
    settings = FitSettings(steps=200, batch=16, lr=0.05)

    def run(state: VectorFit) -> Move:
        images = PromptImages(clean, (torch.arange(64) // 2) % 2, template, explicit)
        return fit_prompt_moves(model, images, SitePredictor(), "side", SITE, settings, fit=state)

    state = new_prompt_fit(2, SitePredictor(), "side", SITE, settings, CPU)
    move = run(state)
    torch.testing.assert_close(state.measured[UNEDITED], torch.full((11,), 0.25))
    curve = [f["unexplained"] for _, f in state.curve(10)]
    assert curve[0] > 0.4 > 0.1 > curve[-1]
    assert move.source == "learned-prompts" and move.assign == "seeded"

    def stop(step: int, _: int) -> None:
        if step == 60:
            raise Stopped

    first, again = (new_prompt_fit(2, SitePredictor(), "side", SITE, settings, CPU) for _ in range(2))
    first.path = again.path = tmp_path / "prompts.safetensors"
    first.after_step = stop
    with pytest.raises(Stopped):
        run(first)
    assert again.resume() == RESUMED and UNEDITED in again.measured
    assert torch.equal(run(again).vectors, move.vectors)
