"""Directions learned on host models, in the inference mode in which the host runs nodes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise_tiny import tiny
from equipoise_tiny_text import write_tiny_text
from torch import Tensor

LIGHT = {"light": ("dark", "bright")}
DECODER_KEY = "diffusion_model.output_blocks.0.0.out_layers.3.weight"
IMAGES = 12


@pytest.fixture(autouse=True)
def folder(prompt: Any) -> Iterator[Path]:
    """The host's folder of what is learned, empty before and after every test."""
    place = prompt.base / "output" / "equipoise"
    shutil.rmtree(place, ignore_errors=True)
    yield place / "learning"
    shutil.rmtree(place, ignore_errors=True)


def brightness() -> Any:
    """A classifier that reads whether a picture is bright."""
    from equipoise.host.labels.classifier import HostClassifier
    from equipoise.models.attribute_classifier import AttributeClassifier

    class Brightness(AttributeClassifier):
        architecture = "brightness"

        def __init__(self) -> None:
            super().__init__({"light": ("bright", "dark")}, 32)  # not in the ADP's order
            self.gain = torch.nn.Parameter(torch.tensor(8.0), requires_grad=False)

        @property
        def config(self) -> dict[str, Any]:
            return {}

        def features(self, pixels: Tensor) -> Tensor:
            return self.gain * pixels.mean(dim=(1, 2, 3))[:, None]

        def forward(self, pixels: Tensor) -> dict[str, Tensor]:
            return {"light": torch.cat([self.features(pixels), -self.features(pixels)], 1)}

    return HostClassifier(Brightness(), "brightness")


class World:
    """A tiny model, a set of dark and bright pictures, their labels, and an ADP that reads them."""

    def __init__(self, host: Any, name: str = "packed", prompts: tuple[str, ...] = ("",)) -> None:
        from equipoise.host.data.feature_sets import set_folder, write_picture
        from equipoise.host.small_models.adm_info import conditioning
        from equipoise.host.small_models.adm_model import patcher_from
        from equipoise.host.small_models.pixel_vae import PixelVae
        from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set
        from equipoise.methods.labels.labels import LabelSet
        from equipoise.models.adp import AdpFile, AttributePredictor

        state_dict, meta = tiny(name)
        self.model = patcher_from(f"tiny_{name}", state_dict, meta | {"base_model": "tiny"})
        info = self.model.model.equipoise_info
        self.vae, self.size = PixelVae(info.ratio), info.image_size
        self.positive = conditioning(info, 0 if info.num_classes else None)
        place = set_folder("set")
        files = [f"{i:06d}.png" for i in range(IMAGES)]
        writer = FeatureSetWriter(place, {"base_model": "tiny"})
        said = [prompts[i % len(prompts)] for i in range(IMAGES)]
        writer.add(torch.zeros(IMAGES, 1, 64, 4, 4), torch.zeros(1), files, [0] * IMAGES, said)
        generator = torch.Generator().manual_seed(0)
        for i, file in enumerate(files):
            noise = 0.1 * torch.randn(self.size, self.size, 3, generator=generator)
            write_picture(0.25 + 0.5 * (i % 2) + noise, place / "images" / file)
        self.features = open_feature_set(place)
        self.labels = LabelSet(dict(LIGHT), tuple(files), {"light": torch.eye(2)[torch.arange(IMAGES) % 2]})
        predictor = AttributePredictor(LIGHT, 64, torch.tensor([-9.0, 6.0])).eval().requires_grad_(False)
        self.adp = AdpFile(predictor, {}, "tiny")

    def learn(self, name: str = "fit", steps: int = 4, batch: int = 4, **given: Any) -> Any:
        from equipoise.host.guidance.learn_directions import learn_directions
        from equipoise.host.guidance.learning_pictures import LearningInputs
        from equipoise.methods.guidance.fit_moves import FitSettings

        use = {"model": self.model, "features": self.features, "labels": self.labels, "vae": self.vae}
        use |= {"classifier": brightness(), "positive": self.positive, "clip": None}
        inputs = LearningInputs(**{k: given.pop(k, v) for k, v in use.items()})
        return learn_directions(inputs, **({"adp": self.adp, "settings": FitSettings(steps, batch), "name": name} | given))


