"""Balanced Prompts: lists for the host, images back in order, parts and picks that keep their class, ledgers, and clear faults."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from equipoise_families import FAMILIES, RandomClip
from equipoise_nodes import execute

WORDS = "woman: woman | lady\nman: man"


@pytest.fixture(autouse=True)
def _host(prompt: Any) -> None:
    """All tests run in a host."""


def balanced(images: int = 8, **inputs: Any) -> Any:
    from equipoise.nodes.prompts.balanced_prompts import BalancedPrompts

    values = {"prompt": "a photo of a {gender} doctor", "words": WORDS, "weights": "half and half", "seed": 0}
    latent = inputs.pop("latent", {"samples": torch.zeros(images, 4, 4, 4)})
    return execute(BalancedPrompts, **{**values, **inputs}, latent=latent).result


def classes(result: Any) -> list[str]:
    return json.loads(result[3])["assigned"]


def picked(latent: Any, rows: list[int]) -> Any:
    return {"samples": latent["samples"][rows], "batch_index": rows}


@pytest.mark.parametrize(("weights", "women"), [("half and half", 4), ("25/75", 2), ("100/0", 8)])
@pytest.mark.parametrize("cut", [[1] * 8, [3, 3, 2], [8]])
def test_one_decision_however_the_batch_is_cut(weights: str, women: int, cut: list[int]) -> None:
    latent = {"samples": torch.zeros(8, 4, 4, 4)}
    for seed in range(10):
        whole = classes(balanced(latent=latent, weights=weights, seed=seed))
        parts, first = [], 0
        for n in cut:
            parts += classes(balanced(latent=picked(latent, list(range(first, first + n))), weights=weights, seed=seed))
            first += n
        assert parts == whole and whole.count("woman") == women
        assert classes(balanced(latent=picked(latent, [6, 1]), weights=weights, seed=seed)) == [whole[6], whole[1]]


def test_eight_queued_images_follow_the_target() -> None:
    for weights, women in (("half and half", 4), ("25/75", 2)):
        assert sum(classes(balanced(1, weights=weights, seed=100 + i)) == ["woman"] for i in range(8)) == women


def test_a_list_of_empty_latents_counts_as_one_batch() -> None:
    from comfy_execution.utils import CurrentNodeContext

    drawn = []
    for i in range(8):
        with CurrentNodeContext("prompt", "1", i):
            drawn += classes(balanced(1, weights="25/75"))
    assert drawn == classes(balanced(8, weights="25/75"))


def test_lists_hold_every_image_once_and_go_back_in_order() -> None:
    from equipoise.nodes.prompts.images_in_batch_order import ImagesInBatchOrder

    latent = {"samples": torch.zeros(8, 4, 4, 4), "noise_mask": torch.rand(8, 32, 32)}
    prompts, latents, _, assigned, text = balanced(latent=latent)
    assert len(prompts) == len(latents) == len(set(prompts)) and {p.split()[4] for p in prompts} <= {"woman", "lady", "man"}
    assert sorted(i for part in latents for i in part["batch_index"]) == list(range(8)) and "batch_index" not in latent
    for prompt, part in zip(prompts, latents, strict=True):
        names = {json.loads(assigned)["assigned"][i] for i in part["batch_index"]}
        assert names == {"man" if " man " in prompt else "woman"} and f"{len(part['samples'])} x {prompt}" in text
        assert torch.equal(part["noise_mask"], latent["noise_mask"][part["batch_index"]])
    images = [torch.stack([torch.full((2, 2, 3), float(i)) for i in part["batch_index"]]) for part in latents]
    ordered = execute(ImagesInBatchOrder, images, latents).result[0]
    assert torch.equal(ordered[:, 0, 0, 0], torch.arange(8.0))
    video = [image.repeat_interleave(3, 0) for image in images]
    assert torch.equal(execute(ImagesInBatchOrder, video, latents).result[0][:, 0, 0, 0], torch.arange(8.0).repeat_interleave(3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda images, latents: (images[:1], latents), "1 entries of images and 2 of latents"),
        (lambda images, latents: (images, [{"samples": part["samples"]} for part in latents]), "do not say where their images belong"),
        (lambda images, latents: ([images[0][:3], images[1]], latents), "3 images cannot come from 4 latents"),
        (lambda images, latents: ([images[0][:, :1], images[1]], latents), "2 x 1 x 2|different sizes"),
    ],
)
def test_lists_that_do_not_belong_together_are_refused(change: Any, reason: str) -> None:
    from equipoise.nodes.prompts.images_in_batch_order import ImagesInBatchOrder

    _, latents, *_ = balanced(words="woman: woman\nman: man")
    images = [torch.zeros(len(part["samples"]), 2, 2, 3) for part in latents]
    with pytest.raises(ValueError, match=reason):
        execute(ImagesInBatchOrder, *change(images, latents))


def test_a_joint_target_fills_every_slot() -> None:
    from equipoise.methods.core.target_text import target_from_form

    target = target_from_form("gender x age", "weights", "woman/old=1, woman/young=1, man/old=1, man/young=1", None)
    words = "old: elderly\nman: man\nyoung: young"
    prompts, _, _, assigned, _ = balanced(prompt="a {age} {gender}", words=words, target=target, weights="not read")
    assert sorted(prompts) == ["a young man", "a young woman", "an elderly man", "an elderly woman"]
    assert json.loads(assigned)["attributes"] == ["gender", "age"]


def test_a_ledger_makes_single_images_follow_the_target(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    from equipoise.host.ledger.ledgers import LedgerHandle

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    ledger = LedgerHandle("prompts")
    drawn = [classes(balanced(1, weights="25/75", ledger=ledger, seed=977 * i))[0] for i in range(40)]
    assert drawn.count("woman") == 10 and sum(ledger.open().balances()[0].counts) == 40


def test_without_a_clip_only_the_conditioning_is_blocked() -> None:
    _, _, conditioning, _, _ = balanced()
    assert type(conditioning).__name__ == "ExecutionBlocker" and "CLIP" in conditioning.message


@pytest.mark.parametrize(("clip", "reason"), [("ZImageTEModel_", "was not tried .*ZImageTEModel"), ("FluxClipModel_", "11 to 12 tokens")])
def test_a_model_that_takes_no_batch_is_sent_to_the_lists(clip: str, reason: str) -> None:
    from dataclasses import replace

    family = replace(FAMILIES["Qwen-Image"], clip=clip)
    with pytest.raises(ValueError, match=rf"{reason}.*'prompts' to CLIP Text Encode"):
        balanced(words="woman: young woman\nman: man", clip=RandomClip(family))


def test_faults_are_known_before_the_queue_runs() -> None:
    from equipoise.nodes.prompts.balanced_prompts import BalancedPrompts

    check = BalancedPrompts.validate_inputs
    assert check("a {gender}", WORDS, "half and half") is True
    assert "has no slot" in check("a doctor", WORDS, "half and half")
    assert check("a doctor", WORDS, "half and half", None) is True and check(None, WORDS, "nonsense") is True
