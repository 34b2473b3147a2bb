"""Distribution guidance in the host's own samplers, on a small random model with a random ADP."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise_nodes import execute
from equipoise_spy import Spy
from equipoise_world import Broken, N, World, breaking, far, placed, sentence
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "long")}
MIDDLE, UP, CHANNELS = "middle", "output.1", 64


@pytest.fixture
def adp(prompt: Any) -> Any:
    """Eyeglasses are moved at the middle block, hair at an up block."""
    return random_adp(ATTRIBUTES, CHANNELS, {"hair": (UP, CHANNELS)}, "tiny", size=0.3)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, prompt: Any) -> Spy:
    return Spy(monkeypatch)


@pytest.fixture(params=["packed", "classes"])
def world(request: pytest.FixtureRequest, prompt: Any) -> World:
    """An unconditional model with 12 channels; a class-conditional one with classifier-free guidance."""
    return World(prompt, request.param)


@pytest.fixture
def classes(prompt: Any) -> World:
    return World(prompt, "classes")


def target(text: str = "eyeglasses x hair: uniform") -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, ATTRIBUTES)


def guide(model: Any, adp: Any, text: str = "eyeglasses x hair: uniform", finished: list[Any] | None = None, **settings: Any) -> Any:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.guidance.run import GuidanceSettings

    on_finish = None if finished is None else lambda run: finished.append(run.summary())
    return apply_guidance(model, adp, GuidanceSettings(target(text), **settings), on_finish)


# -- off -----------------------------------------------------------------------------------------------------------------------------


def test_guidance_reaches_the_image_and_its_quotas(world: World, adp: Any, spy: Spy) -> None:
    plain = world.sample()
    finished: list[Any] = []
    guided = world.sample(guide(world.model, adp, finished=finished))
    assert guided.isfinite().all() and all(far(g, p) for g, p in zip(guided, plain, strict=True))
    assert Counter(finished[0].cells.tolist()) == {0: 1, 1: 1, 2: 1, 3: 1} and finished[0].counts == [1] * 4
    assert {call.site for call in spy.calls} == {MIDDLE, UP}
    assert {call.shape[1:] for call in spy.at(MIDDLE)} == {(CHANNELS, 8, 8)}
    assert all(any(call.changed) for call in spy.calls)


@pytest.mark.parametrize(("start", "end", "strength"), [(0.0, 1.0, 0.0), (0.5, 0.5, 1.0), (0.7, 0.2, 1.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("mode", ["quota", "kl"])
def test_off_is_plain_sampling_bit_for_bit(world: World, adp: Any, start: float, end: float, strength: float, mode: str) -> None:
    from equipoise.nodes.guidance.distribution_guidance import DistributionGuidance

    before = placed(world.model)
    model = execute(
        DistributionGuidance, world.model, adp, target(), mode, strength, start, end, "cond", "calibrated", "auto", 3
    ).result[0]
    assert model is not world.model and placed(model) == before == placed(world.model)
    assert torch.equal(world.sample(model), world.sample())


@pytest.mark.parametrize("settings", [{"sigma_start": 1e-9}, {"sigma_end": 1e9}])
def test_a_window_that_no_call_falls_into_changes_no_bit(world: World, adp: Any, settings: dict[str, float], spy: Spy) -> None:
    plain = world.sample()
    assert torch.equal(world.sample(guide(world.model, adp, **settings)), plain)
    assert spy.calls and not any(any(call.changed) for call in spy.calls)


def test_a_window_bounds_the_calls_that_are_edited(world: World, adp: Any, spy: Spy) -> None:
    from equipoise.host.core.patch import window_sigmas

    high, low = window_sigmas(world.model, 0.3, 0.7)
    assert float("inf") > high > low > 0
    world.sample(guide(world.model, adp, sigma_start=high, sigma_end=low), steps=8)
    inside = [low <= call.sigma <= high for call in spy.calls]
    assert [any(call.changed) for call in spy.calls] == inside and 0 < sum(inside) < len(inside)


def test_a_sampler_beside_a_guided_one_is_not_touched(world: World, adp: Any, spy: Spy) -> None:
    before, options, carried = world.sample(), repr(world.model.model_options), placed(world.model)
    guided = guide(world.model, adp)
    first = world.sample(guided)
    assert torch.equal(world.sample(), before), "an unpatched sampler after a guided one"
    assert torch.equal(world.sample(guided), first), "the same patched model queued again"
    assert torch.equal(world.sample(guide(world.model, adp)), first), "the same graph built again"
    assert repr(world.model.model_options) == options and placed(world.model) == carried
    gc.collect()
    assert spy.alive == 0, "a run outlived its sampling"


def test_inputs_are_not_written_to(classes: World, adp: Any) -> None:
    from equipoise.host.core.sampling import SamplerSettings
    from equipoise.host.guidance.sampling import GuidedSampling, guided_ksample
    from equipoise.methods.guidance.run import GuidanceSettings

    latent = classes.empty(N)
    kept, conds = {k: v.clone() for k, v in latent.items()}, repr((classes.positive, classes.negative))
    sampler = SamplerSettings(5, 3, 3.0, "euler", "normal")
    settings = GuidedSampling(GuidanceSettings(target()), sampler)
    guided_ksample(classes.model, adp, settings, classes.positive, classes.negative, latent)
    assert latent.keys() == kept.keys() and all(torch.equal(latent[k], v) for k, v in kept.items())
    assert repr((classes.positive, classes.negative)) == conds


# -- errors and leaks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_call", [1, 2])
@pytest.mark.parametrize("mode", ["quota", "chi-square"])
def test_an_error_inside_sampling_leaves_nothing_behind(world: World, adp: Any, spy: Spy, at_call: int, mode: str) -> None:
    plain = world.sample()
    guided = guide(world.model, adp, mode=mode)
    wanted = world.sample(guided)
    broken = breaking(guided, at_call)
    options = repr(broken.model_options)
    with pytest.raises(Broken, match="^a later patch gave up$") as error:
        world.sample(broken)
    # The traceback still holds the run; its tensors are gone all the same.
    held = [run() for run in spy.runs if run() is not None]
    assert held and all(run._predictor is None and not run._read and not run._on_device for run in held)
    del held, error
    gc.collect()
    assert spy.alive == 0
    assert repr(broken.model_options) == options
    assert torch.equal(world.sample(), plain)
    assert torch.equal(world.sample(guided), wanted)


def test_clones_share_patch_and_weights(classes: World, adp: Any) -> None:
    guided = guide(classes.model, adp)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    before = tensors()
    clones = [guided]
    for _ in range(5):
        clones.append(clones[-1].clone())
    assert tensors() == before
    patches = [c.model_options["transformer_options"]["patches"]["output_block_patch"] for c in clones]
    assert all(p[0] is patches[0][0] for p in patches) and len({id(p) for p in patches}) == len(patches)
    wrappers = [[w for ws in c.wrappers["outer_sample"].values() for w in ws] for c in clones]
    assert all(w[0] is wrappers[0][0] for w in wrappers)
    assert torch.equal(classes.sample(clones[-1]), classes.sample(guided))


# -- samplers and rows ---------------------------------------------------------------------------------------------------------------

CALLS = {"euler": 4, "heun": 7, "dpmpp_2s_ancestral": 7, "dpmpp_2m": 4, "ddim": 4, "uni_pc": 4, "dpm_2": 7}
"""U-Net calls of four steps, by sampler."""


@pytest.mark.parametrize("sampler", CALLS)
def test_samplers_with_one_or_two_calls_a_step(classes: World, adp: Any, spy: Spy, sampler: str) -> None:
    finished: list[Any] = []
    guided = guide(classes.model, adp, finished=finished)
    image = classes.sample(guided, sampler=sampler, steps=4)
    assert image.isfinite().all() and far(image, classes.sample(sampler=sampler, steps=4))
    assert sorted(finished[0].cells.tolist()) == [0, 1, 2, 3]
    assert len(spy.at(MIDDLE)) == len(spy.at(UP)) == len(finished[0].readings.log_snr) == CALLS[sampler]
    assert spy.chunks(MIDDLE) == spy.chunks(UP) == {(0, True), (1, False)}
    assert torch.equal(classes.sample(guided, sampler=sampler, steps=4), image)


def short_of_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.model.model, "memory_required", lambda *args, **kwargs: 1e30)


@pytest.mark.parametrize("mode", ["quota", "kl"])
def test_rows_in_calls_of_their_own_give_the_same_image(
    classes: World, adp: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    guided = guide(classes.model, adp, mode=mode, strength=1.0 if mode == "quota" else 0.01)
    together = classes.sample(guided)
    assert {call.marks for call in spy.calls} == {(1, 0)}
    spy.calls.clear()
    short_of_memory(classes, monkeypatch)
    apart = classes.sample(guided)
    assert {call.marks for call in spy.calls} == {(0,), (1,)}
    assert all(any(call.changed) == (call.marks == (0,)) for call in spy.calls)
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-3)
    assert far(apart, classes.sample())


def test_rows_of_the_negative_too_and_apart(classes: World, adp: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[Any] = []
    guided = guide(classes.model, adp, finished=finished, rows="cond+uncond")
    both = classes.sample(guided)
    assert spy.chunks() == spy.chunks(UP) == {(0, True), (1, True)}
    assert far(both, classes.sample(guide(classes.model, adp)))
    short_of_memory(classes, monkeypatch)
    spy.calls.clear()
    classes.sample(guided)
    assert torch.equal(finished[0].cells, finished[1].cells)
    # The host asks for the negative first: it waits for the first reading, once.
    assert [call.by_chunk[0] for call in spy.at(MIDDLE)] == [(1, False), (0, True), (1, True), (0, True), (1, True), (0, True)]


def test_without_classifier_free_guidance(classes: World, adp: Any, spy: Spy) -> None:
    guided = classes.sample(guide(classes.model, adp), cfg=1.0)
    assert {call.marks for call in spy.calls} == {(0,)} and spy.chunks() == {(0, True)}
    assert far(guided, classes.sample(cfg=1.0))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_batches_of_any_size(world: World, adp: Any, n: int) -> None:
    finished: list[Any] = []
    image = world.sample(guide(world.model, adp, "eyeglasses: yes=0.5", finished=finished), n=n)
    assert image.shape[0] == n and image.isfinite().all()
    assert sum(finished[0].cells.tolist()) in {n // 2, -(-n // 2)}


def test_two_positives(classes: World, adp: Any, spy: Spy) -> None:
    both = [*classes.positive, *classes.label(1)]
    classes.sample(guide(classes.model, adp), positive=both)
    assert {call.marks for call in spy.calls} == {(1, 0, 0)}
    assert {tuple(call.by_chunk) for call in spy.calls} == {((1, False), (0, True), (0, True))}


def test_a_positive_with_an_area_does_not_make_the_negative_a_positive(classes: World, adp: Any, spy: Spy) -> None:
    """The host copies it to the other side, with the identity it has."""
    part = [[classes.positive[0][0], {**classes.positive[0][1], "area": (8, 8, 4, 4)}]]
    classes.sample(guide(classes.model, adp), positive=[*part, *classes.label(1)])
    assert {call.shape[-1] for call in spy.at(MIDDLE)} == {4, 8}
    assert spy.chunks() == spy.chunks(UP) == {(0, True), (1, False)}


def test_a_guider_that_numbers_the_negative_0(classes: World, adp: Any, spy: Spy) -> None:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    model = guide(classes.model, adp)
    guider = Guider_DualCFG(model)
    guider.set_conds(classes.positive, classes.label(1), classes.negative)
    guider.set_cfg(3.0, 2.0)
    latent = classes.empty(N)["samples"]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 3)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    assert spy.chunks() == {(0, False), (1, True), (2, True)}


# -- other patches -------------------------------------------------------------------------------------------------------------------


def in_place(model: Any) -> Any:
    """As FreeU does: writes into h at the first up block."""

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if options["block"] == ("output", 0):
            h[:, : h.shape[1] // 2] *= 1.5
        return h, skip

    clone = model.clone()
    clone.set_model_output_block_patch(patch)
    return clone


def test_a_patch_that_writes_into_h_may_stand_on_either_side(world: World, adp: Any) -> None:
    finished: list[Any] = []
    after = world.sample(in_place(guide(world.model, adp, finished=finished)))
    before = world.sample(guide(in_place(world.model), adp, finished=finished))
    world.sample(guide(world.model, adp, finished=finished))
    assert torch.equal(after, before)
    first = [run.readings.shares[0] for run in finished]
    assert first[0] == first[1] == first[2], "the ADP reads the network's own h"
    assert far(after, world.sample(guide(world.model, adp)))


def test_two_guidance_nodes_in_a_row_both_act(world: World, adp: Any) -> None:
    runs: list[list[Any]] = [[], []]
    one = guide(world.model, adp, "eyeglasses: yes=1, no=0", runs[0])
    both = guide(one, adp, "hair: long=1, short=0", runs[1])
    image = world.sample(both)
    assert [run[0].cells.tolist() for run in runs] == [[1] * N, [1] * N]
    assert far(image, world.sample(one)) and far(image, world.sample(guide(world.model, adp, "hair: long=1, short=0")))
    assert torch.equal(world.sample(both), image)


# -- the node with a sampler of its own ----------------------------------------------------------------------------------------------


class Labels:
    """A classifier that is told what to read: one list of class indices per round and attribute."""

    attributes = {"hair": ("long", "short"), "eyeglasses": ("yes", "no"), "age": ("young", "old")}

    def __init__(self, rounds: list[dict[str, list[int]]]) -> None:
        self.rounds, self.seen = rounds, []

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        self.seen.append(images.clone())
        read = self.rounds[len(self.seen) - 1]
        return {a: torch.nn.functional.one_hot(torch.tensor(c), 2).float() for a, c in read.items()}


VAE = SimpleNamespace(decode=lambda samples: samples)


def run_node(world: World, adp: Any, n: int = N, **given: Any) -> tuple[Tensor, str, dict[str, Any]]:
    """Samples, report and assigned of Distribution Guidance KSampler; the joint uniform target unless one is given."""
    from equipoise.nodes.guidance.distribution_guidance_ksampler import DistributionGuidanceKSampler

    settings: dict[str, Any] = {
        "seed": 5, "steps": 3, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "mode": "quota",
        "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated", "assign": "auto", "repair": 0,
    }  # fmt: skip
    out = DistributionGuidanceKSampler.execute(
        model=world.model, positive=world.positive, negative=world.negative, latent_image=world.empty(n), adp=adp,
        target=given.pop("target", None) or target(), **(settings | given),
    ).result  # fmt: skip
    return out[0]["samples"], out[1], json.loads(out[2])


def test_the_sampler_node_is_the_patch_and_ksampler_bit_for_bit(world: World, adp: Any) -> None:
    from equipoise.nodes.guidance.distribution_guidance import DistributionGuidance

    for mode, direction in (("quota", "calibrated"), ("quota", "adp-gradient"), ("kl", "calibrated")):
        patched = execute(DistributionGuidance, world.model, adp, target(), mode, 0.7, 0.0, 0.9, "cond", direction, "auto", 5).result[0]
        image, report, assigned = run_node(world, adp, mode=mode, strength=0.7, end_percent=0.9, direction=direction)
        assert torch.equal(image, world.sample(patched))
        if mode == "quota":
            assert "assigned 4 images: no/short: 1, no/long: 1, yes/short: 1, yes/long: 1" in report
            assert sorted(assigned["assigned"]) == sorted(target().names) and assigned["attributes"] == ["eyeglasses", "hair"]
        else:
            assert assigned["assigned"] is None and "last reading of hair" in report
    assert torch.equal(run_node(world, adp, strength=0.0)[0], world.sample())


def classes_of(assigned: list[str]) -> dict[str, list[int]]:
    """Assigned cells "yes/long" -> class indices in the order of Labels.attributes."""
    parts = [cell.split("/") for cell in assigned]
    return {"eyeglasses": [("yes", "no").index(g) for g, _ in parts], "hair": [("long", "short").index(h) for _, h in parts]}


def flipped(read: dict[str, list[int]], images: list[int], attribute: str) -> dict[str, list[int]]:
    return read | {attribute: [1 - c if i in images else c for i, c in enumerate(read[attribute])]}


def test_repair_makes_again_only_what_missed(world: World, adp: Any) -> None:
    first, _, assigned = run_node(world, adp)
    right = classes_of(assigned["assigned"])
    labels = Labels([flipped(right, [0, 2], "hair"), flipped(right, [2], "eyeglasses"), right])
    image, report, after = run_node(world, adp, repair=5, vae=VAE, classifier=labels)
    assert after == assigned | {"missed": 0}
    assert "repair round 1: 2 images sampled again" in report and "repair round 2: 1 images sampled again" in report
    assert "round 3" not in report and "missed their class, by the classifier: 0" in report
    assert len(labels.seen) == 3 and torch.equal(labels.seen[0], first) and torch.equal(labels.seen[2], image)
    assert torch.equal(image[[1, 3]], first[[1, 3]]), "images that hit are kept bit for bit"
    assert torch.equal(labels.seen[1][[1, 3]], first[[1, 3]])
    assert far(labels.seen[1][0], first[0]) and far(labels.seen[1][2], first[2])
    assert torch.equal(image[0], labels.seen[1][0]), "made again once, and hit"
    assert far(image[2], labels.seen[1][2])
    assert torch.equal(run_node(world, adp, repair=5, vae=VAE, classifier=Labels(labels.rounds))[0], image)


def test_every_round_of_repair_has_a_seed_of_its_own(world: World, adp: Any) -> None:
    _, _, assigned = run_node(world, adp)
    right = classes_of(assigned["assigned"])
    labels = Labels([flipped(right, [0, 2], "hair"), flipped(right, [0, 2], "hair"), right])
    run_node(world, adp, repair=2, vae=VAE, classifier=labels)
    for image in (0, 2):
        one, two, three = (seen[image] for seen in labels.seen)
        assert far(one, two) and far(two, three) and far(one, three)


def test_an_image_made_again_is_moved_to_the_class_it_had(classes: World, adp: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.methods.guidance.run import GuidanceRun

    cells: list[list[int]] = []
    release = GuidanceRun.release
    monkeypatch.setattr(GuidanceRun, "release", lambda run: (cells.append(run.cells.tolist()), release(run))[1])
    _, _, assigned = run_node(classes, adp)
    right = classes_of(assigned["assigned"])
    run_node(classes, adp, repair=1, vae=VAE, classifier=Labels([flipped(right, [1, 2], "hair"), right]))
    assert cells[0] == cells[1] and cells[2] == [cells[0][1], cells[0][2]]


def test_without_repair_misses_are_counted(world: World, adp: Any) -> None:
    _, _, assigned = run_node(world, adp)
    labels = Labels([flipped(classes_of(assigned["assigned"]), [0, 1, 3], "hair")])
    image, report, after = run_node(world, adp, vae=VAE, classifier=labels)
    assert after["missed"] == 3 and "missed their class, by the classifier: 3" in report and "sampled again" not in report
    assert torch.equal(image, run_node(world, adp)[0])


def test_repair_ends_with_its_rounds(world: World, adp: Any) -> None:
    _, _, assigned = run_node(world, adp)
    wrong = flipped(classes_of(assigned["assigned"]), [0], "hair")
    _, report, after = run_node(world, adp, repair=2, vae=VAE, classifier=Labels([wrong] * 3))
    assert report.count("sampled again") == 2 and after["missed"] == 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_batch_smaller_than_the_number_of_classes_works_and_says_so(world: World, adp: Any, n: int) -> None:
    image, report, assigned = run_node(world, adp, n=n)
    assert image.isfinite().all() and len(set(assigned["assigned"])) == n
    said = [line for line in report.splitlines() if "cannot show" in line]
    assert said == [f"{n} images cannot show all 4 classes of the target: the seed decided how the quotas were rounded."]
    drawn = {tuple(sorted(run_node(world, adp, n=1, seed=seed)[2]["assigned"])) for seed in range(12)}
    assert len(drawn) == 4, "every cell has its turn"
    assert "cannot show" not in run_node(world, adp)[1]
    assert "cannot show" not in run_node(world, adp, n=1, target=target("eyeglasses: yes=1, no=0"))[1]


def test_guidance_that_could_not_act_says_so(world: World, adp: Any) -> None:
    narrow = random_adp(ATTRIBUTES, CHANNELS, base_model="tiny", window=True)
    image, report, assigned = run_node(world, narrow, end_percent=0.01)
    assert "guidance did nothing: no sampling step was at a noise level" in report and assigned["assigned"] is None
    assert torch.equal(image, world.sample())
    assert "did nothing" not in run_node(world, narrow)[1]
    off = run_node(world, adp, strength=0.0)[1]
    assert "did nothing" not in off, "it was switched off"
    soft = run_node(world, adp, mode="kl", repair=1, vae=VAE, classifier=Labels([]))[1]
    assert "nothing was repaired" in soft and "did nothing" not in soft


# -- bad input -----------------------------------------------------------------------------------------------------------------------


def test_an_adp_of_another_model_is_refused(world: World) -> None:
    from equipoise.nodes.guidance.distribution_guidance import DistributionGuidance

    def refused(adp: Any) -> str:
        with pytest.raises(ValueError) as error:
            execute(DistributionGuidance, world.model, adp, target(), "quota", 1.0, 0.0, 1.0, "cond", "calibrated", "auto", 0)
        with pytest.raises(ValueError) as again:
            run_node(world, adp)
        assert str(again.value) == str(error.value)
        return sentence(error)

    text = refused(random_adp(ATTRIBUTES, CHANNELS, base_model="sd15"))
    assert "made for 'sd15'" in text and "is 'tiny'" in text
    text = refused(random_adp(ATTRIBUTES, 1280, base_model="tiny"))
    assert "1280 channels at 'middle'" in text and "has 64" in text
    text = refused(random_adp(ATTRIBUTES, CHANNELS, {"hair": ("output.2", CHANNELS)}, "tiny"))
    assert "64 channels at 'output.2'" in text and "has 32" in text
    for site in ("output.3", "output.11", "input.1"):
        text = refused(random_adp(ATTRIBUTES, CHANNELS, {"hair": (site, CHANNELS)}, "tiny"))
        assert f"acts at '{site}'" in text and "only middle, output.0, output.1, output.2:" in text


def test_a_model_without_a_middle_block_is_refused(adp: Any, prompt: Any) -> None:
    for network in (torch.nn.Linear(2, 2), torch.nn.Module()):
        network.middle_block = None
        model = SimpleNamespace(model=SimpleNamespace(diffusion_model=network))
        with pytest.raises(ValueError, match="no U-Net middle block") as error:
            guide(model, adp)
        sentence(error)


@pytest.fixture
def adp_file(host: Any, adp: Any) -> Any:
    """Write an ADP file into the host's folder, changed as asked; removed afterwards."""
    from equipoise.models.adp import save_adp
    from equipoise.models.files import read_safetensors, write_safetensors

    path = host.base / "models" / "equipoise" / "adp" / "test_guidance.safetensors"

    def write(change: Callable[[dict[str, str]], Any] | None = None, keep: float = 1.0) -> str:
        save_adp(adp, path)
        if change:
            tensors, meta = read_safetensors(path)
            change(meta)
            write_safetensors(path, tensors, meta)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole))])
        return path.name

    yield write
    path.unlink(missing_ok=True)


