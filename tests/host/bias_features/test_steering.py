"""Bias-feature steering in the host's own samplers, on a small random model with a random autoencoder."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_sae import random_bias, random_profile, random_sae
from equipoise_spy import Spy
from equipoise_world import Broken, N, World, breaking, far, placed, sentence
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "medium", "long")}
MIDDLE, UP, CHANNELS = "middle", "output.1", 64


@pytest.fixture
def sae(prompt: Any) -> Any:
    return random_sae(CHANNELS, UP, "tiny")


@pytest.fixture
def bias(sae: Any) -> Any:
    return random_bias(sae, ATTRIBUTES)


@pytest.fixture
def adp(prompt: Any) -> Any:
    """Reads and moves at the middle block."""
    return random_adp({"eyeglasses": ATTRIBUTES["eyeglasses"]}, CHANNELS, base_model="tiny", size=0.3)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, prompt: Any) -> Spy:
    return Spy(monkeypatch, "steering")


@pytest.fixture(params=["packed", "classes"])
def world(request: pytest.FixtureRequest, prompt: Any) -> World:
    """An unconditional model with 12 channels; a class-conditional one with classifier-free guidance."""
    return World(prompt, request.param)


@pytest.fixture
def classes(prompt: Any) -> World:
    return World(prompt, "classes")


def target(text: str = "eyeglasses: uniform") -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, ATTRIBUTES)


def node(model: Any, sae: Any, bias: Any, **given: Any) -> Any:
    """MODEL and report of the node; all images to 'yes' unless told otherwise."""
    from equipoise.nodes.bias_features.bias_feature_steer import BiasFeatureSteer

    settings: dict[str, Any] = {
        "attribute": "eyeglasses", "class_name": "yes", "strength": 1.0, "mode": "profile", "profile": "calibrated", "features": 0,
        "amount": 3.0, "rows": "cond", "start_percent": 0.0, "end_percent": 1.0, "rule": "one pass", "assign": "auto", "seed": 0,
    }  # fmt: skip
    return BiasFeatureSteer.execute(model=model, sae=sae, bias_features=bias, **(settings | given)).result[:2]


def steer(model: Any, sae: Any, bias: Any, **given: Any) -> Any:
    return node(model, sae, bias, **given)[0]


def guide(model: Any, adp: Any, text: str = "eyeglasses: uniform") -> Any:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.guidance.run import GuidanceSettings

    return apply_guidance(model, adp, GuidanceSettings(target(text)))


# -- off -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["one pass", "asyrp"])
@pytest.mark.parametrize(("start", "end", "strength"), [(0.0, 1.0, 0.0), (0.5, 0.5, 1.0), (0.7, 0.2, -1.0), (1.0, 1.0, 1.0)])
def test_off_is_plain_sampling_bit_for_bit(world: World, sae: Any, bias: Any, start: float, end: float, strength: float, rule: str) -> None:
    before = placed(world.model)
    given = {"start_percent": start, "end_percent": end, "strength": strength, "rule": rule}
    model, report = node(world.model, sae, bias, **given)
    assert model is not world.model and placed(model) == before == placed(world.model)
    assert report.startswith("off: ") and report.endswith("bit for bit")
    assert torch.equal(world.sample(model), world.sample())


@pytest.mark.parametrize("rule", ["one pass", "asyrp"])
@pytest.mark.parametrize("edit", [{"mode": "scale", "amount": 1.0}, {"mode": "add", "amount": 0.0}, {"mask": torch.zeros(1, 8, 8)}])
def test_an_edit_that_changes_no_activation_changes_no_bit(
    world: World, sae: Any, bias: Any, spy: Spy, edit: dict[str, Any], rule: str
) -> None:
    plain = world.sample()
    assert torch.equal(world.sample(steer(world.model, sae, bias, rule=rule, **edit)), plain)
    assert len(spy.at(UP)) == 3 and not any(any(call.changed) for call in spy.calls)


def test_a_sampler_beside_a_steered_one_is_not_touched(world: World, sae: Any, bias: Any, spy: Spy) -> None:
    before, options, carried = world.sample(), repr(world.model.model_options), placed(world.model)
    steered = steer(world.model, sae, bias)
    first = world.sample(steered)
    assert first.isfinite().all() and all(far(one, other) for one, other in zip(first, before, strict=True))
    assert torch.equal(world.sample(), before), "an unpatched sampler after a steered one"
    assert torch.equal(world.sample(steered), first), "the same patched model queued again"
    assert torch.equal(world.sample(steer(world.model, sae, bias)), first), "the same graph built again"
    assert repr(world.model.model_options) == options and placed(world.model) == carried
    gc.collect()
    assert spy.alive == 0, "a run outlived its sampling"


def test_a_window_bounds_the_calls_that_are_edited(world: World, sae: Any, bias: Any, spy: Spy) -> None:
    from equipoise.host.core.patch import window_sigmas

    high, low = window_sigmas(world.model, 0.3, 0.7)
    world.sample(steer(world.model, sae, bias, start_percent=0.3, end_percent=0.7), steps=8)
    inside = [low <= call.sigma <= high for call in spy.calls]
    assert [any(call.changed) for call in spy.calls] == inside and 0 < sum(inside) < len(inside)


@pytest.mark.parametrize("at_call", [1, 2])
def test_an_error_inside_sampling_leaves_nothing_behind(world: World, sae: Any, bias: Any, spy: Spy, at_call: int) -> None:
    plain = world.sample()
    steered = steer(world.model, sae, bias)
    wanted = world.sample(steered)
    broken = breaking(steered, at_call)
    options = repr(broken.model_options)
    with pytest.raises(Broken, match="^a later patch gave up$") as error:
        world.sample(broken)
    # The traceback still holds the run; its tensors are gone all the same.
    held = [run() for run in spy.runs if run() is not None]
    assert held and all(run._sae is None and not run._on_device and not run._read for run in held)
    del held, error
    gc.collect()
    assert spy.alive == 0
    assert repr(broken.model_options) == options
    assert torch.equal(world.sample(), plain)
    assert torch.equal(world.sample(steered), wanted)


# -- who, where and how --------------------------------------------------------------------------------------------------------------


def test_only_rows_of_the_positive_unless_asked(classes: World, sae: Any, bias: Any, spy: Spy) -> None:
    one = classes.sample(steer(classes.model, sae, bias))
    assert {call.marks for call in spy.calls} == {(1, 0)} and spy.chunks(UP) == {(1, False), (0, True)}
    spy.calls.clear()
    both = classes.sample(steer(classes.model, sae, bias, rows="cond+uncond"))
    assert spy.chunks(UP) == {(1, True), (0, True)} and far(one, both)


def test_rows_in_calls_of_their_own_give_the_same_image(
    classes: World, sae: Any, bias: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered = steer(classes.model, sae, bias, target=target())
    together = classes.sample(steered)
    spy.calls.clear()
    monkeypatch.setattr(classes.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart = classes.sample(steered)
    assert {call.marks for call in spy.calls} == {(0,), (1,)}
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-3)


def test_a_target_gives_every_image_its_class(world: World, sae: Any, bias: Any, adp: Any) -> None:
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.methods.bias_features.run import SteerSettings

    for reader in (None, adp):
        finished: list[Any] = []
        settings = SteerSettings(target("eyeglasses: yes=0.25, no=0.75"), seed=3, assign="auto" if reader is None else "reading")
        model = apply_steering(world.model, sae, bias, settings, reader, on_finish=lambda run, kept=finished: kept.append(run.summary()))
        image = world.sample(model)
        cells = finished[0].cells.tolist()
        assert Counter(cells) == {0: 3, 1: 1}
        through_node = steer(
            world.model,
            sae,
            bias,
            target=settings.target,
            attribute="nothing",
            class_name="at all",
            seed=3,
            assign=settings.assign,
            adp=reader,
        )
        assert torch.equal(world.sample(through_node), image)
        if reader is None:
            by_hand = {c: world.sample(steer(world.model, sae, bias, class_name=c)) for c in ("no", "yes")}
            for i, cell in enumerate(cells):
                torch.testing.assert_close(image[i], by_hand[ATTRIBUTES["eyeglasses"][cell]][i], rtol=1e-3, atol=1e-3)
        else:
            assert finished[0].readings.shares, "the ADP was asked"


def test_below_zero_is_the_other_class_of_two_and_away_from_one_of_three(world: World, sae: Any, bias: Any) -> None:
    away, report = node(world.model, sae, bias, strength=-0.5)
    assert "towards the other class of eyeglasses" in report
    assert torch.equal(world.sample(away), world.sample(steer(world.model, sae, bias, class_name="no", strength=0.5)))
    away, report = node(world.model, sae, bias, attribute="hair", class_name="long", strength=-0.5)
    assert "away from the class of hair" in report
    assert all(
        far(world.sample(away), world.sample(steer(world.model, sae, bias, attribute="hair", class_name=c))) for c in ATTRIBUTES["hair"]
    )


@pytest.mark.parametrize("mode", ["scale", "add", "suppress"])
def test_the_papers_forms_act(world: World, sae: Any, bias: Any, spy: Spy, mode: str) -> None:
    model, report = node(world.model, sae, bias, mode=mode, amount=8.0)
    world.sample(model)
    assert any(any(call.changed) for call in spy.at(UP)) and f", {mode}" in report
    assert report.startswith("all images to eyeglasses: yes, strength 1\neyeglasses at output.1: 6 features (#")


def seen_at_up(model: Any, kept: list[Tensor]) -> Any:
    """A clone that keeps what arrives behind output.1, after every edit."""

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if options["block"] == ("output", 2):
            kept.append(h.clone())
        return h, skip

    clone = model.clone()
    clone.set_model_output_block_patch(patch)
    return clone


def test_a_mask_says_where(world: World, sae: Any, bias: Any) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    plain, masked, whole = [], [], []
    for model, kept in ((world.model, plain), (steer(world.model, sae, bias, mask=mask), masked), (steer(world.model, sae, bias), whole)):
        world.sample(seen_at_up(model, kept), steps=1, cfg=1.0)
    half = plain[0].shape[-1] // 2
    assert torch.equal(masked[0][..., half:], plain[0][..., half:]) and far(masked[0][..., :half], plain[0][..., :half])
    assert far(whole[0][..., half:], plain[0][..., half:])
    flat: list[Tensor] = []
    world.sample(seen_at_up(steer(world.model, sae, bias, mask=mask[0]), flat), steps=1, cfg=1.0)
    assert torch.equal(flat[0], masked[0])
    with pytest.raises(ValueError, match="the mask has 3 images and the batch has more"):
        world.sample(steer(world.model, sae, bias, mask=mask.expand(3, -1, -1)))


# -- several edits -------------------------------------------------------------------------------------------------------------------


def test_steers_and_guidance_stack_in_either_order(world: World, sae: Any, bias: Any, adp: Any) -> None:
    """Guidance acts at the middle block and the steers behind it: the order of the nodes changes nothing but rounding."""
    to_yes = {"class_name": "yes"}
    to_long = {"attribute": "hair", "class_name": "long"}
    guided = guide(world.model, adp, "eyeglasses: no=1, yes=0")
    one, other = steer(world.model, sae, bias, **to_yes), steer(world.model, sae, bias, **to_long)
    stacked = world.sample(steer(steer(guided, sae, bias, **to_yes), sae, bias, **to_long))
    turned = world.sample(guide(steer(steer(world.model, sae, bias, **to_yes), sae, bias, **to_long), adp, "eyeglasses: no=1, yes=0"))
    torch.testing.assert_close(stacked, turned, rtol=1e-3, atol=1e-3)
    pairs = {
        "without guidance": steer(one, sae, bias, **to_long),
        "without the first": steer(guided, sae, bias, **to_long),
        "without the second": steer(guided, sae, bias, **to_yes),
    }
    for what, model in pairs.items():
        assert far(stacked, world.sample(model)), what
    assert far(world.sample(one), world.sample(other))


def test_guidance_and_a_steer_at_one_site_both_act_in_either_order(world: World, adp: Any) -> None:
    sae = random_sae(CHANNELS, MIDDLE, "tiny")
    bias = random_bias(sae, ATTRIBUTES)
    alone = [world.sample(guide(world.model, adp)), world.sample(steer(world.model, sae, bias))]
    for both in (steer(guide(world.model, adp), sae, bias), guide(steer(world.model, sae, bias), adp)):
        image = world.sample(both)
        assert image.isfinite().all() and all(far(image, a) for a in alone)


# -- the paper's rule ----------------------------------------------------------------------------------------------------------------


def clean(world: World, model: Any, x: Tensor, sigma: float, cfg: float) -> Tensor:
    """The model's clean image of noisy x, from the host's sampler going from sigma to 0 in one Euler step, in the model's own scale."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(world.positive, world.negative)
    guider.set_cfg(cfg)
    inner, zeros = model.model, torch.zeros_like(x)
    first = inner.model_sampling.noise_scaling(torch.tensor([sigma]), x, zeros, sigma >= float(inner.model_sampling.sigma_max) * 0.9999)
    noise = x * (x / first).nanmedian()  # the host scales the noise that it is given
    out = guider.sample(noise, zeros, comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0]), seed=0)
    return inner.process_latent_in(out).float()


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_asyrp_is_its_formula_for_euler(world: World, sae: Any, bias: Any, cfg: float) -> None:
    import comfy.samplers

    steps = 4
    edited, given = steer(world.model, sae, bias), steer(world.model, sae, bias, rule="asyrp")
    sampling = world.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps).tolist()
    latent = world.empty(N)["samples"]
    import comfy.sample

    noise = comfy.sample.prepare_noise(latent, 5)
    x = sampling.noise_scaling(torch.tensor([sigmas[0]]), noise, torch.zeros_like(noise), True)
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x0, plain = (clean(world, m, x, sigma, cfg) for m in (edited, world.model))
        x = x0 + following * (x - plain) / sigma
    wanted = world.model.model.process_latent_out(x)
    out = world.sample(given, steps=steps, cfg=cfg)
    torch.testing.assert_close(out, wanted, rtol=2e-3, atol=2e-3)
    assert far(out, world.sample(edited, steps=steps, cfg=cfg)) and far(out, world.sample(steps=steps, cfg=cfg))
    assert torch.equal(world.sample(given, steps=steps, cfg=cfg), out)


