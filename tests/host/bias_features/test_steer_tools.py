"""Loaders of autoencoders and bias features, Steer Sweep and Feature Atlas, in the host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise_world import World, far, sentence
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "medium", "long")}
UP, CHANNELS = "output.1", 64


@pytest.fixture
def sae(prompt: Any) -> Any:
    return random_sae(CHANNELS, UP, "tiny")


@pytest.fixture
def bias(sae: Any) -> Any:
    return random_bias(sae, ATTRIBUTES)


@pytest.fixture
def world(prompt: Any) -> World:
    return World(prompt, "classes")


# -- loaders -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(prompt: Any, sae: Any, bias: Any) -> Iterator[tuple[Path, Path]]:
    """An autoencoder and its bias features in the host's folders; removed afterwards."""
    from equipoise.models.bias_features import save_bias_features
    from equipoise.models.sae import save_sae

    base = prompt.base / "models" / "equipoise"
    paths = base / "sae" / "test_steer.safetensors", base / "bias_features" / "test_steer.safetensors"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    save_sae(sae, paths[0])
    save_bias_features(bias, paths[1])
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


def test_files_are_listed_loaded_and_steer_as_what_was_saved(files: tuple[Path, Path], world: World, sae: Any, bias: Any) -> None:
    from equipoise.host.core.files import choices
    from equipoise.nodes.bias_features.load_bias_features import LoadBiasFeatures
    from equipoise.nodes.sae.load_sae import LoadSAE

    name = files[0].name
    assert name in choices("equipoise_sae") and name in choices("equipoise_bias_features")
    loaded, text = LoadSAE.execute(name).result
    assert f"for tiny at {UP}: {CHANNELS} channels, 256 latents" in text and loaded.digest == sae.digest
    found, text = LoadBiasFeatures.execute(name).result
    assert f"autoencoder {sae.digest} (256 latents)" in text and "hair: 12 features" in text and "learned (default)" in text
    steered = world.sample(steer(world, loaded, found, strength=1.0), steps=2)
    plain, wanted = world.sample(steps=2), world.sample(steer(world, sae, bias, strength=1.0), steps=2)
    assert float((steered - wanted).norm() / (wanted - plain).norm()) < 0.02, "weights are kept in fp16"
    for node in (LoadSAE, LoadBiasFeatures):
        one = node.fingerprint_inputs(name)
        assert one == node.fingerprint_inputs(name) and "missing" not in one and "missing" in node.fingerprint_inputs("none.safetensors")


