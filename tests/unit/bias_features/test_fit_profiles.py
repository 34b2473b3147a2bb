"""Profiles of features are fitted through a decoder, and features chosen by their effect on it; here on a toy whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from equipoise.cli.schedule import alphas_cumprod
from equipoise.methods.bias_features.decoder_effects import EffectSettings, decoder_effects
from equipoise.methods.bias_features.extend_features import with_features, with_profile
from equipoise.methods.bias_features.fit_profiles import ProfileHook, cleaned, empty_profiles, finished_profiles, new_profile_fit
from equipoise.methods.guidance.fit_moves import Diffusion, FitImages, FitSettings, SitePredictor, fit_moves
from equipoise.models.adp import AttributePredictor
from equipoise.models.bias_features import CLASS_DIFFERENCE, LEARNED, AttributeFeatures, BiasFeatures, Profile
from equipoise.models.sae import SparseAutoencoder

KNOTS = torch.tensor([-9.0, 6.0])
UP, DOWN, IDLE = 2, 0, (1, 3)
"""Latents that lift and lower the predicted image, and those that do nothing to it."""


def autoencoder() -> SparseAutoencoder:
    """Latent i stands for channel i."""
    sae = SparseAutoencoder(4, 4, 4, KNOTS)
    with torch.no_grad():
        sae.encoder.copy_(torch.eye(4))
        sae.decoder.copy_(torch.eye(4))
    return sae.eval().requires_grad_(False)


def toy(constant: float) -> tuple[Diffusion, torch.Tensor, torch.Tensor]:
    """The predicted clean image is channel 2 of h less channel 0; h is ``constant`` everywhere, so that only the edit can tell what the
    image is. The label is the sign of the image's mean."""
    labels = torch.arange(64) % 2
    clean = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + (labels.float() * 2 - 1)[:, None, None, None]

    def output(x: torch.Tensor, t: int, options: dict[str, Any]) -> torch.Tensor:
        h = torch.full((x.shape[0], 4, 4, 4), constant)
        for block in (0, 1):
            for patch in options["patches"]["output_block_patch"]:
                h, _ = patch(h, None, options | {"block": ("output", block)})
        return h[:, UP : UP + 1] - h[:, DOWN : DOWN + 1]

    model = Diffusion(
        output=output,
        wanted=lambda clean, noise, t: clean,
        clean=lambda x, out, t: out,
        logits=lambda c: {"side": torch.stack([-c.mean(dim=(1, 2, 3)), c.mean(dim=(1, 2, 3))], dim=1) * 5},
        alphas_cumprod=alphas_cumprod(),
    )
    return model, clean, torch.nn.functional.one_hot(labels, 2).float()


def reader() -> AttributePredictor:
    return AttributePredictor({"side": ("low", "high")}, 4, KNOTS).eval().requires_grad_(False)


def found(features: list[int], *profiles: Profile) -> AttributeFeatures:
    f = len(features)
    scores = torch.arange(2.0 * f).reshape(2, f)
    return AttributeFeatures(
        ("low", "high"), torch.tensor(features), scores, scores.expand(2, -1, -1).clone(), torch.ones(2, f), torch.ones(f),
        torch.zeros(2, f), KNOTS, {p.source: p for p in profiles},
    )  # fmt: skip


def fit(constant: float, predictor: AttributePredictor | None, steps: int = 120) -> Profile:
    model, clean, labels = toy(constant)
    order, settings = [3, UP, DOWN, 1], FitSettings(steps, 16, 0.05)
    reads = SitePredictor(predictor)
    state = new_profile_fit(empty_profiles({"side": found(order)}), reads, settings, torch.device("cpu"))
    hook = ProfileHook(autoencoder(), "output.0", {"side": torch.tensor(order)}, state.vectors, reads, torch.device("cpu"))
    fit_moves(model, FitImages(clean, {"side": labels}), reads, hook.sites, settings, fit=state, hook=hook)
    return finished_profiles(state)["side"]


