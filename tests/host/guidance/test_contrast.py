"""Contrast Directions on the host's own text path, with a small random text model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise_nodes import execute
from equipoise_tiny import tiny
from equipoise_tiny_text import write_tiny_text

TEMPLATES = "a photo of a doctor {}\na photo of a chef {}"
CLASSES = "yes: with eyeglasses\nno: without eyeglasses"


@pytest.fixture(scope="module")
def text_file(host: Any) -> Iterator[Path]:
    path = write_tiny_text(host.diffusion_folder / "tiny_contrast.safetensors")
    yield path
    path.unlink()


@pytest.fixture
def world(prompt: Any, text_file: Path) -> Any:
    from equipoise.nodes.small_models.empty_pixel_latent import EmptyPixelLatent
    from equipoise.nodes.small_models.load_quickstart_text_model import LoadQuickstartTextModel

    model, clip, vae = LoadQuickstartTextModel.execute(text_file.name).result
    return SimpleNamespace(host=prompt, model=model, clip=clip, vae=vae, empty=lambda n: EmptyPixelLatent.execute(model, 0, 0, n).result[0])


def contrast(world: Any, model: Any = None, **given: Any) -> Any:
    from equipoise.nodes.guidance.contrast_directions import ContrastDirections

    settings = {
        "attribute": "eyeglasses", "templates": TEMPLATES, "classes": CLASSES, "latent_image": world.empty(3), "images": 6,
        "noise_levels": 4, "seed": 5, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "site": "middle",
        "negative": "",
    }  # fmt: skip
    return ContrastDirections.execute(model or world.model, world.clip, **(settings | given))


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300, text
    return text


def expected_directions(world: Any, levels: torch.Tensor) -> torch.Tensor:
    """[2, T, C x 16] differences yes - no by the network itself, for the first latent of each batch, with fresh noise and other code."""
    import comfy.sample
    from equipoise.models.sites import pool

    def encode(text: str) -> Any:
        return world.host.nodes.CLIPTextEncode().encode(world.clip, text)[0]

    found = []
    start = world.empty(3)["samples"]
    inner = world.model.model
    for batch, (drawn, row) in enumerate([("with", "doctor"), ("without", "chef")]):
        positive = encode(f"a photo of a {row} {drawn} eyeglasses")
        noise = comfy.sample.prepare_noise(start, 5 + batch)
        clean = comfy.sample.sample(
            world.model, noise, 2, 4.0, "euler", "normal", positive, encode(""), start, disable_pbar=True, seed=5 + batch
        )
        steps = torch.randn(len(levels), *clean.shape, generator=torch.Generator().manual_seed((5 + batch + 0x9E3779B97F4A7C15) % 2**63))
        by_class = []
        for phrase in ("with", "without"):
            text = encode(f"a photo of a {row} {phrase} eyeglasses")[0][0].repeat(3, 1, 1)
            rows = []
            for t, level in enumerate(levels):
                seen: list[torch.Tensor] = []

                def patch(h: Any, skip: Any, options: Any, seen: list[torch.Tensor] = seen) -> Any:
                    seen.append(pool(h)) if options["block"] == ("output", 0) else None
                    return h, skip

                sigma = torch.exp(-level / 2)
                x = inner.model_sampling.noise_scaling(sigma, steps[t], inner.process_latent_in(clean))
                options = {"patches": {"output_block_patch": [patch]}}
                inner.apply_model(x, sigma.expand(3), c_crossattn=text, transformer_options=options)
                rows.append(seen[0].flatten(1))
            by_class.append(torch.stack(rows, 1))
        found.append(by_class[0] - by_class[1])
    return torch.cat(found).mean(0)


def test_directions_are_what_the_prompts_change_on_the_same_noised_latents(world: Any) -> None:
    from equipoise.host.core.sites import base_model

    out = contrast(world)
    file, report = out.result
    assert file.predictor is None and file.attributes == {"eyeglasses": ("yes", "no")} and not file.moves
    assert file.base_model == base_model(world.model)
    move = file.alternatives["eyeglasses"]["prompt-contrast"]
    assert (move.site, move.relative, move.vectors.shape[:3]) == ("middle", True, (4, 2, 1))
    sampling = world.model.get_model_object("model_sampling")
    ends = [-2 * float(torch.log(s)) for s in (sampling.sigma_max, sampling.sigma_min)]
    torch.testing.assert_close(move.knots, torch.linspace(*ends, 4), atol=1e-3, rtol=0)
    expected = expected_directions(world, move.knots)
    way = (move.vectors[:, 0, 0] - move.vectors[:, 1, 0]).flatten(1)
    assert (torch.nn.functional.cosine_similarity(way, expected, dim=1) > 0.9999).all()
    assert (move.sizes == 1).all() and len(report.splitlines()) == 8
    facts = file.info["directions"]["eyeglasses"]["prompt-contrast"]
    assert facts["images"] == 6 and facts["templates"] == TEMPLATES.splitlines()
    assert [at for at, _ in facts["share_by_log_snr"]] == [round(v, 3) for v in move.knots.tolist()]
    assert all(0 < share < 3 for _, share in facts["share_by_log_snr"])
    assert "does not read 'eyeglasses'" in report and not move.vectors.is_inference()


def test_the_same_seed_gives_the_same_directions_and_inputs_stay_as_they_were(world: Any) -> None:
    before = {k: v.clone() for k, v in world.model.model.diffusion_model.state_dict().items()}
    latent = world.empty(3)
    one, other = (contrast(world, latent_image=latent).result[0].alternatives["eyeglasses"]["prompt-contrast"] for _ in range(2))
    assert torch.equal(one.vectors, other.vectors) and torch.equal(one.sizes, other.sizes)
    assert not latent["samples"].any() and list(latent) == list(world.empty(3))
    assert all(torch.equal(v, before[k]) for k, v in world.model.model.diffusion_model.state_dict().items())
    assert not world.model.model_options.get("transformer_options", {}).get("patches")
    third = contrast(world, seed=6).result[0].alternatives["eyeglasses"]["prompt-contrast"]
    assert not torch.equal(one.vectors, third.vectors)


def test_a_file_of_directions_goes_through_save_load_and_guidance(world: Any) -> None:
    from equipoise.methods.core.target_text import parse_target
    from equipoise.nodes.adp.adp_info import ADPInfo
    from equipoise.nodes.adp.load_adp import LoadADP
    from equipoise.nodes.adp.save_adp import SaveADP
    from equipoise.nodes.guidance.distribution_guidance_ksampler import DistributionGuidanceKSampler

    made = contrast(world, site="auto").result[0]
    assert made.alternatives["eyeglasses"]["prompt-contrast"].site == "output.1"
    path = Path(SaveADP.execute(made, "contrast_test", True).result[0])
    try:
        file = LoadADP.execute(path.name).result[0]
    finally:
        path.unlink()
    text, chart = ADPInfo.execute(file).result
    assert "no predictor" in text and "'prompt-contrast': naming another class moves h" in text and chart.ndim == 4
    target = parse_target("eyeglasses: yes=0.5", file.attributes)

    def encode(words: str) -> Any:
        return world.host.nodes.CLIPTextEncode().encode(world.clip, words)[0]

    def draw(strength: float, mode: str = "quota", direction: str = "prompt-contrast", repair: int = 0) -> Any:
        return execute(
            DistributionGuidanceKSampler,
            world.model, 3, 3, 4.0, "euler", "normal", encode("a photo of a doctor"), encode(""), world.empty(4), 1.0, file, target, mode,
            strength, 0.0, 1.0, "cond", direction, "reading", repair,
        ).result  # fmt: skip

    latent, report, assigned = draw(0.3)
    assert "at random from the seed: this ADP does not read eyeglasses" in report and "yes: 2, no: 2" in report
    assert (latent["samples"] - draw(0.0)[0]["samples"]).abs().amax((1, 2, 3)).min() > 1e-3
    for given in ({"mode": "kl"}, {"direction": "adp-gradient"}):
        with pytest.raises(ValueError, match="does not read 'eyeglasses'") as error:
            draw(1.0, **given)
        sentence(error)
    with pytest.raises(ValueError, match="set direction to 'prompt-contrast'"):
        draw(1.0, direction="calibrated")


def test_calibration_wants_a_classifier_and_works_with_one(world: Any) -> None:
    from equipoise.nodes.guidance.calibrate_adp import CalibrateADP

    made = contrast(world).result[0]

    def encode(words: str) -> Any:
        return world.host.nodes.CLIPTextEncode().encode(world.clip, words)[0]

    def calibrate(**given: Any) -> Any:
        return CalibrateADP.execute(
            model=world.model, adp=made, positive=encode("a photo of a doctor"), negative=encode(""), latent_image=world.empty(4), images=4,
            seed=7, steps=2, cfg=4.0, sampler_name="euler", scheduler="normal", attribute="", name="contrast trials", **given,
        )  # fmt: skip

    with pytest.raises(ValueError, match="does not read 'eyeglasses', so .*connect a classifier.*'prompt-contrast'") as error:
        calibrate()
    sentence(error)

    def probabilities(images: torch.Tensor) -> dict[str, torch.Tensor]:
        p = torch.sigmoid(100 * (images.float().mean((1, 2, 3)) - 0.5))
        return {"eyeglasses": torch.stack([1 - p, p], 1)}

    classifier = SimpleNamespace(
        name="brightness", attributes={"eyeglasses": ("no", "yes")}, probabilities=probabilities, fingerprint=lambda: "1"
    )
    file, report, _ = calibrate(classifier=classifier, vae=world.vae).result
    assert file.predictor is None and file.moves["eyeglasses"].source == "prompt-contrast"
    assert "eyeglasses: with 'prompt-contrast'" in report


def test_directions_join_an_adp_that_reads_other_attributes(world: Any) -> None:
    from equipoise.host.core.sites import base_model, site_channels

    width = site_channels(world.model)["middle"]
    adp = random_adp({"hair": ("short", "long")}, width, base_model=base_model(world.model))
    file = contrast(world, adp=adp).result[0]
    assert list(file.attributes) == ["hair", "eyeglasses"] and file.predictor is adp.predictor and file.moves == adp.moves
    reads = random_adp({"eyeglasses": ("no", "yes")}, width, base_model=base_model(world.model))
    both = contrast(world, adp=reads).result
    held = both[0].alternatives["eyeglasses"]["prompt-contrast"]
    alone = file.alternatives["eyeglasses"]["prompt-contrast"]
    assert torch.equal(held.vectors, alone.vectors[:, [1, 0]]) and "does not read" not in both[1]
    assert not adp.alternatives and not adp.unread


def test_what_cannot_be_contrasted_is_told_in_one_sentence(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.sample
    from equipoise.host.core.sites import base_model, site_channels

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing is sampled before the inputs were looked at")

    monkeypatch.setattr(comfy.sample, "sample", never)
    width, base = site_channels(world.model)["middle"], base_model(world.model)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("has no site 'output.9'", {"site": "output.9"}),
        ("at least 2 levels are needed, not 1", {"noise_levels": 1}),
        ("needs exactly one {}", {"templates": "a photo"}),
        ("the class 'no' has no phrase", {"classes": "yes: with\nno:"}),
        ("was made for 'sdxl' and the connected MODEL is", {"adp": random_adp({"hair": ("a", "b")}, width, base_model="sdxl")}),
        ("it knows eyeglasses: no, some", {"adp": random_adp({"eyeglasses": ("no", "some")}, width, base_model=base)}),
    ]
    for match, given in cases:
        with pytest.raises(ValueError, match=match) as error:
            contrast(world, **given)
        sentence(error)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="make no difference at 'middle'") as error:
        contrast(world, classes="yes: zzqx\nno: qqzx")  # words that the model does not know are all alike to it
    sentence(error)


def test_the_node_checks_its_text_before_the_queue(host: Any) -> None:
    from equipoise.nodes.guidance.contrast_directions import ContrastDirections
    from equipoise.nodes.guidance.prompt_inputs import CLASSES, TEMPLATES

    assert ContrastDirections.validate_inputs("eyeglasses", TEMPLATES, CLASSES) is True
    assert "at least two are needed" in ContrastDirections.validate_inputs("eyeglasses", TEMPLATES, "yes: with")
    assert ContrastDirections.validate_inputs("eyeglasses", None, CLASSES) is True


def test_it_can_be_interrupted(world: Any) -> None:
    import comfy.model_management as management

    def stop(*args: Any) -> None:
        management.interrupt_current_processing()

    from equipoise.host.guidance import contrast as module

    original = module._Look.at
    try:
        module._Look.at = lambda *args, **kwargs: (stop(), original(*args, **kwargs))[1]
        with pytest.raises(management.InterruptProcessingException):
            contrast(world)
    finally:
        module._Look.at = original
        management.interrupt_current_processing(False)


def test_sd15_and_sdxl_refuse_each_other_by_name(host: Any) -> None:
    """By the host's own model classes, whose names say what they are; the widths of the middle blocks are alike (1280)."""
    import comfy.supported_models
    from equipoise.host.core.sites import check_fit

    def model(config: type) -> Any:
        block = SimpleNamespace(out_layers=[None, None, None, SimpleNamespace(out_channels=1280)])
        network = SimpleNamespace(middle_block=[block], output_blocks=[[block]] * 4)
        return SimpleNamespace(model=SimpleNamespace(diffusion_model=network, model_config=object.__new__(config)))

    made = {b: random_adp({"eyeglasses": ("no", "yes")}, 1280, base_model=b) for b in ("sd15", "sdxl")}
    sd15, sdxl = model(comfy.supported_models.SD15), model(comfy.supported_models.SDXL)
    check_fit(sd15, made["sd15"])
    check_fit(sdxl, made["sdxl"])
    with pytest.raises(ValueError, match="made for 'sd15' and the connected MODEL is 'sdxl'") as error:
        check_fit(sdxl, made["sd15"])
    sentence(error)
    with pytest.raises(ValueError, match="made for 'sdxl' and the connected MODEL is 'sd15'"):
        check_fit(sd15, made["sdxl"])


def test_a_model_without_text_conditioning_has_nothing_to_contrast(world: Any) -> None:
    from equipoise.host.small_models.adm_model import empty_latent, patcher_from

    state_dict, meta = tiny("packed")
    model = patcher_from("tiny_packed", state_dict, meta | {"base_model": "tiny"})
    with pytest.raises(ValueError, match="make no difference") as error:
        contrast(world, model, latent_image=empty_latent(model, 0, 0, 2), images=2)
    sentence(error)