@pytest.fixture
def world(prompt: Any) -> World:
    return World(prompt)


def weights(model: Any) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def move_of(made: Any, attribute: str = "light", source: str = "learned") -> Any:
    return made.file.alternatives[attribute][source]


def sentence(error: pytest.ExceptionInfo[ValueError]) -> None:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 320, text


def draw(host: Any, model: Any, positive: Any, adp: Any = None, to: str = "") -> Tensor:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.host.small_models.adm_model import empty_latent
    from equipoise.methods.core.targets import make_target
    from equipoise.methods.guidance.run import GuidanceSettings

    if adp is not None:
        target = make_target({"light": {c: float(c == to) for c in LIGHT["light"]}})
        model = apply_guidance(model, adp, GuidanceSettings(target, direction="learned"))
    return host.ksampler(model, positive, positive, empty_latent(model, 0, 0, 4))["samples"]


# -- from pictures ---------------------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_model_stays_as_it_was(prompt: Any, world: World) -> None:
    from equipoise.methods.guidance.fit_moves import FitSettings

    assert any(p.is_inference() for p in world.model.model.parameters()), "as in the server"
    before, plain, options = weights(world.model), draw(prompt, world.model, world.positive), dict(world.model.model_options)
    # A random network predicts no images, and h hardly tells in them: what is fitted is compared with nothing, for the same draws.
    settings = FitSettings(steps=16, batch=8, lr=4e-3, label_range=(-2.0, 3.0), denoising=0.0)
    made, still = world.learn(settings=settings), world.learn("still", settings=replace(settings, lr=1e-9))
    assert same(weights(world.model), before) and world.model.model_options == options and not world.model.patches
    assert torch.equal(draw(prompt, world.model, world.positive), plain)
    told, untold = ([f["labelling"] for _, f in m.curve if "labelling" in f] for m in (made, still))
    assert len(told) >= 5 and all(a < b for a, b in zip(told[2:], untold[2:], strict=True)), (told, untold)
    move = move_of(made)
    assert move.site == "output.1" and move.vectors.shape == (11, 2, 2, 64, 4, 4) and move.source == "learned"
    assert not move.vectors.is_inference() and not move.sizes.is_inference() and made.file.moves == {}
    bright, dark = (draw(prompt, world.model, world.positive, made.file, c) for c in ("bright", "dark"))
    assert bright.isfinite().all() and not torch.equal(bright, dark), "guidance takes the direction as it is"
    assert any("judged by 'brightness'" in line for line in made.lines)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, at: int, of: int) -> None:
    """Let the host interrupt when a bar of ``of`` steps reaches ``at``."""
    import comfy.model_management as management

    def hook(value: int, total: int, preview: Any, **_: Any) -> None:
        if (value, total) == (at, of):
            management.interrupt_current_processing(True)

    # Newer hosts tell their front end ten times a second at most, and these steps are faster.
    monkeypatch.setattr("comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", hook)


