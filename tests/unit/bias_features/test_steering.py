"""Steering by bias features: what is changed, what is left bit for bit, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from equipoise.methods.bias_features.run import (
    ADD,
    PROFILE,
    SCALE,
    SUPPRESS,
    SteeringRun,
    SteerSettings,
    everyone,
    on_map,
    parse_latents,
    profile_delta,
)
from equipoise.methods.bias_features.steer_report import steering_report
from equipoise.methods.core.run import Call
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.core.targets import make_target
from equipoise.models.adp import AdpFile, AttributePredictor
from equipoise.models.bias_features import AttributeFeatures, BiasFeatures, Profile
from equipoise.models.sae import SaeFile, SparseAutoencoder
from torch import Tensor

C, M, K = 6, 24, 4
CLASSES = {"hair": ("short", "long"), "tone": ("light", "medium", "dark")}
SITE = "output.1"
KNOTS = torch.tensor([-4.0, 0.0, 4.0])


@pytest.fixture(scope="module")
def sae() -> SaeFile:
    net = SparseAutoencoder(C, M, K, torch.tensor([-6.0, 6.0]))
    net.mean.copy_(torch.randn(2, C, generator=torch.Generator().manual_seed(2)))
    net.scale.copy_(torch.tensor([2.0, 0.5]))
    return SaeFile(net.eval().requires_grad_(False), SITE, "tiny")


def found(attribute: str, features: list[int], rows: int = 1, relative: bool = False, seed: int = 0) -> AttributeFeatures:
    generator, classes = torch.Generator().manual_seed(seed), CLASSES[attribute]
    k, f = len(classes), len(features)
    delta = torch.randn(len(KNOTS), k, rows, f, 4, 4, generator=generator)
    profile = Profile(KNOTS, delta, torch.ones(len(KNOTS), k), "seeded", "class-difference", relative)
    scores = torch.zeros(k, f)
    scores[torch.arange(f) % k, torch.arange(f)] = torch.arange(f, 0, -1).float()
    nothing = torch.zeros(k, f)
    return AttributeFeatures(
        classes, torch.tensor(features), scores, scores[None], nothing, torch.zeros(f), nothing, torch.zeros(1), {profile.source: profile}
    )


@pytest.fixture(scope="module")
def bias(sae: SaeFile) -> BiasFeatures:
    both = {"hair": found("hair", [3, 7, 11, 19]), "tone": found("tone", [7, 1, 20], seed=1)}
    return BiasFeatures(both, SITE, "tiny", sae.digest, C, M)


def options(n: int = 4, sigma: float = 1.0, marks: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return {"sigmas": torch.full((n,), sigma), "cond_or_uncond": list(marks)}


def h_of(n: int = 4, size: int = 4, seed: int = 5) -> Tensor:
    return 2 * torch.randn(n, C, size, size, generator=torch.Generator().manual_seed(seed))


def half(attribute: str = "hair") -> Any:
    return make_target({attribute: dict.fromkeys(CLASSES[attribute], 1 / len(CLASSES[attribute]))})


def steered(sae: SaeFile, bias: BiasFeatures, h: Tensor, at: dict[str, Any] | None = None, **settings: Any) -> Tensor:
    settings = {"target": half(), "seed": 3, **settings}
    return SteeringRun(sae, bias, SteerSettings(**settings)).edit(SITE, h, Call.read(at or options(len(h))))


def test_what_changes_is_the_decoded_change_of_activations(sae: SaeFile, bias: BiasFeatures) -> None:
    """The autoencoder's error stays in h, and nothing is below zero."""
    h, level = h_of(), torch.zeros(4)
    run = SteeringRun(sae, bias, SteerSettings(half(), seed=3))
    out = run.edit(SITE, h, Call.read(options()))
    assert run.cells is not None and sorted(run.cells.tolist()) == [0, 0, 1, 1]
    features, delta = bias.attributes["hair"].features, bias.attributes["hair"].profiles["class-difference"].delta[1]
    z = sae.sae.encode(h, level)
    wanted = z.clone()
    for i, c in enumerate(run.cells.tolist()):
        wanted[i, features] = (z[i, features] + delta[c, 0]).clamp(min=0)
    assert (wanted >= 0).all() and not torch.equal(wanted, z)
    error = h - sae.sae(h, level)
    assert torch.allclose(out, sae.sae.decode(wanted, level) + error, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nothing_to_do_leaves_the_very_same_object(sae: SaeFile, bias: BiasFeatures, dtype: torch.dtype) -> None:
    h = h_of().to(dtype)
    assert steered(sae, bias, h, strength=0.0) is h
    assert steered(sae, bias, h, sigma_start=0.5) is h, "outside the window"
    assert steered(sae, bias, h, options(sigma=200.0)) is h, "beyond the profile's noise levels"
    assert steered(sae, bias, h, mode=SCALE, amount=1.0) is h, "an identity edit"
    assert steered(sae, bias, h, mode=ADD, amount=0.0) is h
    assert steered(sae, bias, h, mask=torch.zeros(1, 8, 8)) is h


def test_only_conditional_rows_are_changed_unless_asked(sae: SaeFile, bias: BiasFeatures) -> None:
    h = h_of(8)
    out = steered(sae, bias, h, options(4, marks=(1, 0)))
    assert torch.equal(out[:4], h[:4]) and (out[4:] != h[4:]).flatten(1).any(1).all()
    both = steered(sae, bias, h, options(4, marks=(1, 0)), rows="cond+uncond")
    assert (both != h).flatten(1).any(1).all()


def test_below_zero_is_the_other_class_of_two(sae: SaeFile, bias: BiasFeatures) -> None:
    h, known = h_of(), CLASSES
    to = {c: everyone(known, "hair", c) for c in CLASSES["hair"]}
    away = steered(sae, bias, h, target=to["short"], strength=-0.7)
    assert torch.equal(away, steered(sae, bias, h, target=to["long"], strength=0.7))
    tone = {c: everyone(known, "tone", c) for c in CLASSES["tone"]}
    assert not torch.equal(steered(sae, bias, h, target=tone["light"], strength=-1.0), steered(sae, bias, h, target=tone["dark"]))


def test_the_papers_forms(sae: SaeFile, bias: BiasFeatures) -> None:
    h, level, target = h_of(), torch.zeros(4), everyone(CLASSES, "hair", "short")
    z, a = sae.sae.encode(h, level), bias.attributes["hair"]
    mine = a.features[a.best("short")]
    assert mine.tolist() == [3, 11]
    scaled = steered(sae, bias, h, target=target, mode=SCALE, amount=4.0)
    wanted = torch.zeros_like(z)
    wanted[:, mine] = 3 * z[:, mine]
    assert torch.allclose(scaled - h, sae.sae.delta(wanted, level), atol=1e-5)
    one = steered(sae, bias, h, target=target, mode=ADD, amount=2.0, features=1)
    wanted = torch.zeros_like(z)
    wanted[:, 3] = 2.0
    assert torch.allclose(one - h, sae.sae.delta(wanted, level), atol=1e-5)
    gone = steered(sae, bias, h, target=target, mode=SUPPRESS)
    wanted = torch.zeros_like(z)
    wanted[:, mine] = -z[:, mine]
    assert torch.allclose(gone - h, sae.sae.delta(wanted, level), atol=1e-5)


def test_single_features_by_their_numbers(sae: SaeFile, bias: BiasFeatures) -> None:
    h, level, short = h_of(), torch.zeros(4), everyone(CLASSES, "hair", "short")
    one = steered(sae, bias, h, target=short, mode=ADD, amount=2.0, features=1, only=(11,))
    wanted = torch.zeros(4, M, 4, 4)
    wanted[:, 11] = 2.0
    assert torch.allclose(one - h, sae.sae.delta(wanted, level), atol=1e-5), "not the best one, which is 3"
    assert steered(sae, bias, h, target=short, mode=ADD, only=(7,)) is h, "7 speaks for long hair"
    # By profile: the profile's own values of these, and of no other.
    z = sae.sae.encode(h, level)
    delta = bias.attributes["hair"].profiles["class-difference"].delta[1, 0, 0]
    wanted = torch.zeros_like(z)
    for i, latent in ((1, 7), (3, 19)):
        wanted[:, latent] = (z[:, latent] + delta[i]).clamp(min=0) - z[:, latent]
    assert torch.allclose(steered(sae, bias, h, target=short, only=(19, 7)) - h, sae.sae.delta(wanted, level), atol=1e-5)
    assert torch.equal(steered(sae, bias, h, only=(3, 7, 11, 19)), steered(sae, bias, h))
    assert parse_latents(" #7, 123;7 19") == (7, 123, 19) and parse_latents("") == ()
    nothing = steering_report(bias, SteerSettings(short, mode=ADD, only=(7,)))
    assert "no feature is changed, because none of the chosen ones speaks for short" in nothing
    assert "hair at output.1: 1 feature (#11)" in steering_report(bias, SteerSettings(short, only=(11,)))


def test_a_mask_says_where(sae: SaeFile, bias: BiasFeatures) -> None:
    h = h_of(4, 8)
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    out = steered(sae, bias, h, mask=mask)
    assert torch.equal(out[..., 4:], h[..., 4:]) and not torch.equal(out[..., :4], h[..., :4])
    with pytest.raises(ValueError, match="the mask has 2 images and the batch has more"):
        steered(sae, bias, h, mask=torch.ones(2, 8, 8))


def test_two_attributes_at_once_share_a_feature(sae: SaeFile, bias: BiasFeatures) -> None:
    """Feature 7 belongs to both: their changes add, and are kept above zero together."""
    h = h_of(1)
    target = parse_target("hair x tone: long/dark=1", CLASSES)
    out = SteeringRun(sae, bias, SteerSettings(target)).edit(SITE, h, Call.read(options(1)))
    z = sae.sae.encode(h, torch.zeros(1))
    wanted = z.clone()
    for name, c in (("hair", 1), ("tone", 2)):
        a = bias.attributes[name]
        wanted[0, a.features] += a.profiles["class-difference"].delta[1, c, 0]
    assert torch.allclose(out - h, sae.sae.delta(wanted.clamp(min=0) - z, torch.zeros(1)), atol=1e-5)


def test_a_profile_that_depends_on_the_reading(sae: SaeFile) -> None:
    """From class to class by what an ADP at the same site reads; relative profiles leave alone what is read as the class already."""
    predictor = AttributePredictor({"hair": CLASSES["hair"]}, C, torch.tensor([-5.0, 5.0]), "linear")
    predictor.weight.data.copy_(torch.randn(predictor.weight.shape, generator=torch.Generator().manual_seed(4)) * 20)
    adp = AdpFile(predictor.eval().requires_grad_(False), {}, "tiny", site=SITE)
    a = found("hair", [3, 7, 11], relative=True)
    bias = BiasFeatures({"hair": a}, SITE, "tiny", sae.digest, C, M)
    h = h_of(4)
    run = SteeringRun(sae, bias, SteerSettings(half(), assign="reading"), adp)
    assert run.sites == {SITE}
    out = run.edit(SITE, h, Call.read(options()))
    sure = run._read["hair"].amax(-1) > 0.999
    stays = sure & (run._read["hair"].argmax(-1) == run.cells)
    assert stays.any() and torch.allclose(out[stays], h[stays], atol=5e-2) and not torch.allclose(out[~stays], h[~stays], atol=0.2)
    p = a.profiles["class-difference"]
    full = replace(p, delta=(p.delta[:, :, :1] - p.delta[:, :, 0][:, None]), relative=False)
    reading, classes = torch.tensor([[0.2, 0.8]]), torch.tensor([1])
    assert torch.allclose(profile_delta(full, classes, reading, 1.0, (4, 4)), profile_delta(p, classes, reading, 1.0, (4, 4)), atol=1e-6)


def test_any_map_size(sae: SaeFile, bias: BiasFeatures) -> None:
    for height, width in ((3, 5), (8, 8), (26, 38)):
        h = torch.randn(2, C, height, width)
        out = steered(sae, bias, h)
        assert out.shape == h.shape and not torch.equal(out, h)
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(on_map(grid, 8, 8)[0, 0, ::2, ::2], grid[0, 0])


def test_bad_input_is_one_clear_sentence(sae: SaeFile, bias: BiasFeatures) -> None:
    def refuses(match: str, adp: AdpFile | None = None, **settings: Any) -> None:
        with pytest.raises(ValueError, match=match) as error:
            SteeringRun(sae, bias, SteerSettings(**{"target": half(), **settings}), adp)
        text = str(error.value)
        assert "\n" not in text and text.endswith(".") and len(text) < 300

    refuses("no bias features of 'hat'", target=make_target({"hat": {"a": 1.0, "b": 0.0}}))
    refuses("'boost' is not a mode of steering: choose one of profile, scale, add, suppress", mode="boost")
    refuses("#4, #20 is not among the bias features of hair in this file: use numbers that Feature Atlas", only=(3, 4, 20))
    for text in ("7, best", "1.5", "-3", "#", "²", "9" * 5000):
        with pytest.raises(ValueError, match="in 'only', write numbers such as '7, 123'") as error:
            parse_latents(text)
        assert len(str(error.value)) < 200
    refuses("no profile 'learned'", mode=PROFILE, source="learned")
    predictor = AttributePredictor({"hair": ("long", "short")}, C, torch.tensor([0.0]), "linear")
    refuses("reads 'hair' with the classes long, short", AdpFile(predictor, {}, "tiny", site=SITE))


def test_doubt_brings_a_reading_towards_what_knows_nothing() -> None:
    reading = torch.tensor([[0.9, 0.1], [1.0, 0.0]])
    profile = Profile(torch.zeros(1), torch.zeros(1, 2, 2, 1, 4, 4), torch.ones(1, 2))
    assert profile.softened(reading) is reading
    less = replace(profile, doubt=2.0).softened(reading)
    assert torch.allclose(less[0], torch.tensor([0.75, 0.25]), atol=1e-6) and less[1, 0] > 0.999 and torch.isfinite(less).all()