def test_load_adp(world: World, adp: Any, adp_file: Any) -> None:
    from equipoise.nodes.adp.load_adp import LoadADP

    name = adp_file()
    loaded, text = LoadADP.execute(name).result
    assert "ADP for tiny (mlp, 64 channels)" in text and "moved at output.1" in text
    assert far(run_node(world, loaded)[0], world.sample())
    one = LoadADP.fingerprint_inputs(name)
    assert one == LoadADP.fingerprint_inputs(name)
    adp_file(lambda meta: meta.update(note="longer"))
    assert LoadADP.fingerprint_inputs(name) != one


@pytest.mark.parametrize(
    ("change", "keep", "parts"),
    [
        (lambda meta: meta.pop("format"), 1.0, ("is not an ADP", "'equipoise-adp'")),
        (lambda meta: [meta.pop(k) for k in ("attributes", "moves")], 1.0, ("lacks the metadata attributes, moves", "download it again")),
        (lambda meta: meta.update(channels="32"), 1.0, ("does not fit its own metadata", "damaged")),
        (None, 0.6, ("is not a whole safetensors file", "download it again")),
        (None, 0.001, ("is not a whole safetensors file",)),
        (None, 0.0, ("is not a whole safetensors file",)),
    ],
    ids=["not an ADP", "missing metadata", "wrong width", "truncated", "truncated header", "empty"],
)
def test_a_bad_adp_file_is_refused(adp_file: Any, change: Any, keep: float, parts: tuple[str, ...]) -> None:
    from equipoise.nodes.adp.load_adp import LoadADP

    name = adp_file(change, keep)
    with pytest.raises(ValueError) as error:
        LoadADP.execute(name)
    text = sentence(SimpleNamespace(value=str(error.value).replace(name, "FILE")))
    assert "'FILE'" in text and all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("attribute", "weights", "parts"),
    [
        ("eyeglasses", "yes=-0.5, no=0.5", ("not negative", "-0.5")),
        ("eyeglasses", "yes=0, no=0", ("all the weights", "above 0")),
        ("eyeglasses", "yes=0.5, perhaps=0.5", ("'perhaps'", "known: no, yes")),
        ("beard", "yes=0.5, no=0.5", ("'beard'", "known: eyeglasses, hair")),
    ],
)
def test_bad_targets_are_refused(adp: Any, attribute: str, weights: str, parts: tuple[str, ...]) -> None:
    from equipoise.nodes.guidance.target_distribution import TargetDistributionNode

    with pytest.raises(ValueError) as error:
        TargetDistributionNode.execute(attribute, "weights", weights, adp)
    text = sentence(error)
    assert all(part in text for part in parts), text