def test_an_interrupted_fit_goes_on_and_ends_the_same(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management

    whole = move_of(world.learn("whole", 6))

    interrupt_at(monkeypatch, 3, 6)
    with pytest.raises(management.InterruptProcessingException):
        world.learn("cut", 6)
    assert (folder / "cut.safetensors").is_file()
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", None)
    again = world.learn("cut", 6)
    assert any("resumed at step" in line for line in again.lines)
    assert torch.equal(move_of(again).vectors, whole.vectors) and torch.equal(move_of(again).sizes, whole.sizes)
    done = world.learn("cut", 6)
    assert any("already learned" in line for line in done.lines) and torch.equal(move_of(done).vectors, whole.vectors)
    assert any("started again" in line for line in world.learn("cut", 3).lines)


def test_weights_patched_by_a_lora_are_what_is_fitted(prompt: Any, world: World) -> None:
    clone = world.model.clone()
    change = 0.3 * torch.randn(world.model.model.state_dict()[DECODER_KEY].shape, generator=torch.Generator().manual_seed(1))
    assert clone.add_patches({DECODER_KEY: ("diff", (change,))}, 1.0)
    plain, patched = world.learn("plain"), world.learn("lora", model=clone)
    assert not torch.equal(move_of(plain).vectors, move_of(patched).vectors)
    predicted = [x0_both_ways(m, world.positive) for m in (world.model, clone)]
    for ours, theirs in predicted:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (predicted[0][0] - predicted[1][0]).abs().max() > 1e-2


def x0_both_ways(model: Any, positive: Any, at: int = 500) -> tuple[Tensor, Tensor]:
    """The predicted clean latents by the differentiable function, and by the host's own guider."""
    import comfy.samplers
    from equipoise.host.core.fit.differentiable import Differentiable, load_whole, model_conditions
    from equipoise.host.core.versions import resident
    from equipoise.host.data.record_images import OncePerLevel

    kept: list[Tensor] = []
    shape = (2, model.model.latent_format.latent_channels, 16, 16)
    clean, noise = (torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(2))
    sigma = model.get_model_object("model_sampling").sigmas[at]
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, positive)
    guider.set_cfg(1.0)
    guider.sample(
        torch.zeros(shape), clean, OncePerLevel(noise[None]), sigma[None], callback=lambda i, x0, x, n: kept.append(x0.clone()), seed=0
    )
    conditions = model_conditions(model, [positive], shape[1:])
    patcher = resident(model)
    load_whole([patcher], 0)
    network = Differentiable(patcher, conditions)
    with torch.inference_mode(False), torch.no_grad():
        a = network.alphas_cumprod[at]
        x = (a.sqrt() * clean.clone() + (1 - a).sqrt() * noise.clone()).clone()
        v = network.velocity(x, at, {})
        return a.sqrt() * x - (1 - a).sqrt() * v, kept[0].clone()


def test_a_class_conditional_model_learns_under_its_label(prompt: Any) -> None:
    world = World(prompt, "classes")
    made = world.learn()
    assert move_of(made).vectors.abs().sum() > 0
    with pytest.raises(ValueError, match="class label") as error:
        world.learn("none", positive=[[torch.zeros(1, 77, 8), {}]])
    sentence(error)


def test_without_a_classifier_and_without_a_reading(world: World) -> None:
    from equipoise.models.adp import AdpFile

    made = world.learn(classifier=None, adp=AdpFile(None, {}, "tiny"))
    move = move_of(made)
    assert move.vectors.shape[2] == 1 and move.assign == "seeded" and made.file.attributes == LIGHT and made.file.unread == LIGHT
    assert any("denoising alone" in line for line in made.lines) and all("labelling" not in f for _, f in made.curve)


def test_a_learned_vae_is_decoded_for_the_classifier(world: World) -> None:
    vae = tiny_vae()
    before = {k: v.clone() for k, v in vae.first_stage_model.state_dict().items()}
    made = world.learn(steps=8, batch=4, vae=vae)
    assert any("labelling" in f for _, f in made.curve) and move_of(made).vectors.isfinite().all()
    assert same(before, vae.first_stage_model.state_dict())


