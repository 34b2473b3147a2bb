"""ADM U-Net files as the host's MODEL, VAE, CONDITIONING and LATENT, in the host's own samplers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.graph_server import REPOSITORY
from equipoise.tests.equipoise_formula_weights import formula_weights
from equipoise_tiny import MODELS, NAMES, tiny

DATA = REPOSITORY / "tests" / "data" / "adm"
SHIPPED = REPOSITORY / "shipped" / "weights" / "diffusion"


@pytest.fixture
def load(prompt: Any) -> Callable[[str], tuple[Any, Any, Any]]:
    """Load one of the tiny models through the node: name -> (model, vae, unconditional)."""
    from equipoise.nodes.small_models.load_unconditional_diffusion import LoadUnconditionalDiffusion

    return lambda name: LoadUnconditionalDiffusion.execute(f"tiny_{name}.safetensors").result


def empty(model: Any, batch: int = 2, width: int = 0, height: int = 0) -> dict[str, Any]:
    from equipoise.nodes.small_models.empty_pixel_latent import EmptyPixelLatent

    return EmptyPixelLatent.execute(model, width, height, batch).result[0]


def label(model: Any, text: str) -> tuple[Any, Any]:
    from equipoise.nodes.small_models.class_label import ClassLabel

    return ClassLabel.execute(model, text).result


class Calls:
    """Counts the rows of every U-Net call through a DIFFUSION_MODEL wrapper and keeps its class labels."""

    def __init__(self, model: Any) -> None:
        from comfy.patcher_extension import WrappersMP

        self.roles: list[list[int]] = []
        self.labels: list[list[int] | None] = []
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", self._see)

    def _see(self, executor: Any, x: Any, timesteps: Any, context: Any, y: Any, control: Any, options: Any, **extra: Any) -> Any:
        self.roles.append(list(options["cond_or_uncond"]))
        self.labels.append(None if y is None else y.tolist())
        return executor(x, timesteps, context, y, control, options, **extra)


def test_the_schedule_is_guided_diffusions(load: Any) -> None:
    sampling = load("plain")[0].get_model_object("model_sampling")
    assert float(sampling.sigma_max) == pytest.approx(157.407, abs=1e-3)
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    torch.testing.assert_close(sampling.sigmas.double(), ((1 - bar) / bar).sqrt(), rtol=1e-5, atol=1e-7)


def test_the_cosine_schedule_is_guided_diffusions(load: Any) -> None:
    def bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    product, expected = 1.0, []
    for i in range(1000):
        product *= 1 - min(1 - bar((i + 1) / 1000) / bar(i / 1000), 0.999)
        expected.append(math.sqrt((1 - product) / product))
    sigmas = load("cosine")[0].get_model_object("model_sampling").sigmas
    torch.testing.assert_close(sigmas.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "learned_sigma", "packed"])
def test_the_host_asks_the_network_what_it_was_trained_on(load: Any, name: str) -> None:
    from equipoise.models.adm_unet import build_unet

    model = load(name)[0]
    inner = model.model
    channels = inner.latent_format.latent_channels
    torch.manual_seed(1)
    x, t = torch.randn(2, channels, 16, 16), 700
    sigma = inner.model_sampling.sigmas[t]
    denoised = inner.apply_model(x * sigma, sigma.expand(2))
    clean = torch.sqrt(1 + sigma**2)
    eps = build_unet(*tiny(name))(x * sigma / clean, torch.full((2,), float(t)))[:, :channels]
    torch.testing.assert_close(denoised, x * sigma - sigma * eps, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["plain", "learned_sigma", "packed", "half_width", "cosine"])
def test_ksampler_and_vae_decode_give_an_image(prompt: Any, load: Any, name: str) -> None:
    model, vae, unconditional = load(name)
    latent = empty(model)
    out = prompt.ksampler(model, unconditional, unconditional, latent)
    assert out["samples"].shape == latent["samples"].shape and not latent["samples"].any()
    before = out["samples"].clone()
    image = prompt.nodes.VAEDecode().decode(vae, out)[0]
    side = int(MODELS[name][1]["image_size"])
    assert image.shape == (2, side, side, 3) and image.isfinite().all() and image.min() >= 0 and image.max() <= 1
    assert image.std() > 0.01 and not torch.equal(image[0], image[1])
    assert torch.equal(before, out["samples"]), "decoding changed the latent"
    again = prompt.ksampler(model, unconditional, unconditional, latent)
    assert torch.equal(before, again["samples"])


def test_cfg_changes_nothing_for_an_unconditional_model_and_costs_nothing(prompt: Any, load: Any) -> None:
    model, _, unconditional = load("plain")
    calls = Calls(model)
    latent = empty(model)
    one = prompt.ksampler(calls.model, unconditional, unconditional, latent, cfg=1.0)
    plain_calls = len(calls.roles)
    seven = prompt.ksampler(calls.model, unconditional, load("packed")[2], latent, cfg=7.5)
    assert torch.equal(one["samples"], seven["samples"])
    assert len(calls.roles) == 2 * plain_calls and calls.roles == [[0]] * len(calls.roles)


def test_restricted_conditionings_go_the_hosts_way(prompt: Any, load: Any) -> None:
    model, _, unconditional = load("plain")
    calls = Calls(model)
    late = [[unconditional[0][0], {"start_percent": 0.5, "end_percent": 1.0}]]
    prompt.ksampler(calls.model, unconditional, late, empty(model), cfg=3.0, steps=4)
    assert {len(roles) for roles in calls.roles} == {1, 2}


def test_text_conditioning_is_ignored_by_an_unconditional_model(prompt: Any, load: Any) -> None:
    model, _, unconditional = load("plain")
    text = [[torch.randn(1, 77, 768), {"pooled_output": torch.randn(1, 768)}]]
    longer = [[torch.randn(1, 154, 768), {}]]
    latent = empty(model)
    expected = prompt.ksampler(model, unconditional, unconditional, latent)["samples"]
    assert torch.equal(prompt.ksampler(model, text, longer, latent, cfg=5.0)["samples"], expected)


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_pixel_vae_is_exact(prompt: Any, ratio: int) -> None:
    from equipoise.host.small_models.pixel_vae import PixelVae

    vae = PixelVae(ratio)
    levels = (torch.arange(2 * 48 * 64 * 3) % 256).reshape(2, 48, 64, 3).float() / 255
    latent = prompt.nodes.VAEEncode().encode(vae, levels)[0]["samples"]
    assert latent.shape == (2, 3 * ratio**2, 48 // ratio, 64 // ratio)
    assert torch.equal(latent, torch.nn.functional.pixel_unshuffle(levels.movedim(-1, 1) * 2 - 1, ratio))
    kept = latent.clone()
    image = prompt.nodes.VAEDecode().decode(vae, {"samples": latent})[0]
    assert torch.equal((image * 255).round(), (levels * 255).round()) and (image - levels).abs().max() < 1e-6
    assert torch.equal(kept, latent)
    tiled = prompt.nodes.VAEDecodeTiled().decode(vae, {"samples": latent}, 64, 16)[0]
    torch.testing.assert_close(tiled, image, rtol=0, atol=1e-5)
    assert vae.encode(levels[:, :47, :63]).shape[2:] == (47 // ratio, 63 // ratio)


def test_image_to_image_and_masks(prompt: Any, load: Any) -> None:
    model, vae, unconditional = load("packed")
    picture = torch.rand(1, 32, 32, 3)
    latent = prompt.nodes.VAEEncode().encode(vae, picture)[0]
    mask = torch.zeros(1, 32, 32)
    mask[:, :16] = 1
    masked = prompt.nodes.SetLatentNoiseMask().set_mask(latent, mask)[0]
    out = prompt.ksampler(model, unconditional, unconditional, masked, denoise=0.5)
    image = prompt.nodes.VAEDecode().decode(vae, out)[0]
    assert (image[:, 18:] - picture[:, 18:]).abs().max() < 1e-5
    assert (image[:, :14] - picture[:, :14]).abs().mean() > 0.01


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_previews_show_the_picture(prompt: Any, load: Any, name: str) -> None:
    import latent_preview
    import numpy as np

    model, vae, _ = load(name)
    picture = torch.rand(1, 8, 8, 3).repeat_interleave(4, 1).repeat_interleave(4, 2)
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    shown = np.asarray(previewer.decode_latent_to_preview(vae.encode(picture)))
    ratio = model.model.latent_format.spacial_downscale_ratio
    expected = (picture[0, ::ratio, ::ratio] * 255).numpy()
    assert shown.shape == expected.shape and abs(shown - expected).max() <= 1.01


def test_empty_pixel_latent_fits_the_model(load: Any) -> None:
    model = load("packed")[0]
    assert empty(model, 3)["samples"].shape == (3, 12, 16, 16)
    assert empty(model, 1, 64, 24)["samples"].shape == (1, 12, 12, 32)
    assert empty(load("learned_sigma")[0], 1, 0, 32)["samples"].shape == (1, 3, 32, 16)
    assert set(empty(model)) == {"samples"}
    with pytest.raises(ValueError, match=r"width that is a multiple of 4, and got 30: use 32, or 0 for its own 32"):
        empty(model, 1, 30, 32)
    with pytest.raises(ValueError, match="height that is a multiple of 2, and got 1: use 2"):
        empty(load("plain")[0], 1, 16, 1)
    with pytest.raises(ValueError, match="needs a MODEL from Load Unconditional Diffusion"):
        empty(object())


def test_the_hosts_own_empty_latent_fits_where_the_host_can_rescale(prompt: Any, load: Any) -> None:
    model, _, unconditional = load("packed")
    latent = prompt.nodes.EmptyLatentImage().generate(64, 64, 1)[0]
    if "downscale_ratio_spacial" not in latent:
        pytest.skip("this host does not note the ratio of an empty latent (v0.3.64): that is what Empty Pixel Latent is for")
    assert prompt.ksampler(model, unconditional, unconditional, latent)["samples"].shape == (1, 12, 32, 32)


def test_class_labels_reach_their_rows(prompt: Any, load: Any) -> None:
    model = load("classes")[0]
    positive, negative = label(model, "Doctor")
    calls = Calls(model)
    guided = prompt.ksampler(calls.model, positive, negative, empty(model), cfg=3.0)["samples"]
    assert calls.labels and all(labels == [3, 3, 1, 1] for labels in calls.labels)
    assert all(roles == [1, 0] for roles in calls.roles)
    plain = prompt.ksampler(model, positive, negative, empty(model))["samples"]
    other = prompt.ksampler(model, label(model, "2")[0], negative, empty(model))["samples"]
    assert not torch.equal(guided, plain) and not torch.equal(plain, other)
    unconditional = load("classes")[2]
    assert torch.equal(
        prompt.ksampler(model, unconditional, negative, empty(model))["samples"],
        prompt.ksampler(model, negative, negative, empty(model))["samples"],
    )


@pytest.mark.parametrize(("text", "index"), [("cook", 0), (" Fire Fighter ", 2), ("0", 0), ("2", 2)])
def test_classes_are_named_or_numbered(load: Any, text: str, index: int) -> None:
    from equipoise.host.small_models.adm_info import LABEL_KEY

    positive, negative = label(load("classes")[0], text)
    assert positive[0][1] == {LABEL_KEY: (index, 4)} and negative[0][1] == {LABEL_KEY: (3, 4)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes", "dokter", "has no class 'dokter'. It knows 0 = cook, 1 = doctor, 2 = fire fighter. Did you mean doctor?"),
        ("classes", "3", "has no class '3'. It knows 0 = cook"),
        ("classes", "-1", "has no class '-1'"),
        ("classes", "", "has no class ''"),
        ("no_null", "10", "has no class '10'. It knows the numbers 0 to 9 (its file names no classes)."),
        ("plain", "0", "has no classes: leave out Class Label."),
    ],
)
def test_unknown_classes_are_answered_with_what_there_is(load: Any, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        label(load(name)[0], text)


def test_cfg_is_refused_in_words_where_there_is_no_null_label(prompt: Any, load: Any) -> None:
    model = load("no_null")[0]
    positive, negative = label(model, "4")
    image = prompt.ksampler(model, positive, negative, empty(model), cfg=1.0)["samples"]
    assert image.shape == (2, 3, 16, 16) and image.isfinite().all()
    with pytest.raises(ValueError, match="has no null label, and classifier-free guidance needs a model .*: set cfg to 1"):
        prompt.ksampler(model, positive, negative, empty(model), cfg=2.0)


def test_a_missing_or_foreign_class_label_is_refused_in_words(prompt: Any, load: Any) -> None:
    model, _, unconditional = load("classes")
    text = [[torch.randn(1, 77, 768), {}]]
    with pytest.raises(ValueError, match="positive conditioning has no class label: connect Class Label"):
        prompt.ksampler(model, text, unconditional, empty(model))
    with pytest.raises(ValueError, match="negative conditioning has no class label: connect the negative output of Class Label"):
        prompt.ksampler(model, label(model, "cook")[0], text, empty(model), cfg=2.0)
    with pytest.raises(ValueError, match="made for a model with 10 labels, and 'tiny_classes.safetensors' has 4"):
        prompt.ksampler(model, label(load("no_null")[0], "1")[0], text, empty(model))
    with pytest.raises(ValueError, match="is an unconditional model, and it got a class label: disconnect Class Label"):
        prompt.ksampler(load("plain")[0], label(model, "cook")[0], text, empty(load("plain")[0]))
    no_null, _, none = load("no_null")
    with pytest.raises(ValueError, match="positive conditioning has no class label"):
        prompt.ksampler(no_null, none, none, empty(no_null))


def test_conditionings_and_models_are_not_changed_by_sampling(prompt: Any, load: Any) -> None:
    model = load("classes")[0]
    positive, negative = label(model, "cook")
    kept = json.dumps([positive[0][1], negative[0][1]]), str(model.model_options)
    prompt.ksampler(model, positive, negative, empty(model), cfg=2.0)
    assert kept == (json.dumps([positive[0][1], negative[0][1]]), str(model.model_options))


def test_patches_of_the_hosts_unet_reach_this_one(prompt: Any, load: Any) -> None:
    model, _, unconditional = load("plain")
    latent = empty(model)
    plain = prompt.ksampler(model, unconditional, unconditional, latent)["samples"]
    seen: list[Any] = []

    def patch(h: Any, skip: Any, options: Any) -> Any:
        seen.append((options["block"], tuple(h.shape), float(options["sigmas"][0])))
        return (h + 0.5 if options["block"] == ("output", 0) else h), skip

    patched = model.clone()
    patched.set_model_output_block_patch(patch)
    assert not torch.equal(prompt.ksampler(patched, unconditional, unconditional, latent)["samples"], plain)
    assert seen[0][:2] == (("output", 0), (2, 64, 8, 8)) and seen[0][2] == pytest.approx(157.407, abs=1e-3)
    assert torch.equal(prompt.ksampler(model, unconditional, unconditional, latent)["samples"], plain)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order: two threads split calls of other sizes at other places, and these random weights enlarge what that rounds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_split_calls_under_low_memory_give_the_same_image(
    prompt: Any, load: Any, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    model = load("classes")[0]
    positive, negative = label(model, "cook")
    together = prompt.ksampler(model, positive, negative, empty(model), cfg=2.0)["samples"]
    monkeypatch.setattr(type(model.model), "memory_required", lambda *_, **__: 1e15)
    calls = Calls(model)
    split = prompt.ksampler(calls.model, positive, negative, empty(model), cfg=2.0)["samples"]
    assert {len(roles) for roles in calls.roles} == {1}
    torch.testing.assert_close(split, together, rtol=1e-4, atol=1e-4)


def test_the_memory_estimate_covers_the_measured_peak_and_not_thrice_as_much(load: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    inner = load("packed")[0].model
    x = torch.randn(8, 12, 64, 64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
        inner.diffusion_model(x, torch.zeros(8))
    held = peak = 0
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert 1.0 <= inner.memory_required([8, 12, 64, 64]) / peak <= 3.0


def test_weights_are_converted_on_load_and_computed_in_another_type(prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management
    from equipoise.host.small_models.adm_info import conditioning
    from equipoise.host.small_models.adm_model import info_of, patcher_from

    state, meta = tiny("plain")
    half = {k: v.half() for k, v in state.items()}
    full = patcher_from("full", half, meta)
    assert full.model.get_dtype() == torch.float32 and full.model.manual_cast_dtype is None
    monkeypatch.setattr(management, "unet_dtype", lambda *_, **__: torch.float16)
    cast = patcher_from("cast", half, meta)
    assert cast.model.get_dtype() == torch.float16 and cast.model.manual_cast_dtype == torch.float32
    assert {p.dtype for p in cast.model.diffusion_model.parameters()} == {torch.float16}
    info = info_of(full)
    runs = [prompt.ksampler(m, conditioning(info, None), conditioning(info, None), empty(m)) for m in (full, cast)]
    torch.testing.assert_close(runs[0]["samples"], runs[1]["samples"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_schedule": "sigmoid"}, "its noise schedule is 'sigmoid', and only linear and cosine are supported"),
        ({"pixel_unshuffle": "2"}, "RGB images at pixel_unshuffle=2 has 12 input channels, and this one has 3"),
        ({"image_size": "33"}, "image_size 33 is not a multiple of 2"),
        ({"image_size": "big"}, "'image_size' should be a whole number and is 'big'"),
        ({"diffusion_steps": "4000"}, "was trained with 4000 diffusion steps, and only 1000 are supported"),
        ({"null_label": "9"}, "null_label 9 is not one of its 4 labels"),
        ({"class_names": "cook"}, "'class_names' should be a JSON list of at most 4 names and is cook"),
        ({"class_names": json.dumps([*NAMES, "x", "y"])}, "'class_names' should be a JSON list of at most 4 names"),
    ],
)
def test_contradicting_metadata_is_refused_in_words(prompt: Any, change: dict[str, str], message: str) -> None:
    from equipoise.host.small_models.adm_model import patcher_from

    state, meta = tiny("classes")
    with pytest.raises(ValueError, match=re.escape(message)):
        patcher_from("file", state, {**meta, **change})


def test_what_is_not_a_diffusion_model_is_refused_in_words(prompt: Any, tmp_path: Path) -> None:
    from equipoise.host.small_models.adm_model import load_adm, patcher_from

    state, meta = tiny("plain")
    upsampler = state | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}
    with pytest.raises(ValueError, match="has 3 input channels, and this one has 6.*Upsamplers"):
        patcher_from("file", upsampler, meta)
    with pytest.raises(ValueError, match="not an ADM"):
        patcher_from("file", {"conv_in.weight": torch.zeros(1)}, {})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((2000).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="'broken.safetensors' is not a whole safetensors file"):
        load_adm(broken)


def test_a_copy_for_a_second_device_can_be_made(load: Any) -> None:
    model = load("plain")[0]
    if not hasattr(model, "deepclone_multigpu"):
        pytest.skip("this host does not copy models to a second device (v0.3.64)")
    copy = model.deepclone_multigpu(new_load_device=torch.device("cpu"))
    assert copy.model is not model.model
    for (name, a), (_, b) in zip(model.model.named_parameters(), copy.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", ["plain", "p2_like", "new_attention_order", "class_conditional"])
def test_golden_outputs_through_the_hosts_operations(prompt: Any, name: str) -> None:
    from equipoise.host.small_models.adm_model import patcher_from
    from equipoise.models.adm_unet import build_unet
    from safetensors.torch import load_file

    case = json.loads((DATA / "golden.json").read_text())[name]
    golden = load_file(DATA / "golden.safetensors")
    meta = {key: str(case["config"][key]) for key in ("num_heads", "num_head_channels", "use_new_attention_order", "image_size")}
    weights = formula_weights(case["parameters"])
    network = patcher_from(name, weights, meta).model.diffusion_model
    middle: list[torch.Tensor] = []

    def keep(h: Any, skip: Any, options: Any) -> Any:
        if options["block"] == ("output", 0):
            middle.append(h.clone())
        return h, skip

    options = {"patches": {"output_block_patch": [keep]}}
    x, t, y = golden[f"{name}.x"], golden[f"{name}.t"], golden.get(f"{name}.y")
    out = network(x, t, None, y, None, options)
    torch.testing.assert_close(out, build_unet(weights, meta)(x, t, y=y)[:, :3], rtol=0, atol=1e-6)
    # the unit tests compare with the reference more closely; these weights amplify rounding, hence the mean
    assert (middle[0] - golden[f"{name}.h"]).abs().mean() < 1e-4
    assert (out - golden[f"{name}.out"][:, :3]).abs().mean() < 5e-3


def test_the_published_p2_model_runs_at_256(prompt: Any) -> None:
    listing = DATA / "p2_celebahq_256_parameters.json"
    from equipoise.host.small_models.adm_info import conditioning
    from equipoise.host.small_models.adm_model import info_of, patcher_from
    from equipoise.host.small_models.pixel_vae import PixelVae

    shapes = json.loads(listing.read_text())
    state = formula_weights(shapes)
    assert sum(v.numel() for v in state.values()) == pytest.approx(93.56e6, rel=1e-3)
    model = patcher_from("p2_celebahq_256", state, {})
    del state
    info = info_of(model)
    assert (info.image_size, info.channels, info.ratio, info.num_classes) == (256, 3, 1, None)
    assert float(model.model.model_sampling.sigma_max) == pytest.approx(157.407, abs=1e-3)
    unconditional = conditioning(info, None)
    out = prompt.ksampler(model, unconditional, unconditional, empty(model, 1), steps=2)
    image = prompt.nodes.VAEDecode().decode(PixelVae(info.ratio), out)[0]
    assert image.shape == (1, 256, 256, 3) and out["samples"].isfinite().all() and image.std() > 0


@pytest.mark.parametrize("file", ["portraits.safetensors", "portraits_professions.safetensors"])
def test_the_shipped_models_draw(prompt: Any, file: str) -> None:
    if not (SHIPPED / file).is_file():
        pytest.skip(f"shipped/weights/diffusion/{file} is not there")
    from equipoise.nodes.small_models.load_unconditional_diffusion import LoadUnconditionalDiffusion

    model, vae, unconditional = LoadUnconditionalDiffusion.execute(file).result
    positive, negative = (unconditional, unconditional) if model.model.equipoise_info.num_classes is None else label(model, "0")
    out = prompt.ksampler(model, positive, negative, empty(model, 4), steps=10, sampler="ddim")
    image = prompt.nodes.VAEDecode().decode(vae, out)[0]
    assert image.shape == (4, 32, 32, 3)
    # a drawn picture is smooth and in range, a broken schedule or latent layout leaves noise or saturation
    assert out["samples"].abs().max() < 2.0
    assert (image[:, 1:] - image[:, :-1]).abs().mean() < 0.1
