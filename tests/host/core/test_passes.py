"""A batch drawn in passes is the batch drawn at once, and what is finished outlives a cancelled run."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise_spy import Spy
from equipoise_world import Broken, World, breaking, far
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "medium", "long")}
MIDDLE, UP, CHANNELS, N = "middle", "output.1", 64, 5


@pytest.fixture
def adp(prompt: Any) -> Any:
    """Reads at the middle block, once the noise is low enough; moves there and at an up block."""
    made = random_adp(ATTRIBUTES, CHANNELS, {"hair": (UP, CHANNELS)}, "tiny", size=0.3, window=True)
    for temperature in made.predictor.temperature.values():
        temperature.data.fill_(50.0)  # readings that are sure of themselves are ties, which rounding decides
    return made


@pytest.fixture
def classes(prompt: Any) -> World:
    return World(prompt, "classes")


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, prompt: Any) -> Spy:
    return Spy(monkeypatch)


def target(text: str = "eyeglasses x hair: uniform") -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, ATTRIBUTES)


def drawn(world: World, adp: Any, size: int = 0, key: str | None = None, **given: Any) -> tuple[Tensor, Any]:
    """Samples and outcome of N images, ``size`` at a time."""
    latent, outcome = drawn_latent(world, adp, size, key, **given)
    return latent["samples"], outcome


def drawn_latent(world: World, adp: Any, size: int = 0, key: str | None = None, **given: Any) -> tuple[dict[str, Any], Any]:
    """LATENT and outcome of N images, ``size`` at a time."""
    from equipoise.host.core.sampling import SamplerSettings
    from equipoise.host.guidance.sampling import GuidedSampling, guided_ksample
    from equipoise.methods.guidance.run import GuidanceSettings

    settings = {k: given.pop(k) for k in ("mode", "assign", "strength", "cells") if k in given}
    guidance = GuidanceSettings(given.pop("target", None) or target(), seed=5, **settings)
    sampler = SamplerSettings(5, given.pop("steps", 4), 3.0, given.pop("sampler", "euler"), "normal", given.pop("denoise", 1.0))
    positive, negative = given.pop("positive", world.positive), given.pop("negative", world.negative)
    latent, model = given.pop("latent", None) or world.empty(N), given.pop("model", world.model)
    chosen = GuidedSampling(guidance, sampler, given.pop("repair", 0), size, key, given.pop("ledger", None))
    out, outcome = guided_ksample(model, adp, chosen, positive, negative, latent, **given)
    assert out["samples"].shape[0] == latent["samples"].shape[0]
    return out, outcome


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


# -- the same as at once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", ["reading", "seeded"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_passes_are_the_batch_drawn_at_once(classes: World, adp: Any, spy: Spy, assign: str, size: int) -> None:
    whole, at_once = drawn(classes, adp, assign=assign)
    assert far(whole, classes.sample(n=N, steps=4))
    spy.calls.clear()
    parts, outcome = drawn(classes, adp, size, assign=assign)
    close(parts, whole)
    assert outcome.cells == at_once.cells and len(Counter(at_once.cells)) == N
    for attribute, shares in at_once.readings.items():
        assert outcome.readings[attribute] == pytest.approx(shares, abs=1e-3)
    assert max(call.shape[0] for call in spy.calls) == 2 * size
    assert f"{N} images were sampled in {-(-N // size)} passes: one quota for the whole batch." in outcome.text()
    plain_calls, passes = 4 * 2, -(-N // size)
    extra = len(spy.calls) - plain_calls * passes
    assert extra == 0 if assign == "seeded" else 0 < extra < plain_calls * passes, "a reading ends where classes are given"


@pytest.mark.parametrize("picks", [[3], [4, 0], [0, 1, 2, 3, 4]])
def test_a_second_pass_over_picked_images_keeps_their_classes(classes: World, adp: Any, picks: list[int]) -> None:
    first, outcome = drawn_latent(classes, adp)
    again = {**first, "samples": first["samples"][picks]}
    _, later = drawn(classes, adp, latent=again, denoise=0.5)
    assert later.cells == [outcome.cells[i] for i in picks] and "kept the class" in later.text()
    assert len(first) == len(classes.empty(N)) + 1, "the latent that came in stays as it was"
    _, other = drawn(classes, adp, latent=again, denoise=0.5, target=target("eyeglasses: uniform"))
    assert "kept the class" not in other.text()


NOISY = ["euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde_gpu", "er_sde", "lcm", "ddim", "uni_pc", "dpmpp_2s_ancestral"]


@pytest.mark.parametrize("sampler", NOISY)
def test_noise_on_the_way_is_that_of_the_whole_batch(classes: World, adp: Any, sampler: str) -> None:
    whole, _ = drawn(classes, adp, sampler=sampler, assign="seeded")
    parts, _ = drawn(classes, adp, 2, sampler=sampler, assign="seeded")
    close(parts, whole)
    assert all(far(parts[i], parts[j]) for i in range(N) for j in range(i))


def test_masks_and_noise_indices_are_the_images_own(classes: World, adp: Any) -> None:
    latent = classes.empty(N)
    begun = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(2, 1, 16, 16)
    masks[0, :, :, :8] = masks[1, :, 4:, :] = 1.0
    for given in (
        {"latent": {**latent, "samples": begun, "noise_mask": masks}, "denoise": 0.7},
        {"latent": {**latent, "batch_index": [7, 7, 2, 0, 4]}},
    ):
        whole, _ = drawn(classes, adp, assign="seeded", **given)
        close(drawn(classes, adp, 2, assign="seeded", **given)[0], whole)
        assert far(whole, drawn(classes, adp, assign="seeded")[0]), "what is the images' own has an effect"


def test_conditionings_are_the_images_own(prompt: Any) -> None:
    from equipoise.host.core.passes.batch_slices import conditioning_rows

    several = {"pooled_output": torch.arange(10.0).view(5, 2), "mask": torch.arange(8.0).view(2, 2, 2)}
    entry = {**several, "strength": 0.5, "one": torch.ones(1, 3)}
    conditioning = [[torch.arange(30.0).view(5, 2, 3), entry], [torch.ones(1, 2, 3), {}]]
    (tokens, picked), (shared, empty) = conditioning_rows(conditioning, [4, 1], 5)
    assert torch.equal(tokens, conditioning[0][0][[4, 1]]) and shared is conditioning[1][0] and empty == {}
    assert torch.equal(picked["pooled_output"], entry["pooled_output"][[4, 1]]) and picked["one"] is entry["one"]
    assert torch.equal(picked["mask"], entry["mask"][[0, 1]]), "two masks for five images are repeated, as the host does"
    assert picked["strength"] == 0.5 and entry["pooled_output"].shape == (5, 2)


def test_a_controlnets_hints_are_the_images_own(prompt: Any) -> None:
    from equipoise.host.core.passes.batch_slices import conditioning_rows

    class Control:
        def __init__(self, hint: Tensor, before: Any = None) -> None:
            self.cond_hint_original, self.extra_concat_orig, self.previous_controlnet = hint, [], before

        def copy(self) -> Any:
            return Control(self.cond_hint_original)

        def set_previous_controlnet(self, before: Any) -> None:
            self.previous_controlnet = before

    first, last = Control(torch.arange(5.0)[:, None]), Control(torch.ones(1, 1))
    last.previous_controlnet = first
    conditioning = [[torch.ones(1, 2, 3), {"control": last}], [torch.ones(1, 2, 3), {"control": last, "strength": 0.5}]]
    one, two = conditioning_rows(conditioning, [3, 4], 5)
    made = one[1]["control"]
    assert made is two[1]["control"] and made is not last and two[1]["strength"] == 0.5
    assert made.previous_controlnet.cond_hint_original.flatten().tolist() == [3.0, 4.0]
    assert made.cond_hint_original is last.cond_hint_original and last.previous_controlnet is first
    assert first.cond_hint_original.shape[0] == 5 and conditioning_rows(conditioning, range(5), 5) is conditioning


def test_every_patch_of_ours_keeps_its_quotas_over_all(classes: World, adp: Any) -> None:
    """A steer with a target of its own stands on the MODEL: one of them by reading, one from the seed."""
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.methods.bias_features.run import SteerSettings

    sae = random_sae(CHANNELS, UP, "tiny")
    bias = random_bias(sae, ATTRIBUTES)
    for reader, assign in ((None, "seeded"), (adp, "reading")):
        seen: list[Any] = []
        settings = SteerSettings(target("eyeglasses: yes=0.4, no=0.6"), seed=3, assign=assign)
        model = apply_steering(
            classes.model, sae, bias, settings, reader, on_finish=lambda run, seen=seen: seen.append(run.summary())
        )
        whole, at_once = drawn(classes, adp, model=model, assign="reading")
        parts, outcome = drawn(classes, adp, 2, model=model, assign="reading")
        close(parts, whole)
        assert outcome.cells == at_once.cells and Counter(seen[0].cells.tolist()) == {0: 3, 1: 2}
        by_image = {row: cell for run in seen[1:] for row, cell in zip(run.image_index, run.cells.tolist(), strict=True)}
        assert [by_image[i] for i in range(N)] == seen[0].cells.tolist()


def test_what_assigns_nothing_is_drawn_in_passes_too(classes: World, adp: Any) -> None:
    close(drawn(classes, adp, 2, strength=0.0)[0], classes.sample(n=N, steps=4))
    soft, outcome = drawn(classes, adp, 2, mode="kl", strength=0.01)
    assert outcome.cells is None and "mode 'kl' uses the mean of each pass" in outcome.text() and soft.isfinite().all()


def test_images_made_again_are_those_of_the_whole_batch(classes: World, adp: Any) -> None:
    def again(size: int) -> tuple[Tensor, Any]:
        rounds: list[int] = []

        def classify(samples: Tensor) -> dict[str, Tensor]:
            """All images missed in the first round, and the last in the second."""
            rounds.append(1)
            cells = target().reordered(ATTRIBUTES)
            wanted = [cells.cell_classes(c) for c in reference.cells]
            bad = range(N) if len(rounds) == 1 else [N - 1] if len(rounds) == 2 else []
            read = {}
            for a, names in ATTRIBUTES.items():
                index = torch.tensor([(w[a] + (i in bad)) % len(names) for i, w in enumerate(wanted)])
                read[a] = torch.nn.functional.one_hot(index, len(names)).float()
            return read

        return drawn(classes, adp, size, assign="seeded", classify=classify, repair=4)

    reference = drawn(classes, adp, assign="seeded")[1]
    whole, at_once = again(0)
    parts, outcome = again(2)
    close(parts, whole)
    assert outcome.rounds == at_once.rounds == [N, 1] and outcome.missed == 0 and outcome.cells == reference.cells
    assert all(far(a, b) for a, b in zip(whole, drawn(classes, adp, assign="seeded")[0], strict=True))


@pytest.fixture
def bars(prompt: Any) -> Iterator[list[tuple[int, int, bool]]]:
    """What the host was told: (steps done, of how many, with a preview)."""
    import comfy.utils

    told: list[tuple[int, int, bool]] = []
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview=None, **_: told.append((value, total, preview is not None)))
    yield told
    comfy.utils.set_progress_bar_global_hook(before)


@pytest.mark.parametrize("assign", ["reading", "seeded"])
def test_progress_and_previews_are_those_of_the_whole(classes: World, adp: Any, bars: list[tuple[int, int, bool]], assign: str) -> None:
    drawn(classes, adp, 2, assign=assign)
    shares = [value / total for value, total, _ in bars]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(set(shares)) == len(shares)
    assert all(preview for _, _, preview in bars)
    assert bars[-1][1] == (12 if assign == "seeded" else 14), "two passes were read for a step, the third went on from there"


# -- cancelled -----------------------------------------------------------------------------------------------------------------------


def test_a_cancelled_run_keeps_what_is_finished(classes: World, adp: Any, host: Any, spy: Spy) -> None:
    import comfy.model_management

    wanted, outcome = drawn(classes, adp, 2, key="whole")
    folder = host.base / "output" / "equipoise" / "unfinished"
    assert not (folder / "whole").exists(), "nothing is left of a run that was drawn to its end"
    spy.calls.clear()
    with pytest.raises(Broken):  # the first two passes are read, the third goes on from its reading, and the second fails
        drawn(classes, adp, 2, key="cut", model=breaking(classes.model, calls_of(adp, classes)))
    kept = sorted(p.name for p in (folder / "cut").iterdir())
    assert kept == ["assigned.json", "pass_0001.latent", "pass_0003.latent"]
    from safetensors.torch import load_file

    assert torch.equal(load_file(folder / "cut" / "pass_0001.latent")["latent_tensor"], wanted[:2])
    assert json.loads((folder / "cut" / "assigned.json").read_text()) == [outcome.cells]
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        drawn(classes, adp, 2, key="cut")
    assert sorted(p.name for p in (folder / "cut").iterdir()) == kept
    spy.calls.clear()
    image, again = drawn(classes, adp, 2, key="cut")
    assert torch.equal(image, wanted) and again.cells == outcome.cells
    assert "3 images were finished before this run was cancelled" in again.text() and len(spy.calls) == 8, "one pass, and no reading"
    assert not (folder / "cut").exists()


def calls_of(adp: Any, world: World) -> int:
    """U-Net calls of the readings and of two passes, and the second of the third."""
    seen: list[int] = []

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        seen.append(options["block"] == ("output", 0))
        return h, skip

    clone = world.model.clone()
    clone.set_model_output_block_patch(patch)
    drawn(world, adp, 2, model=clone)
    return sum(seen) - 4 + 2


def test_a_ledger_counts_the_whole_batch_when_all_of_it_is_drawn(classes: World, adp: Any) -> None:
    from comfy_execution.utils import CurrentNodeContext
    from equipoise.host.ledger.ledgers import LedgerHandle

    ledger = LedgerHandle("passes")
    with CurrentNodeContext("cut", "4"), pytest.raises(Broken):
        drawn(classes, adp, 2, key="counted", model=breaking(classes.model, calls_of(adp, classes)), ledger=ledger)
    assert ledger.open().rows() == [], "what was cut off is reserved no longer, and nobody has its images"
    with CurrentNodeContext("again", "4"):
        _, outcome = drawn(classes, adp, 2, key="counted", ledger=ledger)
    assert "3 images were finished" in outcome.text()
    rows = ledger.open().rows()
    assert [(r["run"], r["node"], r["place"], r["state"]) for r in rows] == [("again", "4", i, "made") for i in range(5)]
    assert [r["assigned"] for r in rows] == [outcome.names[cell] for cell in outcome.cells]
    with CurrentNodeContext("next", "4"):
        _, outcome = drawn(classes, adp, 2, ledger=ledger)
    assert sorted(Counter(r["assigned"] for r in ledger.open().rows()).values()) == [1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("spoilt", ["assigned.json", "pass_0001.latent"])
def test_what_was_kept_and_is_damaged_is_drawn_again(classes: World, adp: Any, host: Any, spoilt: str) -> None:
    from equipoise.host.core.passes.pass_cache import PassCache

    wanted, outcome = drawn(classes, adp, 2)
    kept = PassCache("damaged")
    kept.write(0, torch.zeros_like(wanted[:2]) if spoilt == "assigned.json" else wanted[:2], [outcome.cells])
    (kept.folder / spoilt).write_bytes(b"[[0, 99" if spoilt.endswith("json") else b"\xff" * 40)
    image, again = drawn(classes, adp, 2, key="damaged")
    assert again.cells == outcome.cells and not kept.folder.exists()
    close(image, wanted)


def test_a_full_disk_stops_nothing(classes: World, adp: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from equipoise.host.core.passes import pass_cache

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pass_cache, "write_safetensors", full)
    image, _ = drawn(classes, adp, 2, key="full")
    assert torch.equal(image, drawn(classes, adp, 2)[0])
    assert caplog.text.count("finished passes cannot be saved") == 1


def test_a_run_is_known_by_all_that_stands_before_it(host: Any, prompt: Any) -> None:
    from equipoise.host.core.passes.pass_cache import run_key

    folder = host.base / "models" / "equipoise" / "adp"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "known.safetensors"
    file.write_bytes(b"one")

    def graph(**changed: Any) -> dict[str, Any]:
        return {
            "1": {"class_type": "EquipoiseLoadADP", "inputs": {"adp_name": "known.safetensors"}},
            "2": {"class_type": "Sampler", "inputs": {"adp": ["1", 0], "seed": 4, **changed}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": changed.get("after", "a")}},
        }

    latent = {"samples": torch.zeros(2, 3, 4, 4)}
    known = run_key(graph(), "2", latent)
    assert known and known == run_key(graph(), "2", latent)
    renumbered = {"7": graph()["1"], "2": {"class_type": "Sampler", "inputs": {"adp": ["7", 0], "seed": 4}}}
    assert run_key(renumbered, "2", latent) == known, "what follows, and the numbers of nodes, do not matter"
    assert run_key(graph(seed=5), "2", latent) != known
    assert run_key(graph(), "2", {"samples": torch.ones(2, 3, 4, 4)}) != known
    os.utime(file, ns=(1, 1))
    assert run_key(graph(), "2", latent) != known, "the file was replaced"
    file.unlink()
    assert run_key(None, "2") is None and run_key(graph(), "9") is None and run_key(graph(), None) is None
    loop = {"2": {"class_type": "Sampler", "inputs": {"adp": ["2", 0]}}}
    assert run_key(loop, "2")


def test_the_node_tells_its_run_from_others(classes: World, adp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.nodes.guidance import distribution_guidance_ksampler

    keys: list[Any] = []
    outcome = SimpleNamespace(cells=None, names=[], missed=None, text=lambda: "")

    def note(model: Any, adp: Any, settings: Any, *_: Any) -> Any:
        keys.append((settings.images_per_pass, settings.key))
        return {}, outcome

    monkeypatch.setattr(distribution_guidance_ksampler, "guided_ksample", note)
    node = distribution_guidance_ksampler.DistributionGuidanceKSampler
    graph = {"4": {"class_type": "EquipoiseDistributionGuidanceKSampler", "inputs": {"seed": 3}}}
    settings: dict[str, Any] = {
        "seed": 5, "steps": 3, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "mode": "quota",
        "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated", "assign": "auto", "repair": 0,
        "model": classes.model, "positive": classes.positive, "negative": classes.negative, "latent_image": classes.empty(2), "adp": adp,
        "target": target(),
    }  # fmt: skip
    for hidden in (None, SimpleNamespace(prompt=graph, unique_id="4"), SimpleNamespace(prompt=graph, unique_id="4")):
        monkeypatch.setattr(node, "hidden", hidden, raising=False)
        node.execute(**settings, images_per_pass=1)
    assert keys[0] == (1, None) and keys[1] == keys[2] and len(keys[1][1]) == 24


# -- image by image ------------------------------------------------------------------------------------------------------------------


def test_an_image_of_a_batch_is_the_image_alone(classes: World, adp: Any) -> None:
    """With the classes given, nothing of one image reaches another: guidance, guidance by the gradient, steering."""
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.bias_features.run import SteerSettings
    from equipoise.methods.guidance.run import GuidanceSettings

    sae = random_sae(CHANNELS, UP, "tiny")
    bias = random_bias(sae, ATTRIBUTES)
    cells = (0, 5, 3, 1, 2)

    def guided(chosen: tuple[int, ...], **more: Any) -> Any:
        return apply_guidance(classes.model, adp, GuidanceSettings(target(), cells=chosen, **more))

    def steered(chosen: tuple[int, ...]) -> Any:
        return apply_steering(classes.model, sae, bias, SteerSettings(target(), cells=chosen), adp)

    def sampled(model: Any, places: list[int]) -> Tensor:
        latent = {**classes.empty(len(places)), "batch_index": places}
        return classes.host.ksampler(model, classes.positive, classes.negative, latent, seed=5, steps=4, cfg=3.0)["samples"]

    for make in (guided, lambda chosen: guided(chosen, direction="adp-gradient"), steered):
        batch = sampled(make(cells), list(range(N)))
        assert all(far(a, b) for a, b in zip(batch, sampled(classes.model, list(range(N))), strict=True))
        for i, cell in enumerate(cells):
            close(sampled(make((cell,)), [i]), batch[i : i + 1])
        assert far(sampled(make((cells[1],)), [0]), batch[:1]), "another class is another image"


# -- memory --------------------------------------------------------------------------------------------------------------------------


def test_networks_are_the_hosts_to_load(classes: World, adp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management
    from equipoise.benchmarks.bias_features.splice import apply_splice
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.host.core.managed_networks import NETWORKS_KEY
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.bias_features.run import SteerSettings
    from equipoise.methods.guidance.run import GuidanceSettings

    sae = random_sae(CHANNELS, UP, "tiny")
    bias = random_bias(sae, ATTRIBUTES)
    storages = {p.data_ptr() for p in sae.sae.parameters()}

    def steer(model: Any, cell: str) -> Any:
        return apply_steering(model, sae, bias, SteerSettings(target(f"eyeglasses: {cell}=1")), adp)

    model = steer(steer(apply_guidance(classes.model, adp, GuidanceSettings(target())), "yes=0, no"), "no=0, yes")
    beside = model.get_additional_models_with_key(NETWORKS_KEY)
    assert sorted(type(m.model).__name__ for m in beside) == ["AttributePredictor", "SparseAutoencoder"], "each once"
    assert not classes.model.get_additional_models_with_key(NETWORKS_KEY)
    twin = next(m for m in beside if type(m.model).__name__ == "SparseAutoencoder")
    assert {p.data_ptr() for p in twin.model.parameters()} == storages, "no second copy of the weights"
    assert twin.model is not sae.sae and twin.model_size() == sum(t.nbytes for t in sae.sae.state_dict().values())
    assert apply_splice(classes.model, sae).get_additional_models_with_key(NETWORKS_KEY)[0].is_clone(twin)

    loaded: list[set[str]] = []
    load = comfy.model_management.load_models_gpu

    def seen(models: Any, *args: Any, **kwargs: Any) -> Any:
        loaded.append({type(m.model).__name__ for m in models})
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", seen)
    classes.sample(model)
    assert any({"SparseAutoencoder", "AttributePredictor"} < names and len(names) == 3 for names in loaded)
    held = [m.model for m in comfy.model_management.current_loaded_models]
    assert any(h is not None and h.is_clone(twin) for h in held), "it counts among what the host has loaded"


def test_networks_that_the_host_loaded_are_used_as_they_are(classes: World, adp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.methods.bias_features.run import SteeringRun, SteerSettings

    sae = random_sae(CHANNELS, UP, "tiny")
    bias = random_bias(sae, ATTRIBUTES)
    used: list[tuple[set[int], set[int]]] = []
    release = SteeringRun.release

    def seen(run: Any) -> None:
        used.append(({p.data_ptr() for p in run._sae.parameters()}, {p.data_ptr() for p in run._predictor.parameters()}))
        release(run)

    monkeypatch.setattr(SteeringRun, "release", seen)
    classes.sample(apply_steering(classes.model, sae, bias, SteerSettings(target(), assign="reading"), adp))
    assert used == [({p.data_ptr() for p in sae.sae.parameters()}, {p.data_ptr() for p in adp.predictor.parameters()})]


def test_cloning_a_steered_model_allocates_nothing(classes: World, adp: Any) -> None:
    import gc

    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.methods.bias_features.run import SteerSettings

    sae = random_sae(CHANNELS, UP, "tiny")
    model = apply_steering(classes.model, sae, random_bias(sae, ATTRIBUTES), SteerSettings(target()), adp)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    before = tensors()
    clones = [model]
    for _ in range(5):
        clones.append(clones[-1].clone())
    assert tensors() == before


def test_a_network_goes_with_its_file(classes: World, caplog: Any) -> None:
    """The host warns of a leak where a network outlives its handle."""
    import gc
    import weakref

    import comfy.model_management
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.guidance.run import GuidanceSettings

    adp = random_adp(ATTRIBUTES, CHANNELS, base_model="tiny", size=0.3)
    model = apply_guidance(classes.model, adp, GuidanceSettings(target()))
    classes.sample(model)
    network = weakref.ref(vars(adp)["_managed"][1][0].model)
    del model
    comfy.model_management.cleanup_models_gc()
    assert "memory leak" not in caplog.text and network() is not None
    del adp
    gc.collect()
    comfy.model_management.cleanup_models_gc()
    assert network() is None and "memory leak" not in caplog.text