def tiny_vae() -> Any:
    """The host's VAE class around a small AutoencoderKL with random weights."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    shape = {"double_z": True, "z_channels": 12, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2]}
    config = {"params": {"ddconfig": {**shape, "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}, "embed_dim": 12}}
    generator = torch.Generator().manual_seed(3)
    shapes = {k: v.shape for k, v in AutoencoderKL(**config["params"]).state_dict().items()}
    vae = comfy.sd.VAE(sd={k: 0.1 * torch.randn(shape, generator=generator) for k, shape in shapes.items()}, config=config)
    vae.downscale_ratio = vae.upscale_ratio = 2
    vae.latent_channels = 12
    return vae


def test_what_does_not_fit_is_one_sentence(prompt: Any, world: World, folder: Path) -> None:
    import comfy.model_sampling
    from equipoise.host.labels.classifier import HostClassifier

    two = world.positive + world.positive
    other = brightness()
    other.attributes = {"hair": ("short", "long")}
    unlike = brightness()
    unlike.attributes = {"light": ("dim", "bright")}
    flow = world.model.clone()

    class Flow(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.CONST):
        pass

    flow.add_object_patch("model_sampling", Flow(world.model.model.model_config))
    assert isinstance(other, HostClassifier)
    for given, message in [
        ({"positive": None}, "connect positive, or clip"),
        ({"positive": two}, "one prompt for the whole image"),
        ({"site": "output.9"}, "no site 'output.9'"),
        ({"name": "../x"}, "cannot be the name"),
        ({"attributes": ["hair"]}, "nothing is labelled with 'hair'"),
        ({"classifier": other}, "does not know 'light'.*it knows hair: short, long"),
        ({"classifier": unlike}, "does not know 'light'"),
        ({"model": flow}, "predict noise, velocity or the image"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            world.learn(**given)
        sentence(error)
    (world.features.folder / "images" / "000003.png").unlink()
    with pytest.raises(ValueError, match="'000003.png' of the feature set 'set' is missing") as error:
        world.learn()
    sentence(error)
    assert not folder.exists()


def test_memory_that_does_not_suffice_is_one_sentence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def velocity(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("equipoise.host.core.fit.differentiable.Differentiable.velocity", velocity)
    with pytest.raises(ValueError, match="not enough memory to learn with a batch of 4: lower 'batch'") as error:
        world.learn()
    sentence(error)


def test_a_new_fit_takes_the_place_of_a_calibrated_one(world: World) -> None:
    from equipoise.host.guidance.calibrate import candidates_of

    old = move_of(world.learn())
    contrast = replace(old, source="prompt-contrast")
    info = {"calibration": {"light": {"trials": {"hits": {"learned": 0.9, "prompt-contrast": 0.7}, "final": [1]}}}}
    adp = replace(world.adp, moves={"light": old}, alternatives={"light": {"prompt-contrast": contrast}}, info=info)
    made = world.learn("new", 5, adp=adp).file
    assert made.moves == {} and set(made.alternatives["light"]) == {"learned", "prompt-contrast"}
    assert made.info["calibration"]["light"]["trials"] == {"hits": {"prompt-contrast": 0.7}, "final": [1]}
    assert {m.source for m in candidates_of(made, None, None, [])["light"]} == {"learned", "prompt-contrast"}
    assert adp.info is info and "learned" in info["calibration"]["light"]["trials"]["hits"]


# -- through the nodes, and from prompts -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_file(host: Any) -> Iterator[Path]:
    path = write_tiny_text(host.diffusion_folder / "tiny_learning.safetensors")
    yield path
    path.unlink()


@pytest.fixture
def text(prompt: Any, text_file: Path) -> tuple[Any, Any, Any]:
    from equipoise.nodes.small_models.load_quickstart_text_model import LoadQuickstartTextModel

    return LoadQuickstartTextModel.execute(text_file.name).result


def from_prompts(text: tuple[Any, Any, Any], name: str = "said", fit_steps: int = 6, **given: Any) -> Any:
    from equipoise.host.small_models.adm_model import empty_latent
    from equipoise.nodes.guidance.learn_directions_from_prompts import LearnDirectionsFromPrompts

    use = {
        "model": text[0], "clip": text[1], "attribute": "glasses", "templates": "a photo of a doctor {}\na photo of a chef {}",
        "classes": "yes: with eyeglasses\nno: without eyeglasses", "latent_image": empty_latent(text[0], 0, 0, 2), "images": 8, "steps": 2,
        "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "site": "auto", "fit_steps": fit_steps, "batch": 4, "seed": 0,
        "name": name, "negative": "",
    }  # fmt: skip
    return LearnDirectionsFromPrompts.execute(**(use | given))


def test_text_models_are_the_same_both_ways(text: Any, prompt: Any) -> None:
    positive = prompt.nodes.CLIPTextEncode().encode(text[1], "a doctor with eyeglasses")[0]
    ours, theirs = x0_both_ways(text[0], positive)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    other = prompt.nodes.CLIPTextEncode().encode(text[1], "a chef")[0]
    assert (x0_both_ways(text[0], other)[0] - ours).abs().max() > 1e-3


def test_directions_are_learned_from_prompts(text: Any, prompt: Any) -> None:
    from equipoise.host.core.sampling import SamplerSettings
    from equipoise.host.guidance.learn_from_prompts import learn_from_prompts
    from equipoise.host.guidance.prompt_sampling import PromptSampling
    from equipoise.host.small_models.adm_model import empty_latent
    from equipoise.methods.guidance.fit_moves import FitSettings
    from equipoise.methods.guidance.prompt_classes import parse_prompt_classes

    before = weights(text[0])
    prompts = parse_prompt_classes("glasses", "a photo of a doctor {}", "yes: with eyeglasses\nno: without eyeglasses")
    sampler, latent = SamplerSettings(0, 2, 2.0, "euler", "normal"), empty_latent(text[0], 0, 0, 4)
    made = learn_from_prompts(PromptSampling(text[0], text[1], latent, sampler, 8), prompts, FitSettings(30, 8), "said")
    assert same(weights(text[0]), before)
    left = [f["unexplained"] for _, f in made.curve]
    assert sum(left[-8:]) < 0.95 * sum(left[:8]), left
    move = move_of(made, "glasses", "learned-prompts")
    assert made.file.predictor is None and made.file.attributes == {"glasses": ("yes", "no")} and made.file.base_model
    assert move.site == "output.1" and move.vectors.shape[1:3] == (2, 1) and move.assign == "seeded" and move.sizes.max() > 1e-4


def test_learn_directions_from_prompts_through_its_node(text: Any) -> None:
    out = from_prompts(text, fit_steps=2)
    adp, report, chart = out.result
    assert adp.alternatives["glasses"]["learned-prompts"].vectors.isfinite().all()
    assert chart.shape == (1, 520, 960, 3) and "8 latents sampled under 4 prompts of 2 classes" in report and out.ui["text"] == (report,)


def test_learning_from_prompts_goes_on_where_it_was_interrupted(text: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management

    whole = from_prompts(text, "whole").result[0].alternatives["glasses"]["learned-prompts"]

    for at, of in ((4, 8), (3, 6)):  # while latents are sampled; while the fit runs
        interrupt_at(monkeypatch, at, of)
        with pytest.raises(management.InterruptProcessingException):
            from_prompts(text, "cut")
    assert (folder / "cut.latents.safetensors").is_file()
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", None)
    adp, report, _ = from_prompts(text, "cut").result
    assert "resumed at step" in report
    assert torch.equal(adp.alternatives["glasses"]["learned-prompts"].vectors, whole.vectors)


def test_pictures_are_denoised_under_the_prompts_that_made_them(text: Any, prompt: Any) -> None:
    from equipoise.host.guidance.learn_directions import learn_directions
    from equipoise.host.guidance.learning_pictures import LearningInputs
    from equipoise.methods.guidance.fit_moves import FitSettings
    from equipoise.models.adp import AdpFile

    world = World(prompt, prompts=("a doctor", "a chef with eyeglasses", "a doctor"))
    adp = AdpFile(None, {}, "")

    def learn(name: str, **given: Any) -> Tensor:
        inputs = LearningInputs(text[0], world.features, world.labels, world.vae, **given)
        return move_of(learn_directions(inputs, adp, FitSettings(3, 6), name)).vectors

    own = learn("own", clip=text[1])
    assert torch.equal(own, learn("again", clip=text[1]))
    assert not torch.equal(own, learn("one", positive=prompt.nodes.CLIPTextEncode().encode(text[1], "a doctor")[0]))


def test_learn_directions_through_its_node(world: World) -> None:
    from equipoise.nodes.guidance.learn_directions import LearnDirections

    sockets = {"model": world.model, "adp": world.adp, "features": world.features, "labels": world.labels, "vae": world.vae}
    fields = {"attributes": " light ", "site": "middle", "fit_steps": 3, "batch": 4, "seed": 0, "name": "node"}
    out = LearnDirections.execute(**sockets, **fields, positive=world.positive)
    adp, report, chart = out.result
    assert move_of_adp(adp).site == "middle" and "light at middle" in report and chart.shape == (1, 520, 960, 3)


def move_of_adp(adp: Any) -> Any:
    return adp.alternatives["light"]["learned"]
