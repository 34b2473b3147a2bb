"""The DDIM loop without a host, and guidance in it."""

from __future__ import annotations

import pytest
import torch
from equipoise.cli import schedule
from equipoise.cli.sampling import RecordedSite, noise_for, sample
from equipoise.methods.core.targets import make_target
from equipoise.methods.guidance.run import GuidanceRun, GuidanceSettings
from equipoise.models.adm_unet import AdmConfig, AdmUNet
from equipoise.models.adp import AdpFile, AttributePredictor, Move
from equipoise.models.pixel_latents import depth_to_space, space_to_depth

TARGET = make_target({"side": {"left": 0.5, "right": 0.5}})


@pytest.fixture(scope="module")
def net() -> AdmUNet:
    torch.manual_seed(0)
    config = AdmConfig(12, 12, 32, (1, 2), 1, (False, True), num_head_channels=32)
    return AdmUNet(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def adp() -> AdpFile:
    torch.manual_seed(1)
    predictor = AttributePredictor({"side": ("left", "right")}, 64, torch.linspace(-10, 9, 5)).eval().requires_grad_(False)
    knots = torch.tensor([-6.0, 0.0, 6.0])
    vectors = torch.nn.functional.normalize(torch.randn(3, 2, 1, 64 * 16), dim=-1).view(3, 2, 1, 64, 4, 4)
    return AdpFile(predictor, {"side": Move("middle", knots, vectors, torch.full((3, 2), 0.5))}, "toy")


def test_the_schedule_is_guided_diffusions_linear_one() -> None:
    assert schedule.sigmas()[-1].item() == pytest.approx(157.407, abs=2e-3)
    assert schedule.ddim_timesteps(20)[0] == 999 and schedule.ddim_timesteps(20)[-1] == 0


def test_ddim_with_a_perfect_network_returns_the_clean_image() -> None:
    clean = torch.randn(2, 3, 4, 4)
    noise = torch.randn(2, 3, 4, 4)
    abar = schedule.alphas_cumprod()
    start = abar[999].sqrt() * clean + (1 - abar[999]).sqrt() * noise

    def unet(x: torch.Tensor, t: torch.Tensor, options: dict) -> torch.Tensor:
        return schedule.velocity(clean, noise, int(t[0]))

    assert torch.allclose(schedule.ddim(unet, start, 7), clean, atol=1e-4)


def test_space_to_depth_is_exact() -> None:
    images = torch.rand(2, 3, 32, 32)
    assert space_to_depth(images).shape == (2, 12, 16, 16)
    assert torch.allclose(depth_to_space(space_to_depth(images)), images, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch(net: AdmUNet) -> None:
    together = sample(net, [5, 6, 7, 8], batch=4, steps=3).latents
    apart = sample(net, [5, 6, 7, 8], batch=1, steps=3).latents
    assert torch.allclose(together, apart, atol=1e-4)
    assert not torch.equal(noise_for([5]), noise_for([6]))


def test_guidance_changes_images_and_meets_its_quotas(net: AdmUNet, adp: AdpFile) -> None:
    def make_run(number: int, seed: int) -> GuidanceRun:
        return GuidanceRun(adp, GuidanceSettings(TARGET, seed=seed))

    plain = sample(net, list(range(8)), batch=4, steps=4)
    guided = sample(net, list(range(8)), batch=4, steps=4, make_run=make_run)
    assert not torch.allclose(plain.latents, guided.latents)
    assert [torch.bincount(c, minlength=2).tolist() for c in guided.cells.split(4)] == [[2, 2], [2, 2]]
    assert len(guided.runs) == 2 and len(guided.runs[0].readings.log_snr) == 4


def test_strength_zero_is_plain_sampling_bit_for_bit(net: AdmUNet, adp: AdpFile) -> None:
    def make_run(number: int, seed: int) -> GuidanceRun:
        return GuidanceRun(adp, GuidanceSettings(TARGET, seed=seed, strength=0.0))

    plain = sample(net, [1, 2], batch=2, steps=3)
    assert torch.equal(plain.latents, sample(net, [1, 2], batch=2, steps=3, make_run=make_run).latents)


def test_recording_changes_nothing_and_holds_every_call(net: AdmUNet) -> None:
    plain = sample(net, [1, 2, 3], batch=2, steps=3)
    recorded = sample(net, [1, 2, 3], batch=2, steps=3, record=RecordedSite())
    assert torch.equal(plain.latents, recorded.latents)
    assert recorded.features.shape == (3, 3, 64, 4, 4) and recorded.level.shape == (3,)
