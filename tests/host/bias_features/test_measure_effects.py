"""Measure Feature Effects in the host, on a small random model: whole trials, resumed and refused, and the node's own outputs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise_world import World, placed, sentence
from torch import Tensor

LIGHT = {"light": ("dark", "bright")}
SITE, CHANNELS, STEPS, IMAGES = "output.1", 64, 3, 4
VAE = SimpleNamespace(decode=lambda samples: samples[:, :3].movedim(1, -1).sigmoid())


class Bright:
    """A classifier that calls pictures bright or dark, and knows its classes in another order than the bias features do."""

    name, attributes = "bright.safetensors", {"light": ("bright", "dark"), "tint": ("red", "blue")}

    def __init__(self, level: float = 0.5) -> None:
        self.level = level

    def fingerprint(self) -> str:
        return f"bright above {self.level}"

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        bright = (images.flatten(1).mean(1) > self.level).float()
        red = (images[..., 0].flatten(1).mean(1) > images[..., 2].flatten(1).mean(1)).float()
        return {"light": torch.stack([bright, 1 - bright], 1), "tint": torch.stack([red, 1 - red], 1)}


def sampled(world: World, model: Any = None) -> list[Tensor]:
    """The two batches of a trial."""
    return [VAE.decode(world.sample(model, n=2, steps=STEPS, cfg=1.0, seed=7 + batch)) for batch in range(2)]


@pytest.fixture
def parts(prompt: Any) -> Iterator[SimpleNamespace]:
    """A model, an autoencoder with 32 latents of which 8 are always active, and bias features in it."""
    sae = random_sae(CHANNELS, SITE, "tiny", latents=32)
    world = World(prompt, "classes")
    plain = torch.cat(sampled(world)).flatten(1).mean(1)
    yield SimpleNamespace(world=world, sae=sae, bias=random_bias(sae, LIGHT, features=6), classifier=Bright(float(plain.median())))
    shutil.rmtree(prompt.base / "output" / "equipoise", ignore_errors=True)


def measure(parts: SimpleNamespace, **given: Any) -> tuple[Any, str, Tensor]:
    from equipoise.nodes.bias_features.measure_feature_effects import MeasureFeatureEffects

    w = parts.world
    settings: dict[str, Any] = {
        "model": w.model, "sae": parts.sae, "bias_features": parts.bias, "positive": w.positive, "negative": w.negative,
        "latent_image": w.empty(2), "vae": VAE, "classifier": parts.classifier, "images": IMAGES - 1, "seed": 7, "steps": STEPS, "cfg": 1.0,
        "sampler_name": "euler", "scheduler": "normal", "per_class": 1, "amount": 40.0, "attribute": "", "name": "effects",
    }  # fmt: skip
    return MeasureFeatureEffects.execute(**(settings | given)).result


def bright_shares(parts: SimpleNamespace, added: float, index: int) -> float:
    """Share of bright images when the first feature of a class is turned by so much, sampled beside the node."""
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.methods.bias_features.run import SteerSettings, everyone
    from equipoise.methods.bias_features.turn_alone import turned_file, turns_of

    turn = turns_of("light", parts.bias.attribute("light"), 1)[index]
    settings = SteerSettings(everyone(LIGHT, "light", "dark"))
    model = apply_steering(parts.world.model, parts.sae, turned_file(parts.bias, turn, added), settings)
    return float(parts.classifier.probabilities(torch.cat(sampled(parts.world, model)))["light"][:, 0].mean())


def test_features_are_turned_through_the_host_s_sampler(parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.methods.bias_features.turn_alone import NOTHING

    moved: list[tuple[int, int]] = []
    monkeypatch.setattr("comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", lambda value, total, *_, **__: moved.append((value, total)))
    before = placed(parts.world.model)
    made, report, chart = measure(parts)
    total = 5 * 2 * STEPS
    assert [m[0] for m in moved[:-1]] == list(range(1, total + 1)) and moved[-1] == (total, total), "five trials of two batches"
    assert placed(parts.world.model) == before
    found, record = made.attribute("light"), made.info["causal"]["light"]
    measured = [found.features.tolist().index(f) for f in record["features"]]
    assert len(measured) == 2 and found.causal[:, measured].isfinite().all() and int(found.causal.isnan().sum()) == 2 * (6 - 2)
    assert torch.equal(found.causal[0, measured], -found.causal[1, measured]) and found.causal[:, measured].any()
    for j, place in enumerate(measured):
        up, down = (bright_shares(parts, added, j) for added in (40 * record["typical"][j], NOTHING))
        assert float(found.causal[1, place]) == pytest.approx(up - down, abs=1e-6)
    assert record["images"] == IMAGES and record["judge"] == "bright.safetensors" and set(record["beside"][0]) == {"tint"}
    assert report.startswith("light: 2 features turned alone, up by 40 times")
    assert "4 images per trial (plain images: dark 50%, bright 50%" in report
    assert chart.shape[0] == 1 and chart.shape[2:] == (960, 3) and parts.bias.attribute("light").causal.isnan().all()


def test_a_cut_measurement_goes_on_and_is_not_repeated(parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management
    from equipoise.host.core.trials import HostTrials

    whole = measure(parts, name="whole")

    def hook(value: int, total: int, *_: Any, **__: Any) -> None:
        if value == 15:  # in the middle of the third trial
            management.interrupt_current_processing(True)

    monkeypatch.setattr("comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    with monkeypatch.context() as m:
        m.setattr("comfy.utils.PROGRESS_BAR_HOOK", hook)
        with pytest.raises(management.InterruptProcessingException):
            measure(parts, name="cut")
    batches: list[int] = []
    with monkeypatch.context() as m:
        plain = HostTrials._batch
        m.setattr(HostTrials, "_batch", lambda self, model, batch: batches.append(batch) or plain(self, model, batch))
        again = measure(parts, name="cut")
        assert batches == [0, 1] * 3, "two of five trials were done"
        assert again[1] == whole[1] and torch.equal(again[2], whole[2])
        assert measure(parts, name="cut")[1] == whole[1] and len(batches) == 6
        measure(parts, name="cut", amount=20.0)
        assert len(batches) == 10, "another amount: the upward trials alone"
        measure(parts, name="cut", seed=8)
        assert len(batches) == 20, "another seed: everything"


def test_what_does_not_belong_together_is_refused(parts: SimpleNamespace) -> None:
    stranger = SimpleNamespace(name="s", attributes={"shine": ("no", "yes")}, probabilities=None, fingerprint=lambda: "s")
    for given, message in (
        ({"sae": random_sae(CHANNELS, SITE, "tiny", latents=32, seed=3)}, "were found in the autoencoder"),
        ({"sae": random_sae(32, SITE, "tiny", latents=32)}, "expects 32 channels at 'output.1'"),
        ({"classifier": stranger}, "the classifier 's' does not know 'light' with the classes dark, bright"),
        ({"attribute": "beard"}, "no bias features of 'beard'"),
        ({"name": "../x"}, "cannot be the name"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            measure(parts, **given)
        sentence(error)
