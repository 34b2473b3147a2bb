"""SD 1.5 and SDXL at full width with random weights: through the host's checkpoint loading and KSampler, with a random ADP."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_checkpoints import random_conditioning, random_weights, write_checkpoint
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise_nodes import execute
from equipoise_spy import Spy
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "long")}
MIDDLE = "middle"
LATENT = {"sd15": (16, 8), "sdxl": (8, 12)}
SMALLEST = {"sd15": (2, 1), "sdxl": (2, 3)}
"""Height and width of the latents and of the middle block's maps: smaller than the ADP's grid, and not square."""
SITE = {"sd15": ("output.6", 640), "sdxl": ("output.4", 640)}
"""The up-block site of the test's ADP, with its width."""
WIDTHS = {"sd15": [1280] * 6 + [640] * 3 + [320] * 2, "sdxl": [1280] * 3 + [640] * 3 + [320] * 2}
"""Width of every up-block site."""
NEEDED = {"sd15": 6.5e9, "sdxl": 7.5e9}
"""Bytes of memory at the peak: measured 5.8e9 and 6.2e9, the process with all of ComfyUI included."""


class Checkpoint:
    """A loaded MODEL with random conditionings."""

    def __init__(self, host: Any, name: str, model: Any) -> None:
        self.host, self.name, self.model = host, name, model
        self.positive, self.other, self.negative = (random_conditioning(name, seed) for seed in (1, 2, 3))

    def sample(self, model: Any = None, n: int = 2, positive: Any = None, **sampler: Any) -> Tensor:
        settings = {"seed": 5, "steps": 2, "cfg": 5.0, **sampler}
        latent = {"samples": torch.zeros(n, 4, *LATENT[self.name])}
        return self.host.ksampler(model or self.model, positive or self.positive, self.negative, latent, **settings)["samples"]


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def loaded(request: pytest.FixtureRequest, host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """One of the two, freed before the next is made. SD 1.5 goes through a file; SDXL, in half precision, only through memory."""
    import comfy.model_management
    import comfy.sd
    import psutil

    name = request.param
    if psutil.virtual_memory().available < NEEDED[name]:
        pytest.skip(f"{name} at full width needs {NEEDED[name] / 1e9:.1f} GB of free memory")
    only_model = {"output_vae": False, "output_clip": False}
    with torch.inference_mode():
        if name == "sd15":
            path = tmp_path_factory.mktemp("checkpoint") / "sd15.safetensors"
            try:
                write_checkpoint(path, random_weights(name))
                model = comfy.sd.load_checkpoint_guess_config(str(path), **only_model)[0]
            finally:
                path.unlink(missing_ok=True)
        else:
            model = comfy.sd.load_state_dict_guess_config(random_weights(name), **only_model, model_options={"dtype": torch.float16})[0]
    checkpoint = Checkpoint(host, name, model)
    del model
    yield checkpoint
    comfy.model_management.unload_all_models()
    checkpoint.model = None
    gc.collect()


@pytest.fixture
def checkpoint(loaded: Checkpoint, prompt: Any) -> Checkpoint:
    return loaded


@pytest.fixture
def adp(checkpoint: Checkpoint) -> Any:
    site, width = SITE[checkpoint.name]
    return random_adp(ATTRIBUTES, 1280, {"hair": (site, width)}, checkpoint.name, size=0.3)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, prompt: Any) -> Spy:
    return Spy(monkeypatch)


def guide(model: Any, adp: Any, text: str = "eyeglasses x hair: uniform", finished: list[Any] | None = None, **settings: Any) -> Any:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.core.target_text import parse_target
    from equipoise.methods.guidance.run import GuidanceSettings

    on_finish = None if finished is None else lambda run: finished.append(run.summary())
    return apply_guidance(model, adp, GuidanceSettings(parse_target(text, ATTRIBUTES), **settings), on_finish)


def far(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) > 1e-2 * float(b.std())


def test_the_checkpoint_is_what_it_is_named_and_its_sites_are_known(checkpoint: Checkpoint) -> None:
    from equipoise.host.core.sites import base_model, site_channels
    from equipoise.models.sites import block_site

    network = checkpoint.model.model.diffusion_model
    assert base_model(checkpoint.model) == checkpoint.name
    assert sum(p.numel() for p in network.parameters()) == {"sd15": 859520964, "sdxl": 2567463684}[checkpoint.name]
    seen: dict[str, int] = {}
    watched = checkpoint.model.clone()

    def watch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        seen[block_site(options["block"])] = h.shape[1]
        return h, skip

    watched.set_model_output_block_patch(watch)
    checkpoint.sample(watched, n=1, steps=1, cfg=1.0)
    expected = {MIDDLE: 1280, **{f"output.{i}": width for i, width in enumerate(WIDTHS[checkpoint.name])}}
    assert seen == expected == site_channels(checkpoint.model)


