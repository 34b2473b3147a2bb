"""From a recorded site to a steered model through the nodes, on a small random model: autoencoder, bias features, profiles, strengths."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise_folders import remove_folders
from equipoise_world import World, sentence
from torch import Tensor

LIGHT = {"light": ("dark", "bright")}
SITE, CHANNELS, IMAGES = "output.1", 64, 24
STEPS = 3


def brightness(name: str = "light") -> Any:
    """A classifier that reads whether a picture is bright."""
    from equipoise.host.labels.classifier import HostClassifier
    from equipoise.models.attribute_classifier import AttributeClassifier

    class Brightness(AttributeClassifier):
        architecture = "brightness"

        def __init__(self) -> None:
            super().__init__({name: ("bright", "dark")}, 32)  # not in the labels' order
            self.gain = torch.nn.Parameter(torch.tensor(40.0), requires_grad=False)

        @property
        def config(self) -> dict[str, Any]:
            return {}

        def features(self, pixels: Tensor) -> Tensor:
            return self.gain * pixels.mean(dim=(1, 2, 3))[:, None]

        def forward(self, pixels: Tensor) -> dict[str, Tensor]:
            return {name: torch.cat([self.features(pixels), -self.features(pixels)], 1)}

    return HostClassifier(Brightness(), "brightness")


def record(world: World, vae: Any, name: str = "steering training", **given: Any) -> Any:
    from equipoise.nodes.data.record_features import RecordFeatures

    settings: dict[str, Any] = {
        "images": IMAGES, "prompts": "", "negative_prompt": "", "first_seed": 5, "steps": STEPS, "cfg": 1.0, "sampler_name": "euler",
        "scheduler": "normal", "denoise": 1.0, "every": 1, "unconditional_rows": False, "spatial_levels": "-4, 0, 4", "site": SITE,
        "positive": world.positive, "negative": world.negative,
    }  # fmt: skip
    return RecordFeatures.execute(model=world.model, vae=vae, latent_image=world.empty(8), set_name=name, **(settings | given)).result


def train(features: Any, name: str, **given: Any) -> Any:
    from equipoise.nodes.sae.train_sae import TrainSAE

    settings = {"latents": 96, "k": 8, "activation": "topk", "steps": 40, "batch": 128, "seed": 0, "overwrite": False} | given
    return TrainSAE.execute(features=features, name=name, **settings).result


def find(made: Any, **given: Any) -> Any:
    from equipoise.nodes.bias_features.find_bias_features import FindBiasFeatures

    settings = {"features": made.features, "labels": made.labels, "sae": made.sae, "attribute": "", "per_class": 8, "beside": 0.0}
    return FindBiasFeatures.execute(**(settings | {"seed": 0} | given)).result


def learn(made: Any, **given: Any) -> Any:
    from equipoise.nodes.bias_features.learn_feature_profiles import LearnFeatureProfiles

    settings: dict[str, Any] = {
        "model": made.world.model, "sae": made.sae, "bias_features": made.found, "features": made.features, "labels": made.labels,
        "vae": made.vae, "classifier": brightness(), "attribute": "", "more": 4, "fit_steps": 3, "batch": 4, "seed": 0, "name": "profiles",
        "positive": made.world.positive,
    }  # fmt: skip
    return LearnFeatureProfiles.execute(**(settings | given)).result


def calibrate(made: Any, **given: Any) -> Any:
    from equipoise.nodes.bias_features.calibrate_bias_features import CalibrateBiasFeatures

    w = made.world
    settings: dict[str, Any] = {
        "model": w.model, "sae": made.sae, "bias_features": made.found, "positive": w.positive, "negative": w.negative,
        "latent_image": w.empty(4), "vae": made.vae, "classifier": brightness(), "images": 4, "seed": 7, "steps": STEPS, "cfg": 1.0,
        "sampler_name": "euler", "scheduler": "normal", "enough": 0.97, "attribute": "light", "name": "strengths",
    }  # fmt: skip
    return CalibrateBiasFeatures.execute(**(settings | given)).result


@pytest.fixture(scope="module")
def made(host: Any) -> Iterator[SimpleNamespace]:
    """A set recorded at an up block, its labels, an autoencoder of it, and the bias features found in that."""
    from equipoise.host.data.feature_sets import read_picture
    from equipoise.host.small_models.pixel_vae import PixelVae
    from equipoise.methods.labels.labels import LabelSet

    places = [host.base / "output" / "equipoise", *(host.base / "models" / "equipoise" / kind for kind in ("sae", "bias_features"))]
    with torch.inference_mode():
        m = SimpleNamespace(world=World(host, "packed"))
        m.vae = PixelVae(m.world.model.model.equipoise_info.ratio)
        m.features, m.report, _ = record(m.world, m.vae)
        light = torch.stack([read_picture(m.features.image_path(e)).mean() for e in m.features.entries])
        files = tuple(e.file for e in m.features.entries)
        m.labels = LabelSet(dict(LIGHT), files, {"light": torch.eye(2)[(light > light.median()).long()]})
        m.trained = train(m.features, "tiny")
        m.sae = m.trained[0]
        m.found_out = find(m)
        m.found = m.found_out[0]
    yield m
    remove_folders(*places)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, at: int, of: int) -> None:
    """Let the host interrupt when a bar of ``of`` steps reaches ``at``."""
    import comfy.model_management as management

    def hook(value: int, total: int, preview: Any, **_: Any) -> None:
        if (value, total) == (at, of):
            management.interrupt_current_processing(True)

    monkeypatch.setattr("comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", hook)


# -- recording and the autoencoder -----------------------------------------------------------------------------------------------------


def test_a_set_is_recorded_at_an_up_block(made: SimpleNamespace, prompt: Any) -> None:
    from equipoise.nodes.data.record_features_from_images import RecordFeaturesFromImages

    assert made.features.meta["site"] == SITE and made.features.meta["channels"] == CHANNELS
    assert f"at '{SITE}'" in made.report and "unpooled maps" in made.report
    assert all(e.spatial_rows for e in made.features.entries)
    w = made.world
    pictures = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    given = {"set_name": "from pictures", "folder": "", "levels": "0, 2", "size": 0, "batch_size": 2, "first_seed": 0}
    take = functools.partial(RecordFeaturesFromImages.execute, w.model, made.vae, w.positive, spatial_levels="0", images=pictures, **given)
    assert take(site=SITE).result[0].meta["site"] == SITE
    for refused in (lambda: take(site="output.9"), lambda: record(w, made.vae, "nowhere", site="output.9")):
        with pytest.raises(ValueError, match="no site 'output.9': choose one of middle, output.0") as error:
            refused()
        sentence(error)


def test_train_sae_saves_what_it_made(made: SimpleNamespace, prompt: Any) -> None:
    from equipoise.nodes.sae.load_sae import LoadSAE

    sae, report, chart = made.trained
    assert (sae.site, sae.base_model, sae.sae.latents, sae.sae.k) == (SITE, "tiny", 96, 8)
    assert "tiny.safetensors" in report and "40 steps of 128 positions from 24 images" in report
    assert chart.shape == (1, 1048, 960, 3)
    assert LoadSAE.execute("tiny.safetensors").result[0].digest == sae.digest
    assert train(made.features, "tiny")[0].digest == sae.digest, "the same graph again: nothing is trained, and nothing is refused"
    for refused in (
        lambda: train(made.features, "tiny", seed=1),
        lambda: train(made.features, "a/b"),
        lambda: train(made.features, "x", k=97),
    ):
        with pytest.raises(ValueError, match="there is another 'tiny.safetensors'|cannot be the name|choose k between 1") as error:
            refused()
        sentence(error)


def test_an_interrupted_training_ends_as_if_it_had_not_been(made: SimpleNamespace, prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management
    from equipoise.methods.sae.train import CHECKPOINTS_FOLDER

    for file in (made.features.folder / CHECKPOINTS_FOLDER).glob("sae-*"):
        file.unlink()
    interrupt_at(monkeypatch, 20, 40)
    with pytest.raises(management.InterruptProcessingException):
        train(made.features, "cut")
    path = prompt.base / "models" / "equipoise" / "sae" / "cut.safetensors"
    assert not path.exists() and len(list((made.features.folder / CHECKPOINTS_FOLDER).glob("sae-*"))) == 1
    seen: list[int] = []
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", lambda value, *_, **__: seen.append(value))
    again = train(made.features, "cut")[0]
    assert seen == [40], "it went on, and did not begin again"
    assert again.info["trained"]["loss"] == made.sae.info["trained"]["loss"] and again.digest == made.sae.digest and path.is_file()


# -- bias features ---------------------------------------------------------------------------------------------------------------------


def test_bias_features_are_found_and_saved(made: SimpleNamespace, prompt: Any) -> None:
    from equipoise.nodes.adp.train_adp import TrainADP
    from equipoise.nodes.bias_features.load_bias_features import LoadBiasFeatures
    from equipoise.nodes.bias_features.save_bias_features import SaveBiasFeatures

    found, report, chart = made.found_out
    (features,) = found.attributes.values()
    assert features.classes == LIGHT["light"] and 0 < len(features.features) <= 16 and found.sae_digest == made.sae.digest
    assert "without its" in report and "a linear predictor was trained" in report and chart.shape[0] == 1 and chart.shape[2] == 960
    reader = TrainADP.execute(made.features, made.labels, "mlp", 1, 0).result[0]
    assert "a linear predictor" not in find(made, adp=reader, attribute="light", per_class=2, beside=5.0)[1]

    rows = torch.tensor([[1.0, 0.0]]).repeat(IMAGES, 1)
    beside = replace(made.labels, attributes={**LIGHT, "hat": ("no", "yes")}, probabilities={**made.labels.probabilities, "hat": rows})
    same, report, _ = find(made, labels=beside, attribute="light")
    assert "'hat' was not measured: no image shows yes" in report and set(same.attributes) == {"light"}
    assert torch.equal(same.attributes["light"].features, features.features)
    with pytest.raises(ValueError, match="the class 'yes' of 'hat' has no example among 24 images") as error:
        find(made, labels=beside)
    sentence(error)

    out = SaveBiasFeatures.execute(found, "tiny", False)
    assert Path(out.result[0]) == prompt.base / "models" / "equipoise" / "bias_features" / "tiny.safetensors"
    assert set(LoadBiasFeatures.execute("tiny.safetensors").result[0].attributes) == {"light"}
    SaveBiasFeatures.execute(replace(found, info={**found.info, "seconds": 999.0}), "tiny", False)  # the same, found again
    with pytest.raises(ValueError, match="there is another 'tiny.safetensors' in models/equipoise/bias_features") as error:
        SaveBiasFeatures.execute(replace(found, info={"another": 1}), "tiny", False)
    sentence(error)

    elsewhere = replace(made.sae, site="middle")
    other = replace(reader, site="middle")
    for refused, message in (
        (lambda: find(made, sae=elsewhere), f"was recorded at '{SITE}' and the autoencoder belongs to 'middle'"),
        (lambda: find(made, adp=other), f"reads features at 'middle' and the autoencoder's are at '{SITE}'"),
        (lambda: find(made, attribute="beard"), "nothing is labelled with 'beard'"),
        (lambda: SaveBiasFeatures.execute(found, "../up", True), "cannot be the name of bias features"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            refused()
        sentence(error)


def test_profiles_are_learned_calibrated_and_steered_by(made: SimpleNamespace, prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.bias_features import learn_profiles as host_learn
    from equipoise.host.core.trials import HostTrials
    from equipoise.nodes.bias_features.bias_feature_steer import BiasFeatureSteer

    monkeypatch.setattr(host_learn, "EffectSettings", functools.partial(host_learn.EffectSettings, batches=2, batch=4))
    learned, report, chart = learn(made)
    before, features = made.found.attribute("light"), learned.attribute("light")
    assert set(features.profiles) == {"class-difference", "learned"} and len(features.features) >= len(before.features)
    assert features.profiles["learned"].delta.abs().max() > 0 and not features.profiles["learned"].delta.is_inference()
    assert "3 steps of 4 images" in report and "denoising" in report and chart.shape == (1, 520, 960, 3)
    assert set(made.found.attribute("light").profiles) == {"class-difference"}, "what came in stays as it was"

    calibrated, report, chart = calibrate(made, bias_features=learned)
    default = calibrated.attribute("light").default
    assert default in features.profiles and f"with '{default}' at strength 1, of 4 images sent to each class these show it: dark" in report
    assert calibrated.info["calibration"]["light"]["judge"] == "brightness" and chart.shape == (1, 520, 960, 3)
    with monkeypatch.context() as m:
        m.setattr(HostTrials, "_batch", lambda *a: pytest.fail("a trial was made again"))
        again = calibrate(made, bias_features=learned)
    assert again[1] == report and torch.equal(again[2], chart)

    settings: dict[str, Any] = {
        "attribute": "light", "class_name": "bright", "mode": "profile", "profile": "learned", "features": 0, "amount": 3.0,
        "rows": "cond", "start_percent": 0.0, "end_percent": 1.0, "rule": "one pass", "assign": "auto", "seed": 0,
    }  # fmt: skip

    def steered(strength: float) -> Tensor:
        w = made.world
        given = {"model": w.model, "sae": made.sae, "bias_features": calibrated, "strength": strength, **settings}
        return w.sample(BiasFeatureSteer.execute(**given).result[0], steps=8)  # more levels: three steps of a fit reach few

    off, on = steered(0.0), steered(2.0)
    assert torch.equal(off, made.world.sample(steps=8)) and on.isfinite().all()
    assert not torch.equal(on, off)


def test_what_does_not_belong_together_is_refused(made: SimpleNamespace, prompt: Any) -> None:
    from equipoise.methods.labels.labels import LabelSet

    others = LabelSet({"light": ("dim", "lit")}, made.labels.files, dict(made.labels.probabilities))
    foreign = replace(made.found, sae_digest="0" * 16)
    for refused, message in (
        (lambda: learn(made, labels=others), "label set does not know 'light' with the classes dark, bright of .*: dim, lit"),
        (lambda: learn(made, classifier=brightness("shine")), "does not know 'light'"),
        (lambda: learn(made, positive=None), "needs a conditioning"),
        (lambda: learn(made, bias_features=foreign), "were found in the autoencoder 0000"),
        (lambda: learn(made, attribute="beard"), "no bias features of 'beard'"),
        (lambda: learn(made, name="a/b"), "cannot be the name"),
        (lambda: calibrate(made, classifier=brightness("shine")), "does not know 'light'"),
        (lambda: calibrate(made, bias_features=foreign), "were found in the autoencoder 0000"),
        (lambda: calibrate(made, attribute="beard"), "no bias features of 'beard'"),
        (lambda: calibrate(made, name="../x"), "cannot be the name"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            refused()
        sentence(error)