def test_files_of_another_kind_and_damaged_ones_are_refused(files: tuple[Path, Path]) -> None:
    from equipoise.nodes.bias_features.load_bias_features import LoadBiasFeatures
    from equipoise.nodes.sae.load_sae import LoadSAE

    whole = [path.read_bytes() for path in files]
    for node, path, other, part in (
        (LoadSAE, files[0], whole[1], "is not a sparse autoencoder"),
        (LoadBiasFeatures, files[1], whole[0], "holds no bias features"),
    ):
        kept = path.read_bytes()
        for content, said in ((other, part), (kept[: len(kept) // 2], "is not a whole safetensors file"), (b"", "is not a whole")):
            path.write_bytes(content)
            with pytest.raises(ValueError) as error:
                node.execute(path.name)
            assert said in sentence(SimpleNamespace(value=str(error.value).replace(path.name, "FILE")))
        with pytest.raises(FileNotFoundError, match="'none.safetensors' is not in models/equipoise/"):
            node.execute("none.safetensors")


def test_a_target_takes_its_classes_from_bias_features(bias: Any) -> None:
    from equipoise.nodes.guidance.target_distribution import TargetDistributionNode

    chosen, text = TargetDistributionNode.execute("hair", "uniform", "", bias_features=bias).result
    assert chosen.classes == (ATTRIBUTES["hair"],) and chosen.shares == pytest.approx((1 / 3,) * 3) and text.startswith("hair: short=")
    chosen = TargetDistributionNode.execute("eyeglasses", "weights", "yes=0.2", bias_features=bias).result[0]
    assert chosen.shares == pytest.approx((0.8, 0.2))
    joint = TargetDistributionNode.execute("eyeglasses x hair", "uniform", "", bias_features=bias).result[0]
    assert len(joint.shares) == 6
    adp = SimpleNamespace(attributes={"hair": ("bob", "bald")})
    assert TargetDistributionNode.execute("hair", "uniform", "", adp, bias_features=bias).result[0].classes == (("bob", "bald"),)
    with pytest.raises(ValueError, match="'beard'.*known: eyeglasses, hair") as error:
        TargetDistributionNode.execute("beard", "uniform", "", bias_features=bias)
    sentence(error)


# -- sweep ---------------------------------------------------------------------------------------------------------------------------

VAE = SimpleNamespace(decode=lambda samples: samples[:, :3].movedim(1, -1).sigmoid())


def steer(world: World, sae: Any, bias: Any, strength: float) -> Any:
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.methods.bias_features.run import SteerSettings, everyone

    return apply_steering(world.model, sae, bias, SteerSettings(everyone(ATTRIBUTES, "eyeglasses", "yes"), strength=strength))


def sweep(world: World, sae: Any, bias: Any, n: int = 2, **given: Any) -> tuple[Tensor, Tensor, str]:
    from equipoise.nodes.bias_features.steer_sweep import SteerSweep

    settings: dict[str, Any] = {
        "attribute": "eyeglasses", "class_name": "yes", "lowest": -1.0, "highest": 1.0, "points": 3, "mode": "profile",
        "profile": "calibrated", "features": 0, "amount": 3.0, "rows": "cond", "start_percent": 0.0, "end_percent": 1.0, "rule": "one pass",
        "seed": 5, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
    }  # fmt: skip
    return SteerSweep.execute(
        model=world.model, sae=sae, bias_features=bias, positive=world.positive, negative=world.negative, latent_image=world.empty(n),
        vae=VAE, **(settings | given),
    ).result  # fmt: skip


class Bright:
    """A classifier that calls the brighter half 'yes'."""

    name, attributes = "bright.safetensors", {"eyeglasses": ("yes", "no")}

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        mean = images.flatten(1).mean(1)
        yes = (mean > mean.median()).float()
        return {"eyeglasses": torch.stack([yes, 1 - yes], dim=1)}


def test_a_sweep_is_the_host_s_sampler_at_every_strength(world: World, sae: Any, bias: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.utils

    moved: list[tuple[int, int, bool]] = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview=None, **_: moved.append((value, total, preview is not None))
    )
    strip, images, report = sweep(world, sae, bias, classifier=Bright())
    assert [m[:2] for m in moved] == [(i + 1, 6) for i in range(6)] and any(m[2] for m in moved)
    assert strip.shape[0] == 1 and strip.shape[-1] == 3 and images.shape[0] == 6 and strip.shape[2] >= 3 * images.shape[2]
    for point, strength in enumerate((-1.0, 0.0, 1.0)):
        wanted = VAE.decode(world.sample(steer(world, sae, bias, strength), n=2, steps=2))
        assert torch.equal(images[2 * point : 2 * point + 2], wanted)
    assert torch.equal(images[2:4], VAE.decode(world.sample(n=2, steps=2))), "strength 0"
    assert far(images[:2], images[2:4]) and far(images[4:], images[2:4])
    lines = [line for line in report.splitlines() if "show eyeglasses: yes" in line]
    assert [line.split(":")[0] for line in lines] == ["strength -1", "strength +0", "strength +1"] and "of 2 images" in lines[0]
    assert "12 features" in report


def test_a_sweep_of_one_feature(world: World, sae: Any, bias: Any) -> None:
    one = int(bias.attributes["eyeglasses"].features[3])
    _, images, report = sweep(world, sae, bias, only=f"#{one}")
    _, every, _ = sweep(world, sae, bias)
    assert f"1 feature (#{one})" in report
    assert torch.equal(images[2:4], every[2:4]), "strength 0"
    for part in (slice(0, 2), slice(4, 6)):
        moved = (images[part] - images[2:4]).norm()
        assert 0 < moved < (every[part] - every[2:4]).norm()


def test_a_sweep_can_be_interrupted(world: World, sae: Any, bias: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management
    import comfy.utils

    plain = world.sample(n=2, steps=2)
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, *_, **__: comfy.model_management.interrupt_current_processing(value == 3)
    )
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sweep(world, sae, bias)
    comfy.model_management.interrupt_current_processing(False)
    assert torch.equal(world.sample(n=2, steps=2), plain)


def test_a_sweep_refuses_what_it_cannot_do(world: World, sae: Any, bias: Any) -> None:
    def refused(given_sae: Any = sae, **given: Any) -> str:
        with pytest.raises(ValueError) as error:
            sweep(world, given_sae, bias, **given)
        return sentence(error)

    assert "from a lower to a higher strength" in refused(lowest=1.0, highest=1.0)
    assert "no class 'maybe'" in refused(class_name="maybe")
    assert "#256 is not among the bias features of eyeglasses" in refused(only="256")
    text = refused(classifier=Bright(), attribute="hair", class_name="long")
    assert "'bright.safetensors' does not know the class 'long' of 'hair'; it knows eyeglasses: yes, no" in text
    assert "were found in the autoencoder" in refused(random_sae(CHANNELS, UP, "tiny", seed=3))


# -- atlas ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(prompt: Any, world: World) -> Iterator[Any]:
    """Eight images of the tiny model with whole maps at the autoencoder's site."""
    from equipoise.host.core.sampling import SamplerSettings
    from equipoise.host.data.record_samples import GivenConditions, record_samples
    from equipoise.methods.data.recording import RecordingSettings

    conditions = GivenConditions(world.model, world.positive, world.negative)
    sampler = SamplerSettings(5, 3, 3.0, "euler", "normal")
    vae = SimpleNamespace(decode=VAE.decode, upscale_ratio=1)
    settings = RecordingSettings(site=UP, spatial_levels=(0.0, 4.0))
    made = record_samples(world.model, vae, conditions, world.empty(4), "steer tools", 8, sampler, settings)
    yield made.features
    shutil.rmtree(made.features.folder)


def test_the_atlas_shows_the_features_of_a_class(recorded: Any, sae: Any, bias: Any) -> None:
    from equipoise.nodes.bias_features.feature_atlas import FeatureAtlas

    def atlas(**given: Any) -> tuple[Tensor, str]:
        settings = {"attribute": "hair", "class_name": "", "count": 4, "overlay": True}
        return FeatureAtlas.execute(features=recorded, sae=given.pop("sae", sae), bias_features=bias, **(settings | given)).result

    image, text = atlas()
    found = bias.attributes["hair"]
    wanted = [int(found.features[found.best(c)[i]]) for i in range(2) for c in found.classes][:4]
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == [f"#{f}" for f in wanted]
    assert all("for " in line and "stable " in line and line.count(".png") == 5 for line in lines)
    assert image.shape[0] == 1 and image.shape[2:] == (960, 3)
    # what the front end's buttons send: the feature and a class that it speaks for
    run = FeatureAtlas.execute(features=recorded, sae=sae, bias_features=bias, attribute="hair", class_name="", count=4, overlay=True)
    sent = run.ui["equipoise_features"]
    assert [s["feature"] for s in sent] == wanted and all(s["attribute"] == "hair" for s in sent)
    assert all(s["feature"] in found.features[found.best(s["class_name"])] for s in sent)
    bare, _ = atlas(overlay=False)
    assert bare.shape == image.shape and not torch.equal(bare, image)
    one, text = atlas(class_name="long", count=1)
    assert one.shape[1] < image.shape[1] and text.startswith(f"#{int(found.features[found.best('long')[0]])} ") and "for long" in text

    def refused(**given: Any) -> str:
        with pytest.raises(ValueError) as error:
            atlas(**given)
        return sentence(error)

    assert "no class 'curly'" in refused(class_name="curly")
    assert "no bias features of 'beard'" in refused(attribute="beard")
    assert "were found in the autoencoder" in refused(sae=random_sae(CHANNELS, UP, "tiny", seed=3))