def test_asyrp_takes_two_passes_and_other_samplers(classes: World, sae: Any, bias: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    model = steer(classes.model, sae, bias, rule="asyrp")
    forward = classes.model.model.diffusion_model.forward
    monkeypatch.setattr(classes.model.model.diffusion_model, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    classes.sample(model)
    assert len(calls) == 6
    for sampler in ("heun", "dpmpp_2m", "ddim"):
        assert classes.sample(model, sampler=sampler).isfinite().all()


# -- bad input -----------------------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_sentence_before_anything_is_sampled(world: World, sae: Any, bias: Any, spy: Spy) -> None:
    def refused(given_sae: Any = sae, given_bias: Any = bias, **given: Any) -> str:
        with pytest.raises(ValueError) as error:
            node(world.model, given_sae, given_bias, **given)
        return sentence(error)

    def other(channels: int, site: str, base_model: str) -> tuple[Any, Any]:
        made = random_sae(channels, site, base_model)
        return made, random_bias(made, ATTRIBUTES)

    text = refused(*other(CHANNELS, "output.7", "tiny"))
    assert "acts at 'output.7'" in text and "only middle, output.0, output.1, output.2:" in text
    text = refused(*other(96, UP, "tiny"))
    assert "expects 96 channels at 'output.1'" in text and "has 64" in text
    text = refused(*other(CHANNELS, UP, "sd15"))
    assert "made for 'sd15'" in text and "is 'tiny'" in text
    text = refused(random_sae(CHANNELS, UP, "tiny", seed=9))
    assert f"were found in the autoencoder {bias.sae_digest}" in text
    text = refused(random_sae(CHANNELS, MIDDLE, "tiny", seed=9))
    assert "at middle" in text
    assert "no bias features of 'beard'" in refused(attribute="beard")
    text = refused(class_name="maybe")
    assert "no class 'maybe'" in text and "no, yes" in text
    assert "is not the number of a feature" in refused(only="the best")
    assert "#99999 is not among the bias features of eyeglasses" in refused(only="99999")
    hat = replace(target(), attributes=("hat",))
    assert "no bias features of 'hat'" in refused(target=hat)
    assert "known: no, yes" in refused(target=replace(target(), classes=(("no", "perhaps"),)))
    only = replace(bias.attributes["hair"], profiles={}, default="")
    assert "have no profile, so they cannot steer" in refused(given_bias=replace(bias, attributes={"eyeglasses": only}), class_name="long")
    assert not spy.calls


def test_the_report_says_what_is_turned(world: World, sae: Any, bias: Any, adp: Any) -> None:
    _, report = node(world.model, sae, bias, target=target(), features=2)
    assert "target eyeglasses: no=0.5, yes=0.5, strength 1" in report and "4 features (#" in report
    assert "profile 'learned', calibrated, over log-SNR -12.0 to 12.0" in report
    assert "at random from the seed, because nothing reads eyeglasses" in report
    assert "so that the least changes" in node(world.model, sae, bias, target=target(), adp=adp, assign="reading")[1]
    one = int(bias.attributes["eyeglasses"].features[2])
    assert f"1 feature (#{one})" in node(world.model, sae, bias, target=target(), only=f"#{one}", features=2)[1]
    by_reading = random_profile(2, 12, 1.0, source="learned", rows=2)
    found = replace(bias.attributes["eyeglasses"], profiles={"learned": by_reading})
    _, report = node(world.model, sae, replace(bias, attributes={"eyeglasses": found}), rule="asyrp")
    assert "averaged over the classes: connect an ADP" in report and "two calls per step" in report