@pytest.mark.parametrize("constant", [1.0, 0.0], ids=["active", "to be woken"])
def test_a_profile_turns_the_planted_features_towards_the_class(constant: float) -> None:
    """Also where the features are off at first: an activation below zero is none, and its gradient passes upwards all the same."""
    profile = fit(constant, None)
    assert profile.delta.shape == (11, 2, 1, 4, 4, 4) and profile.assign == "seeded" and profile.source == LEARNED
    assert torch.equal(profile.sizes, torch.ones(11, 2))
    mean = profile.delta.mean(dim=(0, 2, 4, 5))  # [K, F] in the order of the features
    low, high = mean
    assert high[1] > 0.1 and low[2] > 0.1, "each class by the feature that speaks for it"
    assert high[1] > high[2] and low[2] > low[1]
    assert mean[:, [0, 3]].abs().max() < 1e-6, "what does nothing is left alone"


def test_a_profile_depends_on_the_reading_where_there_is_one() -> None:
    profile = fit(1.0, reader(), steps=3)
    assert profile.delta.shape == (11, 2, 2, 4, 4, 4) and profile.assign == "reading"


def test_the_noise_of_a_fit_and_what_images_of_the_class_need_not_are_dropped() -> None:
    delta = torch.full((2, 3, 3, 1, 4, 4), 0.1)
    delta[0, :, :, 0, 0, 0] = torch.arange(1.0, 10.0).view(3, 3)
    kept = cleaned(delta)
    assert kept[0, :, :, 0, 0, 0].tolist() == [[0, 2, 3], [4, 0, 6], [7, 8, 0]]
    assert int((kept != 0).sum()) == 6
    alone = cleaned(delta[:, :, :1])
    assert alone[0, :, 0, 0, 0, 0].tolist() == [1, 4, 7] and int((alone != 0).sum()) == 3


def test_features_are_found_by_what_they_do() -> None:
    model, clean, _ = toy(1.0)
    seen: list[tuple[int, int]] = []

    def measured(reads: SitePredictor) -> torch.Tensor:
        settings, progress = EffectSettings(batches=3, batch=8), lambda done, total, figures: seen.append((done, total))
        return decoder_effects(model, autoencoder(), "output.0", FitImages(clean), {"side": 2}, reads, settings, progress)["side"]

    effects = measured(SitePredictor())
    assert effects.shape == (4,) and seen == [(1, 3), (2, 3), (3, 3)]
    assert set(effects.topk(2).indices.tolist()) == {UP, DOWN} and effects[list(IDLE)].max() == 0
    again, read = measured(SitePredictor()), measured(SitePredictor(reader()))
    assert torch.equal(again, effects) and set(read.topk(2).indices.tolist()) == {UP, DOWN}


def test_features_are_added_behind_those_that_are_there() -> None:
    delta = torch.randn(2, 2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    before = found([3, 1], Profile(KNOTS, delta, torch.ones(2, 2)))
    after = with_features(before, torch.tensor([1, 2, 0, 2]))
    assert after.features.tolist() == [3, 1, 0, 2] and before.features.tolist() == [3, 1]
    assert torch.equal(after.scores[:, :2], before.scores) and after.scores[:, 2:].abs().max() == 0
    assert torch.equal(after.scores_by_level[..., :2], before.scores_by_level) and after.stability[:, 2:].abs().max() == 0
    assert after.side_effect[2:].isnan().all() and after.causal[:, 2:].isnan().all()
    (profile,) = after.profiles.values()
    assert torch.equal(profile.delta[:, :, :, :2], delta) and profile.delta[:, :, :, 2:].abs().max() == 0
    assert with_features(after, torch.tensor([0, 3])) is after


def test_a_profile_replaces_one_of_its_source_and_leaves_the_file() -> None:
    one, other = (Profile(KNOTS, torch.full((2, 2, 1, 2, 4, 4), v), torch.ones(2, 2), source=CLASS_DIFFERENCE) for v in (1.0, 2.0))
    learned = Profile(KNOTS, torch.zeros(2, 2, 1, 2, 4, 4), torch.ones(2, 2), source=LEARNED)
    file = BiasFeatures({"side": found([3, 1], one)}, "output.0", "toy", "0" * 16, 4, 4)
    made = with_profile(with_profile(file, "side", other), "side", learned, default=True)
    side = made.attribute("side")
    assert side.profiles[CLASS_DIFFERENCE] is other and side.default == LEARNED and side.profile() is learned
    assert file.attribute("side").profiles == {CLASS_DIFFERENCE: one} and file.attribute("side").default == ""
