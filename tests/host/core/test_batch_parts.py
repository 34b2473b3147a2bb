"""One decision, however the batch is cut: parts and picked images of a batch, lists, second passes, and single images over the API."""

from __future__ import annotations

import functools
import json
import logging
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise_families import FAMILIES, empty_latent
from equipoise_unet import MIDDLE, text, tiny_sd
from torch import Tensor

TARGETS = {"half": (0.5, 4), "quarter": (0.25, 2)}


@functools.cache
def tiny_model() -> Any:
    """The model that all tests guide; a patch changes a clone."""
    return tiny_sd()


class Guided:
    """A guided tiny model; notes the classes of every run."""

    def __init__(self, prompt: Any, share: float, seed: int | None = None, read: bool = True) -> None:
        from equipoise.host.guidance.apply import apply_guidance
        from equipoise.host.ledger.assigned_runs import AssignedRuns
        from equipoise.methods.core.targets import make_target
        from equipoise.methods.guidance.run import GuidanceSettings

        adp = random_adp({"hair": ("short", "long")}, MIDDLE[1], base_model="sd15", size=0.1)
        target = make_target({"hair": {"short": share, "long": 1 - share}})
        settings = GuidanceSettings(target, seed=seed, assign="reading" if read else "seeded", rows="cond+uncond")
        self.prompt, self.runs = prompt, AssignedRuns()
        self.model = apply_guidance(tiny_model(), adp, settings, self.runs.add)

    def draw(self, latent: dict[str, Any], seed: int = 0, **settings: Any) -> tuple[Tensor, list[str]]:
        """Sample with ComfyUI's KSampler; return the samples and the class of every image."""
        samples = self.prompt.ksampler(self.model, text(1), text(2), latent, seed=seed, steps=2, cfg=2.0, **settings)["samples"]
        return samples, json.loads(str(self.runs))["assigned"]


def batch(n: int) -> dict[str, Any]:
    return {"samples": torch.zeros(n, 4, 8, 8)}


def rows(samples: Tensor, index: list[int]) -> dict[str, Any]:
    """What Latent From Batch and Rebatch Latents give."""
    return {"samples": samples[index], "batch_index": index}


@pytest.fixture(params=[True, False], ids=["by reading", "seeded"])
def guided(prompt: Any, request: pytest.FixtureRequest) -> Any:
    return lambda share, seed=None: Guided(prompt, share, seed, request.param)


@pytest.mark.parametrize(("share", "count", "cut"), [(0.5, 4, [3, 3, 2]), (0.25, 2, [1] * 8)], ids=["3+3+2", "single"])
def test_the_parts_of_a_batch_follow_the_target_together(guided: Any, share: float, count: int, cut: list[int]) -> None:
    one, first, classes = guided(share), 0, []
    for n in cut:
        classes += one.draw(rows(torch.zeros(8, 4, 8, 8), list(range(first, first + n))), seed=11)[1]
        first += n
    assert classes.count("short") == count and len(classes) == 8


def test_a_list_of_empty_latents_is_one_batch(prompt: Any) -> None:
    from comfy_execution.utils import CurrentNodeContext

    one, classes = Guided(prompt, 0.25), []
    for i in range(8):
        with CurrentNodeContext("prompt", "5", i):
            classes += one.draw(batch(1), seed=3)[1]
    assert classes.count("short") == 2


@pytest.mark.parametrize(("share", "count"), TARGETS.values(), ids=TARGETS)
def test_single_images_with_seeds_in_a_row_follow_the_target(prompt: Any, share: float, count: int) -> None:
    classes = [Guided(prompt, share).draw(batch(1), seed=1000 + i)[1][0] for i in range(8)]
    assert classes.count("short") == count


def test_a_seed_that_the_user_sets_decides(prompt: Any) -> None:
    assert len({Guided(prompt, 0.5, seed=4).draw(batch(1), seed=i)[1][0] for i in range(4)}) == 1


@pytest.mark.parametrize("picks", [[6], [2, 5], [0, 1, 2]])
def test_picked_images_keep_their_class_in_a_second_pass_and_from_their_noise(guided: Any, picks: list[int]) -> None:
    one = guided(0.5)
    samples, classes = one.draw(batch(8), seed=7)
    wanted = [classes[i] for i in picks]
    assert one.draw(rows(samples, picks), seed=99, denoise=0.5)[1] == wanted
    if picks[0] > 0:
        assert one.draw(rows(torch.zeros(8, 4, 8, 8), picks), seed=7)[1] == wanted


def test_a_single_unknown_picture_keeps_the_class_that_is_read(prompt: Any, caplog: pytest.LogCaptureFixture) -> None:
    picture = {"samples": torch.randn(1, 4, 8, 8)}
    with caplog.at_level(logging.INFO, "equipoise"):
        classes = {Guided(prompt, share).draw(picture, denoise=0.5)[1][0] for share in (0.05, 0.5, 0.95)}
    assert len(classes) == 1 and "that began from a picture kept the class that was read" in caplog.text
    (other,) = {"short", "long"} - classes
    assert Guided(prompt, float(other == "short")).draw(picture, denoise=0.5)[1] == [other]


def test_the_log_says_what_the_images_were_given(prompt: Any, caplog: pytest.LogCaptureFixture) -> None:
    one = Guided(prompt, 0.25)
    with caplog.at_level(logging.INFO, "equipoise"):
        samples, _ = one.draw(batch(8))
        one.draw({"samples": samples}, denoise=0.5)
    assert "distribution guidance: 8 images assigned (short: 2, long: 6)." in caplog.text
    assert "8 images of an earlier run kept the class that they were assigned (short: 2, long: 6)." in caplog.text


@pytest.mark.parametrize("name", ["FLUX", "Wan"])
def test_the_index_follows_from_the_noise_in_every_form(prompt: Any, name: str) -> None:
    import comfy.sample
    from equipoise.host.core.passes.image_index import index_of_noise

    latent, other = empty_latent(FAMILIES[name], 6)["samples"], torch.Generator().manual_seed(6)
    for index in ([3], [4, 1], [0, 1, 2], [5, 5]):
        assert index_of_noise(comfy.sample.prepare_noise(latent[: len(index)], 5, index), 5) == index
    assert index_of_noise(comfy.sample.prepare_noise(latent, 5), 5) == list(range(6))
    assert index_of_noise(torch.zeros_like(latent), 5) is None and index_of_noise(torch.randn(latent.shape, generator=other), 5) is None


def test_runs_of_two_samplers_are_told_apart_and_lists_are_joined(prompt: Any) -> None:
    from comfy_execution.utils import CurrentNodeContext
    from equipoise.host.ledger.assigned_runs import assigned_now

    one = Guided(prompt, 0.5)
    graph = {
        "5": {"inputs": {}}, "6": {"inputs": {}}, "7": {"inputs": {"samples": ["5", 0]}}, "8": {"inputs": {"images": ["7", 0]}},
        "9": {"inputs": {"images": ["6", 0]}},
    }  # fmt: skip
    drawn = {}
    for node, n, count in (("5", 2, 3), ("6", 4, 1)):
        for i in range(count):
            with CurrentNodeContext("prompt", node, i):
                drawn.setdefault(node, []).extend(one.draw(batch(n), seed=2)[1])
    for reader, sampler in (("8", "5"), ("9", "6")):
        with CurrentNodeContext("prompt", reader, 0):
            assert json.loads(assigned_now(one.runs, graph, len(drawn[sampler])))["assigned"] == drawn[sampler]
