"""Recording features in the host's own sampling, on small random models."""

from __future__ import annotations

import gc
import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equipoise_tiny import tiny
from PIL import Image
from torch import Tensor

CHANNELS = 64
STEPS = 4


class Clip:
    """Stands in for a text encoder: a prompt is the name of a class of the class-conditional model."""

    def __init__(self, world: World) -> None:
        self.world, self.seen = world, []

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> Any:
        from equipoise.host.small_models.adm_info import conditioning

        self.seen.append(tokens)
        return conditioning(self.world.info, self.world.info.class_index(tokens) if tokens else self.world.info.null_label)


class World:
    """One of the tiny models with its VAE and conditionings, and a folder for sets that is its own."""

    def __init__(self, host: Any, name: str) -> None:
        from equipoise.host.small_models.adm_info import conditioning
        from equipoise.host.small_models.adm_model import empty_latent, patcher_from
        from equipoise.host.small_models.pixel_vae import PixelVae

        state_dict, meta = tiny(name)
        self.host = host
        self.model = patcher_from(f"tiny_{name}", state_dict, meta | {"base_model": "tiny"})
        self.info = self.model.model.equipoise_info
        self.vae = PixelVae(self.info.ratio)
        self.positive = conditioning(self.info, 0 if self.info.num_classes else None)
        self.negative = conditioning(self.info, self.info.null_label)
        self.label = lambda label: conditioning(self.info, label)
        self.empty = lambda n: empty_latent(self.model, 0, 0, n)

    def node(self, name: str = "set", images: int = 4, batch: int = 2, **given: Any) -> Any:
        """Record Features: (feature set, report, images). A CONDITIONING unless a clip is given."""
        from equipoise.nodes.data.record_features import RecordFeatures

        settings: dict[str, Any] = {
            "prompts": "", "negative_prompt": "", "first_seed": 5, "steps": STEPS, "cfg": 3.0, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0, "every": 1, "unconditional_rows": False, "spatial_levels": "",
        }  # fmt: skip
        if "clip" not in given:
            settings |= {"positive": self.positive, "negative": self.negative}
        settings |= {"model": self.model, "vae": self.vae, "latent_image": self.empty(batch)} | given
        return RecordFeatures.execute(set_name=name, images=images, **settings).result

    def from_images(self, name: str = "set", **given: Any) -> Any:
        from equipoise.nodes.data.record_features_from_images import RecordFeaturesFromImages

        settings: dict[str, Any] = {
            "folder": "", "levels": "-4, 0, 4", "size": 0, "batch_size": 2, "first_seed": 5, "spatial_levels": "",
            "model": self.model, "vae": self.vae, "positive": self.positive,
        }  # fmt: skip
        return RecordFeaturesFromImages.execute(set_name=name, **(settings | given)).result


@pytest.fixture(autouse=True)
def folder(prompt: Any) -> Iterator[Path]:
    """The host's folder of feature sets, empty before and after every test."""
    place = prompt.base / "output" / "equipoise" / "features"
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def classes(prompt: Any) -> World:
    return World(prompt, "classes")


@pytest.fixture(params=["packed", "classes"])
def world(request: pytest.FixtureRequest, prompt: Any) -> World:
    """An unconditional model with 12 channels; a class-conditional one with classifier-free guidance."""
    return World(prompt, request.param)


class Watch:
    """A clone of a model that notes what arrives at the middle block, and may stop the sampling there."""

    def __init__(self, model: Any, stop_at: int = -1, error: BaseException | None = None) -> None:
        self.calls: list[tuple[Tensor, float, list[int]]] = []
        self.model = model.clone()

        def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
            if options["block"] == ("output", 0):
                if len(self.calls) == stop_at:
                    raise error
                self.calls.append((h.clone(), float(options["sigmas"][0]), list(options["cond_or_uncond"])))
            return h, skip

        self.model.set_model_output_block_patch(patch)


def rows_of(features: Any, conditional: bool = True) -> dict[int, tuple[Tensor, Tensor]]:
    """Image id -> features [calls, C, 4, 4] and log-SNR [calls]."""
    from equipoise.methods.data.feature_set import iterate_shards

    found = {}
    for x, level, ids in iterate_shards(features.folder, features.entries, conditional):
        found |= {i: (x[ids == i], level[ids == i]) for i in ids.unique().tolist()}
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- what is recorded ----------------------------------------------------------------------------------------------------------------