def test_weights_are_normalised_and_it_is_said(world: World, adp: Any) -> None:
    from equipoise.nodes.guidance.target_distribution import TargetDistributionNode

    chosen, text = TargetDistributionNode.execute("eyeglasses", "weights", "yes=3\nno=1", adp).result
    assert chosen.shares == (0.25, 0.75) and chosen.attributes == ("eyeglasses",)
    assert text == "eyeglasses: no=0.25, yes=0.75\nthe weights sum to 4 and were divided by it"
    _, report, assigned = run_node(world, adp, target=chosen)
    assert Counter(assigned["assigned"]) == {"yes": 3, "no": 1} and "divided by it" in report


def test_a_joint_target_of_two(adp: Any) -> None:
    from equipoise.nodes.guidance.target_distribution import TargetDistributionNode

    one = ("eyeglasses", "weights", "yes=0.3, no=0.7", adp)
    two = TargetDistributionNode.execute("hair", "uniform", "", adp).result[0]
    joint, text = TargetDistributionNode.execute(*one, with_target=two).result
    assert joint.attributes == ("eyeglasses", "hair") and joint.shares == pytest.approx((0.35, 0.35, 0.15, 0.15))
    assert text.startswith("eyeglasses x hair: no/short=0.35")
    with pytest.raises(ValueError, match="both targets speak of 'eyeglasses'") as error:
        TargetDistributionNode.execute(*one, with_target=joint)
    sentence(error)