def test_rows_are_told_apart_together_and_in_calls_of_their_own(
    checkpoint: Checkpoint, adp: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[Any] = []
    site, width = SITE[checkpoint.name]
    guided = guide(checkpoint.model, adp, finished=finished)
    together = checkpoint.sample(guided)
    assert together.isfinite().all()
    assert {call.marks for call in spy.calls} == {(1, 0)}
    assert {call.shape for call in spy.at(MIDDLE)} == {(4, 1280, *SMALLEST[checkpoint.name])}
    assert {call.shape[:2] for call in spy.at(site)} == {(4, width)}
    assert spy.chunks(MIDDLE) == spy.chunks(site) == {(1, False), (0, True)}
    spy.calls.clear()
    monkeypatch.setattr(checkpoint.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart = checkpoint.sample(guided)
    assert {call.marks for call in spy.calls} == {(0,), (1,)}
    assert spy.chunks(MIDDLE) == spy.chunks(site) == {(1, False), (0, True)}
    assert torch.equal(finished[0].cells, finished[1].cells) and len(set(finished[0].cells.tolist())) == 2
    torch.testing.assert_close(apart, together, rtol=1e-2, atol=1e-2 * float(together.std()))


def test_off_is_plain_sampling_bit_for_bit(checkpoint: Checkpoint, adp: Any) -> None:
    quick = {"n": 1, "steps": 1, "cfg": 1.0}
    plain = checkpoint.sample(**quick)
    assert torch.equal(checkpoint.sample(guide(checkpoint.model, adp, sigma_end=1e9), **quick), plain)
    guided = guide(checkpoint.model, adp)
    first = checkpoint.sample(guided, **quick)
    assert torch.equal(checkpoint.sample(**quick), plain), "an unpatched sampler after a guided one"
    assert torch.equal(checkpoint.sample(guided, **quick), first) and far(first, plain)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_batches_without_classifier_free_guidance(checkpoint: Checkpoint, adp: Any, spy: Spy, n: int) -> None:
    finished: list[Any] = []
    image = checkpoint.sample(guide(checkpoint.model, adp, finished=finished), n=n, steps=1, cfg=1.0)
    assert image.shape[0] == n and image.isfinite().all()
    assert {call.marks for call in spy.calls} == {(0,)} and spy.chunks(MIDDLE) == {(0, True)}
    assert {call.shape for call in spy.at(MIDDLE)} == {(n, 1280, *SMALLEST[checkpoint.name])}
    assert len(set(finished[0].cells.tolist())) == n, "four cells, none of them twice"


def test_two_positives(checkpoint: Checkpoint, adp: Any, spy: Spy) -> None:
    both = checkpoint.host.nodes.ConditioningCombine().combine(checkpoint.positive, checkpoint.other)[0]
    checkpoint.sample(guide(checkpoint.model, adp), n=1, steps=1, positive=both)
    assert {call.marks for call in spy.calls} == {(1, 0, 0)}
    assert {tuple(call.by_chunk) for call in spy.calls} == {((1, False), (0, True), (0, True))}


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2s_ancestral"])
def test_samplers_with_two_calls_a_step(checkpoint: Checkpoint, adp: Any, spy: Spy, sampler: str) -> None:
    finished: list[Any] = []
    image = checkpoint.sample(guide(checkpoint.model, adp, finished=finished), n=1, sampler=sampler)
    assert image.isfinite().all()
    assert len(spy.at(MIDDLE)) == 3 == len(finished[0].readings.log_snr), "two calls in the first step, one in the last"
    assert {call.marks for call in spy.calls} == {(1, 0)} and spy.chunks() == {(1, False), (0, True)}


def test_an_adp_of_the_other_model_is_refused(checkpoint: Checkpoint) -> None:
    other = {"sd15": "sdxl", "sdxl": "sd15"}[checkpoint.name]
    with pytest.raises(ValueError, match=f"made for '{other}' and the connected MODEL is '{checkpoint.name}'"):
        guide(checkpoint.model, random_adp(ATTRIBUTES, 1280, base_model=other))
    with pytest.raises(ValueError, match="expects 512 channels at 'middle'.*has 1280"):
        guide(checkpoint.model, random_adp(ATTRIBUTES, 512, base_model=checkpoint.name))


@pytest.mark.parametrize("loaded", ["sd15"], indirect=True)
def test_free_u_may_stand_on_either_side(checkpoint: Checkpoint, adp: Any) -> None:
    from comfy_extras.nodes_freelunch import FreeU_V2

    def free_u(model: Any) -> Any:
        out = FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)
        return (out.result if hasattr(out, "result") else out)[0]

    quick = {"n": 1, "steps": 1, "cfg": 1.0}
    after = checkpoint.sample(free_u(guide(checkpoint.model, adp)), **quick)
    assert torch.equal(checkpoint.sample(guide(free_u(checkpoint.model), adp), **quick), after)
    assert far(after, checkpoint.sample(free_u(checkpoint.model), **quick))
    assert far(after, checkpoint.sample(guide(checkpoint.model, adp), **quick))


def test_a_positive_with_an_area(checkpoint: Checkpoint, adp: Any, spy: Spy) -> None:
    """The host copies it to the negative's side with the identity it has; it is not taken for a positive there."""
    area = checkpoint.host.nodes.ConditioningSetArea().append(checkpoint.other, 64, 64, 0, 0, 1.0)[0]  # 8 x 8 latents
    both = checkpoint.host.nodes.ConditioningCombine().combine(checkpoint.positive, area)[0]
    checkpoint.sample(guide(checkpoint.model, adp), n=1, steps=1, positive=both)
    small = {"sd15": (1, 1), "sdxl": (2, 2)}[checkpoint.name]
    assert {call.shape[2:] for call in spy.at(MIDDLE)} == {SMALLEST[checkpoint.name], small}
    assert spy.chunks(MIDDLE) == {(0, True), (1, False)}


def test_a_random_autoencoder_steers(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the middle block of SD 1.5, and at an up block of SDXL."""
    from equipoise.nodes.bias_features.bias_feature_steer import BiasFeatureSteer

    spy = Spy(monkeypatch, "steering")
    site, width = SITE[checkpoint.name] if checkpoint.name == "sdxl" else (MIDDLE, 1280)
    sae = random_sae(width, site, checkpoint.name, latents=2 * width, k=32)
    bias = random_bias(sae, ATTRIBUTES, size=8.0)

    def steer(strength: float, rows: str = "cond") -> Any:
        given = ("eyeglasses", "yes", strength, "profile", "calibrated", 0, 3.0, rows, 0.0, 1.0, "one pass", "auto", 0)
        return execute(BiasFeatureSteer, checkpoint.model, sae, bias, *given).result[0]

    once = {"n": 1, "steps": 1}
    plain, steered = checkpoint.sample(**once), checkpoint.sample(steer(1.0), **once)
    assert steered.isfinite().all() and far(steered, plain)
    assert spy.chunks(site) == {(1, False), (0, True)} and {call.shape[1] for call in spy.at(site)} == {width}
    assert torch.equal(checkpoint.sample(steer(0.0), **once), plain)
    other = random_sae(512, site, checkpoint.name)
    with pytest.raises(ValueError, match=f"expects 512 channels at '{site}'.*has {width}"):
        execute(
            BiasFeatureSteer,
            checkpoint.model, other, random_bias(other, ATTRIBUTES), "eyeglasses", "yes", 1.0, "profile", "calibrated", 0, 3.0, "cond",
            0.0, 1.0, "one pass", "auto", 0,
        )  # fmt: skip


def test_two_images_are_recorded_in_the_room_that_was_promised(checkpoint: Checkpoint) -> None:
    """50 calls take at most 2.1 MB per image; no bit of the samples changes."""
    from equipoise.host.core.sampling import SamplerSettings
    from equipoise.host.data.record_samples import GivenConditions, record_samples
    from equipoise.methods.data.feature_set import iterate_shards, iterate_spatial
    from equipoise.methods.data.recording import RecordingSettings

    decoded: list[Tensor] = []

    def decode(samples: Tensor) -> Tensor:
        decoded.append(samples.clone())
        return torch.rand(len(samples), 8, 8, 3)

    name, latent = checkpoint.name, {"samples": torch.zeros(2, 4, *LATENT[checkpoint.name])}
    conditions = GivenConditions(checkpoint.model, checkpoint.positive, checkpoint.negative)
    sampler = SamplerSettings(5, 1, 5.0, "euler", "normal")
    recording = RecordingSettings(spatial_levels=(0.0,))
    vae = SimpleNamespace(decode=decode, upscale_ratio=8)
    made = record_samples(checkpoint.model, vae, conditions, latent, f"full width {name}", 2, sampler, recording)
    features, level, ids = next(iterate_shards(made.features.folder, made.features.entries))
    assert features.shape == (2, 1280, 4, 4) and ids.tolist() == [0, 1] and features.float().std() > 0
    assert made.features.meta["base_model"] == name and made.features.meta["channels"] == 1280
    shard = made.features.folder / made.features.entries[0].shard
    assert shard.stat().st_size / 2 * 50 <= 2.1e6, "two images with one call each"
    maps = next(iterate_spatial(made.features.folder, made.features.entries))[0]
    assert maps.shape == (2, 1280, *SMALLEST[name])
    assert torch.equal(decoded[0], checkpoint.sample(steps=1))
    shutil.rmtree(made.features.folder)