def test_every_call_is_recorded_and_the_samples_are_ksamplers_own(world: World, folder: Path) -> None:
    from equipoise.models.noise_level import log_snr
    from equipoise.models.sites import pool

    options = repr(world.model.model_options)
    features, report, shown = world.node(images=4, batch=2)
    assert repr(world.model.model_options) == options
    made = rows_of(features)
    assert sorted(made) == [0, 1, 2, 3]
    for b in range(2):
        watch = Watch(world.model)
        latent = world.host.ksampler(watch.model, world.positive, world.negative, world.empty(2), seed=5 + b, steps=STEPS, cfg=3.0)
        pictures = world.vae.decode(latent["samples"])
        for i in range(2):
            x, level = made[2 * b + i]
            own = torch.stack([pool(h[-2:][i : i + 1])[0] for h, _, _ in watch.calls])  # the positive's rows come last
            assert torch.equal(x, own.half()), "the positive's h of every call, to the last bit"
            torch.testing.assert_close(level, torch.stack([log_snr(s) for _, s, _ in watch.calls]))
            entry = features.entries[2 * b + i]
            assert (entry.file, entry.seed, entry.place, entry.rows) == (f"{2 * b + i:06d}.png", 5 + b, i, STEPS)
            on_disk = np.asarray(Image.open(features.image_path(entry)))
            assert np.array_equal(on_disk, (pictures[i] * 255).round().byte().numpy())
    assert torch.equal(shown, pictures), "the output is the latest batch, bit for bit what KSampler makes"
    assert features.folder == folder / "set" and features.meta["base_model"] == "tiny" and features.meta["channels"] == CHANNELS
    assert "4 images" in report and f"{STEPS} of {STEPS} calls" in report and "needs about" in report


def test_recording_leaves_every_sample_as_it_was(world: World) -> None:
    from equipoise.host.data.recording import apply_recording
    from equipoise.methods.data.recording import RecordingSettings

    settings = RecordingSettings(unconditional=True, spatial_levels=(0.0, 2.0))
    for sampler in ("euler", "heun", "dpmpp_2m", "euler_ancestral"):
        plain = world.host.ksampler(world.model, world.positive, world.negative, world.empty(3), cfg=3.0, sampler=sampler)["samples"]
        recorded = apply_recording(world.model, settings, lambda _: None)
        again = world.host.ksampler(recorded, world.positive, world.negative, world.empty(3), cfg=3.0, sampler=sampler)["samples"]
        assert torch.equal(plain, again), sampler


CALLS = {"euler": STEPS, "heun": 2 * STEPS - 1, "dpmpp_2s_ancestral": 2 * STEPS - 1, "dpm_2": 2 * STEPS - 1, "ddim": STEPS, "uni_pc": STEPS}


@pytest.mark.parametrize("sampler", CALLS)
def test_samplers_with_one_or_two_calls_a_step(classes: World, sampler: str) -> None:
    features, report, _ = classes.node(images=2, sampler_name=sampler)
    x, level = rows_of(features)[0]
    assert len(x) == len(level) == CALLS[sampler] and f"{CALLS[sampler]} of {CALLS[sampler]} calls" in report
    if sampler == "heun":  # the second call of a step is at the level of the next step's first, with other latents
        assert level[1] == level[2] and not torch.equal(x[1], x[2])
    thirds = rows_of(classes.node("thirds", images=2, sampler_name=sampler, every=3)[0])[0]
    assert torch.equal(thirds[0], x[::3]) and torch.equal(thirds[1], level[::3])