def test_a_target_made_without_the_adp_is_checked_against_it_before_sampling(world: World, adp: Any, spy: Spy) -> None:
    from equipoise.nodes.guidance.distribution_guidance import DistributionGuidance
    from equipoise.nodes.guidance.target_distribution import TargetDistributionNode

    for attribute, weights, part in (("beard", "yes=1, no=1", "'beard'"), ("eyeglasses", "sun=1, no=1", "'sun'")):
        unknown = TargetDistributionNode.execute(attribute, "weights", weights).result[0]
        with pytest.raises(ValueError, match=part) as error:
            run_node(world, adp, target=unknown)
        sentence(error)
        with pytest.raises(ValueError, match=part):
            execute(DistributionGuidance, world.model, adp, unknown, "quota", 0.0, 0.0, 1.0, "cond", "calibrated", "auto", 0)
    assert not spy.calls


def test_repair_without_eyes_is_refused(world: World, adp: Any, spy: Spy) -> None:
    with pytest.raises(ValueError, match="connect a VAE and a classifier") as error:
        run_node(world, adp, repair=1)
    sentence(error)
    blind = SimpleNamespace(attributes={"eyeglasses": ("yes", "no"), "age": ("young", "old")})
    with pytest.raises(ValueError, match="does not know 'hair' with the classes short, long") as error:
        run_node(world, adp, repair=1, vae=VAE, classifier=blind)
    sentence(error)
    assert not spy.calls