def test_rows_in_calls_of_their_own(classes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short of memory the host runs positive and negative apart; they are one call all the same."""
    together, _, _ = classes.node("together", unconditional_rows=True)
    monkeypatch.setattr(classes.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    watch = Watch(classes.model)
    apart, _, _ = classes.node("apart", unconditional_rows=True, model=watch.model)
    assert {tuple(marks) for _, _, marks in watch.calls} == {(0,), (1,)} and len(watch.calls) == 4 * STEPS
    for conditional in (True, False):
        one, other = rows_of(together, conditional), rows_of(apart, conditional)
        for i in range(4):
            assert torch.equal(one[i][1], other[i][1]) and len(one[i][0]) == STEPS
            torch.testing.assert_close(one[i][0], other[i][0], rtol=2e-2, atol=2e-3)
    difference = (rows_of(together)[0][0].float() - rows_of(together, False)[0][0].float()).abs().max()
    assert difference > 0.05, "the negative's rows are others"
    assert together.entries[0].rows == 2 * STEPS and together.entries[0].unconditional == STEPS


def test_several_positives_are_averaged(classes: World) -> None:
    both = [*classes.label(0), *classes.label(1)]
    watch = Watch(classes.model)
    features, _, _ = classes.node(images=2, positive=both, model=watch.model)
    h, _, marks = watch.calls[0]
    assert marks == [1, 0, 0]
    from equipoise.models.sites import pool

    expected = (pool(h[2:4]) + pool(h[4:6])) / 2
    torch.testing.assert_close(torch.stack([rows_of(features)[i][0][0] for i in range(2)]).float(), expected, rtol=1e-3, atol=1e-3)


def test_without_rows_of_the_negative_the_report_says_so(world: World) -> None:
    _, report, _ = world.node(images=2, cfg=1.0, unconditional_rows=True)
    assert "no negative rows" in report


def test_whole_maps_near_the_asked_levels(world: World) -> None:
    from equipoise.methods.data.feature_set import iterate_spatial
    from equipoise.models.sites import pool

    features, report, _ = world.node(spatial_levels="-2, sigma=0.1", every=2)
    assert features.meta["kind"] == "spatial"
    all_levels = rows_of(world.node("every")[0])[0][1]
    wanted = [float(all_levels[(all_levels - v).abs().argmin()]) for v in (-2.0, 4.605)]
    parts = list(iterate_spatial(features.folder, features.entries))
    assert len(parts) == 2 and parts[0][0].shape == (4, CHANNELS, 8, 8) and parts[0][1].tolist() == pytest.approx(wanted * 2)
    assert f"maps of {CHANNELS} x 8 x 8" in report
    whole, level, ids = parts[1]
    pooled, levels = rows_of(world.node("every")[0])[int(ids[1])]
    near = int((levels - level[1]).abs().argmin())
    torch.testing.assert_close(pool(whole[1:2].float())[0], pooled[near].float(), rtol=2e-3, atol=1e-2)


def test_image_to_image(world: World) -> None:
    latent = {"samples": torch.rand(2, *world.empty(1)["samples"].shape[1:], generator=torch.Generator().manual_seed(0)) - 0.5}
    features, _, _ = world.node(images=2, latent_image=latent, denoise=0.5)
    level = rows_of(features)[0][1]
    full = rows_of(world.node("full", images=2)[0])[0][1]
    assert len(level) == STEPS and level[0] > full[0] + 1
    with pytest.raises(ValueError, match="another latent image"):
        world.node(images=4, latent_image={"samples": latent["samples"] * 2}, denoise=0.5)
    with pytest.raises(ValueError, match="with denoise 0 nothing is sampled"):
        world.node("none", denoise=0.0)


# -- prompts -------------------------------------------------------------------------------------------------------------------------


def test_prompts_are_gone_through_in_turn(classes: World) -> None:
    clip = Clip(classes)
    features, _, _ = classes.node(images=7, batch=2, clip=clip, prompts="\n cook\n\ndoctor\n", negative_prompt="fire fighter")
    assert [(e.prompt, e.seed, e.place) for e in features.entries] == [
        ("cook", 5, 0), ("cook", 5, 1), ("doctor", 6, 0), ("doctor", 6, 1), ("cook", 7, 0), ("cook", 7, 1), ("doctor", 8, 0),
    ]  # fmt: skip
    assert clip.seen == ["fire fighter", "cook", "doctor"], "each is encoded once"
    assert features.meta["prompts"] == ["cook", "doctor"] and features.meta["negative"] == "fire fighter"
    # The same images as with the same classes as CONDITIONING.
    given, _, _ = classes.node("given", images=2, positive=classes.label(0), negative=classes.label(2))
    assert torch.equal(rows_of(features)[0][0], rows_of(given)[0][0])
    assert given.entries[0].prompt == "cook", "a class label is kept by its name"


def test_thousands_of_prompts_are_encoded_a_few_at_a_time(classes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.data import record_samples

    monkeypatch.setattr(record_samples, "AHEAD", 2)
    clip = Clip(classes)
    conditions = record_samples.PromptConditions(clip, "cook\ndoctor\nfire fighter", "")
    assert clip.seen == ["", "cook", "doctor"]
    assert [conditions.at(b)[2] for b in range(5)] == ["cook", "doctor", "fire fighter", "cook", "doctor"]
    assert clip.seen[3:] == ["fire fighter", "cook", "doctor", "fire fighter"] and len(conditions._encoded) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip": True, "prompts": " \n\n"}, "list of prompts is empty"),
        ({"clip": None}, "connect a CLIP and write prompts, or connect a CONDITIONING"),
        ({"clip": None, "prompts": "a cook"}, "connect a CLIP and write prompts"),
        ({"prompts": "a cook"}, "no CLIP to encode them"),
        ({"clip": True, "prompts": "cook", "positive": True}, "empty the prompts, or disconnect positive"),
        ({"spatial_levels": "high"}, "'high' is not a noise level"),
    ],
)
def test_what_to_draw_has_to_be_clear(classes: World, folder: Path, given: dict[str, Any], message: str) -> None:
    given = dict(given)
    if given.get("clip"):
        given["clip"] = Clip(classes)
    if given.get("positive"):
        given["positive"] = classes.positive
    with pytest.raises(ValueError, match=message) as error:
        classes.node(**given)
    assert "\n" not in str(error.value) and not folder.exists()


# -- going on ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [0, 1, STEPS, 2 * STEPS + 1])
def test_an_interrupted_recording_goes_on_where_it_stopped(world: World, folder: Path, stop_at: int) -> None:
    from comfy.model_management import InterruptProcessingException

    whole, _, _ = world.node("whole", images=6)
    stopping = Watch(world.model, stop_at, InterruptProcessingException())
    with pytest.raises(InterruptProcessingException):
        world.node("cut", images=6, model=stopping.model)
    done = stop_at // STEPS * 2
    index = folder / "cut" / "index.jsonl"
    assert (len(index.read_text().splitlines()) if index.is_file() else 0) == done
    watch = Watch(world.model)
    features, report, _ = world.node("cut", images=6, model=watch.model)
    assert len(watch.calls) == (6 - done) // 2 * STEPS and f"{6 - done} recorded now" in report
    assert features.entries == whole.entries
    assert files_of(folder / "cut") == files_of(folder / "whole"), "every file, bit for bit"


def test_the_hosts_interruption_is_heeded(classes: World, folder: Path) -> None:
    import comfy.model_management as management

    calls: list[int] = []

    def interrupt(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        calls.append(1)
        if options["block"] == ("output", 0) and sum(calls) > 20:
            management.interrupt_current_processing()
        return h, skip

    model = classes.model.clone()
    model.set_model_output_block_patch(interrupt)
    with pytest.raises(management.InterruptProcessingException):
        classes.node(images=40, model=model)
    assert 0 < len((folder / "set" / "index.jsonl").read_text().splitlines()) < 40


def test_a_finished_set_is_left_alone_and_a_larger_one_is_added_to(world: World, folder: Path) -> None:
    one_go, _, _ = world.node("one go", images=7, batch=3)
    first, _, pictures = world.node(images=4, batch=3)
    before = files_of(folder / "set")
    watch = Watch(world.model)
    again, report, shown = world.node(images=4, batch=3, model=watch.model)
    assert not watch.calls and again.entries == first.entries and "nothing was left to record" in report
    assert files_of(folder / "set") == before
    assert shown.shape == (3, *pictures.shape[1:]) and (shown[-1] - pictures[-1]).abs().max() < 3e-3, "the latest, as they are on disk"
    # The batch that was cut at image 4 is filled up with the images that it would have held.
    more, report, _ = world.node(images=7, batch=3)
    assert "3 recorded now" in report and [e.seed for e in more.entries] == [e.seed for e in one_go.entries]
    assert [e.place for e in more.entries] == [e.place for e in one_go.entries] == [0, 1, 2, 0, 1, 2, 0]
    one, other = rows_of(one_go), rows_of(more)
    for i in range(7):
        torch.testing.assert_close(one[i][0], other[i][0], rtol=2e-2, atol=2e-3)


def test_other_settings_are_refused_by_name(classes: World) -> None:
    classes.node()
    for given, message in [
        ({"steps": 5}, "steps 4 instead of 5"),
        ({"cfg": 4.0}, "cfg 3.0 instead of 4.0"),
        ({"sampler_name": "heun", "scheduler": "karras"}, 'sampler "euler" instead of "heun", scheduler "normal" instead of "karras"'),
        ({"batch": 4}, "batch size 2 instead of 4"),
        ({"first_seed": 6}, "first seed 5 instead of 6"),
        ({"every": 2}, "every 1 instead of 2"),
        ({"unconditional_rows": True}, "unconditional rows false instead of true"),
        ({"spatial_levels": "0"}, 'kind "pooled" instead of "spatial"'),
        ({"positive": classes.label(1)}, "another conditioning"),
        ({"negative": classes.label(1)}, "another negative conditioning"),
        ({"clip": Clip(classes), "prompts": "cook"}, "no word on its prompts"),
    ]:
        with pytest.raises(ValueError, match="the feature set 'set' was recorded with") as error:
            classes.node(**given)
        assert message in str(error.value), given
    assert len(classes.node()[0].entries) == 4


def test_another_model_or_another_lora_is_refused(classes: World, folder: Path) -> None:
    from equipoise.host.small_models.adm_model import patcher_from

    classes.node()
    state_dict, meta = tiny("classes")
    other = {k: v + 0.01 * v.std() if k == "input_blocks.0.0.weight" else v for k, v in state_dict.items()}
    with pytest.raises(ValueError, match="another model"):
        classes.node(model=patcher_from("tiny_classes", other, meta | {"base_model": "tiny"}))
    again = patcher_from("tiny_classes", state_dict, meta | {"base_model": "tiny"})
    assert len(classes.node(model=again)[0].entries) == 4, "the same file, loaded again"

    def with_lora(seed: int, strength: float) -> Any:
        key = "diffusion_model.middle_block.0.out_layers.3.weight"
        generator = torch.Generator().manual_seed(seed)
        clone = classes.model.clone()
        assert clone.add_patches({key: ("diff", (0.01 * torch.randn(CHANNELS, CHANNELS, 3, 3, generator=generator),))}, strength)
        return clone

    with pytest.raises(ValueError, match="another model"):
        classes.node(model=with_lora(0, 1.0))
    lora = with_lora(0, 1.0)
    classes.node("lora", model=lora)
    assert len(classes.node("lora", model=with_lora(0, 1.0))[0].entries) == 4, "patched weights in use do not look like others"
    for seed, strength in ((0, 0.5), (1, 1.0)):
        with pytest.raises(ValueError, match="another model"):
            classes.node("lora", model=with_lora(seed, strength))
    classes.node()


def test_a_disk_that_is_too_small(classes: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    free = [1e6]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1e9, 0, int(free[0])))
    watch = Watch(classes.model)
    with pytest.raises(ValueError, match=r"disk is too small: recording 1000 images into 'set' needs about [\d.]+ MB.*1 MB are free"):
        classes.node(images=1000, model=watch.model)
    assert not watch.calls
    # What would fit may have other settings: nothing was recorded yet.
    features, report, _ = classes.node(images=8, every=4)
    assert len(features.entries) == 8 and "1 MB are free" in report
    # And one that fills up meanwhile.
    class Filling(list):
        def __getitem__(self, i: int) -> float:
            return 1e6 if not watch.calls else 1e3

    free = Filling()
    with pytest.raises(ValueError, match="the 6 images that are left for 'other' needs about"):
        classes.node("other", images=8, model=watch.model)
    free = [1e9]
    assert len(classes.node("other", images=8)[0].entries) == 8


def test_what_was_said_of_the_disk_is_enough(world: World, folder: Path) -> None:
    """For pictures that a PNG cannot shrink, such as these, and not by far too much."""
    import re

    _, report, _ = world.node(images=4, spatial_levels="0, 2", every=2)
    number, unit = re.search(r"needs about ([\d.]+) (kB|MB)", report).groups()
    said = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
    taken = sum(p.stat().st_size for p in (folder / "set").rglob("*") if p.suffix != ".json")
    assert 0.5 * said < taken < said


def test_features_that_are_no_numbers(classes: World, folder: Path) -> None:
    broken = Watch(classes.model)

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return (h * float("nan"), skip) if options["block"] == ("output", 1) else (h, skip)

    broken.model.set_model_output_block_patch(patch)
    with pytest.raises(ValueError, match="not finite"):
        classes.node(model=broken.model)
    assert not (folder / "set" / "index.jsonl").exists()


# -- memory --------------------------------------------------------------------------------------------------------------------------


def test_memory_stays_flat(classes: World) -> None:
    """What a set takes on disk is many times what the process grows by."""
    import psutil

    process = psutil.Process()
    sizes: list[int] = []

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if options["block"] == ("output", 0):
            sizes.append(process.memory_info().rss)
        return h, skip

    model = classes.model.clone()
    model.set_model_output_block_patch(patch)
    levels = "-8, -4, -2, 0, 3, 8"
    features, _, _ = classes.node(images=128, batch=8, steps=6, cfg=1.0, model=model, spatial_levels=levels)
    written = sum(p.stat().st_size for p in features.folder.glob("*.safetensors"))
    gc.collect()
    growth = sizes[-1] - sizes[len(sizes) // 4]
    print(f"{growth / 1e6:.2f} MB for {written / 1e6:.1f} MB written")
    assert written > 6e6 and growth < 2e6, f"{growth / 1e6:.1f} MB for {written / 1e6:.1f} MB written"


# -- names and Load Features -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "a\\b", "../other", "/absolute", "C:x", "a..b", ".hidden", "ends.", "a\nb", "x" * 101, "a|b", "a:b"]
)
def test_names_that_lead_elsewhere_are_refused(classes: World, name: str, folder: Path) -> None:
    from equipoise.nodes.data.load_features import LoadFeatures

    black = torch.zeros(1, 16, 16, 3)
    for use in (lambda: classes.node(name), lambda: LoadFeatures.execute(name), lambda: classes.from_images(name, images=black)):
        with pytest.raises(ValueError, match="cannot be the name of a feature set"):
            use()
    assert not folder.exists()


def test_load_features(classes: World, folder: Path) -> None:
    from equipoise.nodes.data.load_features import LoadFeatures

    made, _, _ = classes.node("Köche, 2. Satz (neu)")
    assert LoadFeatures.define_schema().inputs[0].options == ["Köche, 2. Satz (neu)"]
    before = LoadFeatures.fingerprint_inputs("Köche, 2. Satz (neu)")
    loaded, text = LoadFeatures.execute("Köche, 2. Satz (neu)").result
    assert loaded == made and "4 images" in text and "steps: 4" in text and "base model: tiny" in text
    classes.node("Köche, 2. Satz (neu)", images=6)
    assert LoadFeatures.fingerprint_inputs("Köche, 2. Satz (neu)") != before
    with pytest.raises(ValueError, match="'absent' is no feature set"):
        LoadFeatures.execute("absent")
    assert "missing" in LoadFeatures.fingerprint_inputs("absent") and "missing" in LoadFeatures.fingerprint_inputs("../x")
    (folder / "Köche, 2. Satz (neu)" / "shard-000002.safetensors").unlink()
    for use in (lambda: LoadFeatures.execute("Köche, 2. Satz (neu)"), lambda: classes.node("Köche, 2. Satz (neu)", images=8)):
        with pytest.raises(ValueError, match="names 'shard-000002.safetensors', which is not in its folder"):
            use()


# -- from images ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(prompt: Any) -> Iterator[Path]:
    """input/data/faces with five pictures, one of them larger, one below."""
    place = prompt.base / "input" / "data" / "faces"
    (place / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, side in (("b.png", 16), ("a.png", 16), ("c.bmp", 16), ("large.png", 32), ("more/d.png", 16)):
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(place / name)
    (place / "labels.csv").write_text("file,hair\n", encoding="utf-8")
    yield place
    shutil.rmtree(place.parent)


def test_a_folder_is_noised_to_the_levels_and_seen_once_each(classes: World, pictures: Path, folder: Path) -> None:
    from equipoise.models.sites import pool

    watch = Watch(classes.model)
    given = {"model": watch.model, "positive": classes.label(1), "levels": "-4, 0, sigma=0.5"}
    features, report, shown = classes.from_images(folder="data/faces", **given)
    assert [e.file for e in features.entries] == ["a.png", "b.png", "c.bmp", "large.png", "more/d.png"]
    assert [e.seed for e in features.entries] == [5, 6, 7, 8, 9] and {e.prompt for e in features.entries} == {"doctor"}
    # a, b together; c, large and d apart, since they differ in size or end a batch.
    assert len(watch.calls) == 4 * 3 and all(marks == [0] for _, _, marks in watch.calls)
    made = rows_of(features)
    level = torch.tensor([-4.0, 0.0, 1.3863])
    for i in range(5):
        torch.testing.assert_close(made[i][1], level, rtol=1e-4, atol=1e-4)
        assert features.image_path(features.entries[i]).read_bytes() == (pictures / features.entries[i].file).read_bytes()
    for k in range(3):
        own = pool(watch.calls[k][0])
        torch.testing.assert_close(torch.stack([made[0][0][k], made[1][0][k]]).float(), own, rtol=1e-3, atol=1e-3)
    assert features.meta["source"] == "images" and "3 of 3 calls" in report and shown.shape == (1, 16, 16, 3)


def test_what_the_network_is_shown_is_the_noised_picture(prompt: Any, pictures: Path) -> None:
    """Input of the U-Net, by the model's own scaling: (x + sigma n) / sqrt(sigma^2 + 1), with noise that is standard normal."""
    from comfy.patcher_extension import WrappersMP

    world = World(prompt, "packed")
    seen: list[tuple[Tensor, Tensor]] = []

    def look(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((x.clone(), args[0].clone()))
        return executor(x, *args, **kwargs)

    model = world.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "look", look)
    batch = torch.rand(64, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    world.from_images(model=model, images=batch, levels="-4, 2, 8", batch_size=64)
    clean = world.vae.encode(batch)
    sampling = world.model.get_model_object("model_sampling")
    for (x, timestep), level in zip(seen, (-4.0, 2.0, 8.0), strict=True):
        sigma = float(np.exp(-level / 2))
        noise = (x * (sigma**2 + 1) ** 0.5 - clean) / sigma
        assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
        assert torch.allclose(timestep.float(), sampling.timestep(torch.tensor(sigma)).float())
    first, last = ((x * (np.exp(-v) + 1) ** 0.5 - clean) / np.exp(-v / 2) for (x, _), v in ((seen[0], -4.0), (seen[1], 2.0)))
    assert abs(float((first * last).mean())) < 0.02, "fresh noise at every level"


def test_pictures_of_an_image_input_and_those_that_were_cropped(classes: World, pictures: Path) -> None:
    batch = torch.rand(5, 16, 16, 3, generator=torch.Generator().manual_seed(2))
    features, _, _ = classes.from_images(images=batch)
    assert [e.file for e in features.entries] == [f"{i:06d}.png" for i in range(5)]
    on_disk = torch.from_numpy(np.array(Image.open(features.image_path(features.entries[3])))) / 255
    assert (on_disk - batch[3]).abs().max() < 3e-3
    again, report, _ = classes.from_images(images=batch)
    assert "nothing was left" in report and again.entries == features.entries
    with pytest.raises(ValueError, match="another images"):
        classes.from_images(images=batch.flip(0))
    cropped, _, _ = classes.from_images("cropped", folder="data/faces", size=16, batch_size=5)
    assert Image.open(cropped.image_path(cropped.entries[3])).size == (16, 16)
    assert {e.shard for e in cropped.entries} == {"shard-000000.safetensors"}, "one size, one batch"


def test_pictures_that_are_added_later_are_added(classes: World, pictures: Path) -> None:
    (pictures / "b.png").rename(pictures.parent / "kept.png")
    first, _, _ = classes.from_images(folder="data/faces/")
    assert [e.file for e in first.entries] == ["a.png", "c.bmp", "large.png", "more/d.png"]
    (pictures.parent / "kept.png").rename(pictures / "b.png")
    watch = Watch(classes.model)
    second, report, _ = classes.from_images(folder="data/faces/", model=watch.model)
    assert len(watch.calls) == 3 and "1 recorded now" in report
    assert second.entries[:4] == first.entries and second.entries[4].file == "b.png" and second.entries[4].seed == 9
    with pytest.raises(ValueError, match="3 levels instead of 2"):
        classes.from_images(folder="data/faces/", levels="0, 1")


def test_an_interrupted_look_at_pictures_goes_on(classes: World, pictures: Path, folder: Path) -> None:
    from comfy.model_management import InterruptProcessingException

    whole, _, _ = classes.from_images("whole", folder="data/faces", spatial_levels="0")
    stopping = Watch(classes.model, 4, InterruptProcessingException())
    with pytest.raises(InterruptProcessingException):
        classes.from_images("cut", folder="data/faces", spatial_levels="0", model=stopping.model)
    assert len((folder / "cut" / "index.jsonl").read_text().splitlines()) == 2
    features, _, _ = classes.from_images("cut", folder="data/faces", spatial_levels="0")
    assert features.entries == whole.entries
    kept, expected = files_of(folder / "cut"), files_of(folder / "whole")
    assert kept.keys() == expected.keys() and all(kept[k] == expected[k] for k in kept)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "name a folder, or connect images"),
        ({"folder": "data/faces", "images": torch.zeros(1, 16, 16, 3)}, "not both"),
        ({"folder": "absent"}, "no folder 'absent'"),
        ({"folder": "../output"}, "is not a folder below"),
        ({"folder": "/etc"}, "is not a folder below"),
        ({"folder": "C:\\faces"}, "is not a folder below"),
        ({"folder": "data/empty"}, "holds no pictures"),
        ({"folder": "data/faces", "levels": ""}, "list of noise levels is empty"),
        ({"folder": "data/faces", "levels": "-30, 0"}, r"from log-SNR -10\.\d+ to \d.*-30.00 is outside"),
    ],
)
def test_pictures_that_cannot_be_recorded(classes: World, pictures: Path, given: dict[str, Any], message: str) -> None:
    (pictures.parent / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        classes.from_images(**given)


def test_a_picture_that_is_none(classes: World, pictures: Path) -> None:
    (pictures / "b.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="'b.png' cannot be read"):
        classes.from_images(folder="data/faces")


def test_set_json_says_how_it_was_recorded(classes: World, folder: Path) -> None:
    classes.node(clip=Clip(classes), prompts="cook\ndoctor")
    meta = json.loads((folder / "set" / "set.json").read_text(encoding="utf-8"))
    expected = {
        "format": "equipoise-feature-set", "version": 1, "kind": "pooled", "base_model": "tiny", "site": "middle", "channels": CHANNELS,
        "latent": [3, 16, 16], "batch_size": 2, "steps": STEPS, "cfg": 3.0, "sampler": "euler", "scheduler": "normal", "denoise": 1.0,
        "prompts": ["cook", "doctor"], "source": "samples",
    }  # fmt: skip
    assert expected.items() <= meta.items() or {k: meta.get(k) for k in expected} == expected


# -- a text model --------------------------------------------------------------------------------------------------------------------


def test_prompts_on_the_hosts_own_text_model(prompt: Any, tmp_path: Path) -> None:
    """The host's U-Net, text model and tokeniser at small width: what CLIP Text Encode and KSampler make is what is recorded."""
    from equipoise_tiny_text import write_tiny_text

    world = World(prompt, "packed")  # for its VAE and latents, which are of the same kind
    from equipoise.host.small_models.text_model import load_text_model

    model, clip = load_text_model(write_tiny_text(tmp_path / "text.safetensors"))
    prompts = "portrait of a chef\nportrait of a doctor with eyeglasses"
    features, _, shown = world.node(model=model, clip=clip, prompts=prompts, negative_prompt="long hair", unconditional_rows=True)
    encode = prompt.nodes.CLIPTextEncode().encode
    positive, negative = encode(clip, prompts.splitlines()[1])[0], encode(clip, "long hair")[0]
    watch = Watch(model)
    latent = prompt.ksampler(watch.model, positive, negative, world.empty(2), seed=6, steps=STEPS, cfg=3.0)
    assert torch.equal(world.vae.decode(latent["samples"]), shown)
    from equipoise.models.sites import pool

    made, negatives = rows_of(features), rows_of(features, False)
    for i in range(2):
        pooled = torch.stack([pool(h) for h, _, _ in watch.calls])
        assert torch.equal(made[2 + i][0], pooled[:, 2 + i].half()) and torch.equal(negatives[2 + i][0], pooled[:, i].half())
    assert [e.prompt for e in features.entries] == [p for p in prompts.splitlines() for _ in range(2)]
    with pytest.raises(ValueError, match='prompts number 2 "portrait of a doctor with eyeglasses" instead of "portrait of a judge"'):
        world.node(model=model, clip=clip, prompts="portrait of a chef\nportrait of a judge", negative_prompt="long hair",
                   unconditional_rows=True)  # fmt: skip


def test_perturbed_passes_are_left_out(prompt: Any, tmp_path: Path) -> None:
    """Perturbed attention guidance evaluates the positive a second time, with its attention broken."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from equipoise.host.small_models.text_model import load_text_model
    from equipoise_tiny_text import write_tiny_text

    world = World(prompt, "packed")
    model, clip = load_text_model(write_tiny_text(tmp_path / "text.safetensors"))
    guide = getattr(PerturbedAttentionGuidance, "execute", None) or PerturbedAttentionGuidance().patch
    out = guide(model, 3.0)
    perturbed = (out.result if hasattr(out, "result") else out)[0]
    watch = Watch(perturbed)
    prompts = {"clip": clip, "prompts": "portrait of a chef", "images": 2}
    with_guidance, report, _ = world.node("with", model=watch.model, **prompts)
    assert [marks for _, _, marks in watch.calls] == [[1, 0], [0]] * STEPS and f"{STEPS} of {STEPS} calls" in report
    without, _, _ = world.node("without", model=model, **prompts)
    one, other = rows_of(with_guidance)[0][0], rows_of(without)[0][0]
    assert one.shape == other.shape and torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert not torch.equal(watch.calls[1][0], watch.calls[0][0][2:]), "the second pass saw something else"


def test_the_networks_own_h_is_recorded_whatever_patches_stand_before(world: World) -> None:
    """FreeU and the like write into h; guidance reads before them, and so does the recorder."""

    def in_place(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if options["block"] == ("output", 0):
            h[:, : h.shape[1] // 2] *= 1.5
        return h, skip

    model = world.model.clone()
    model.set_model_output_block_patch(in_place)
    plain, patched = rows_of(world.node("plain", images=2)[0])[0][0], rows_of(world.node("patched", images=2, model=model)[0])[0][0]
    assert torch.equal(plain[0], patched[0]) and not torch.equal(plain[1], patched[1])
