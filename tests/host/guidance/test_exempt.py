"""Exempt From Guidance in the host's own samplers: the mark reaches the rows, and they are as without guidance."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise_nodes import execute
from equipoise_spy import Spy
from equipoise_tiny import tiny
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "long")}
MIDDLE, UP, CHANNELS = "middle", "output.1", 64
N = 4
MODES = [("quota", 1.0), ("chi-square", 0.01), ("kl", 0.01)]
ROWS = ["cond", "cond+uncond"]


@pytest.fixture
def world(prompt: Any) -> Any:
    """A class-conditional model, whose classes stand for prompts: 0 is neutral, 1 is explicit."""
    from equipoise.host.small_models.adm_info import conditioning
    from equipoise.host.small_models.adm_model import empty_latent, patcher_from

    state_dict, meta = tiny("classes")
    model = patcher_from("tiny_classes", state_dict, meta | {"base_model": "tiny"})
    info = model.model.equipoise_info
    return SimpleNamespace(
        host=prompt,
        model=model,
        neutral=conditioning(info, 0),
        explicit=conditioning(info, 1),
        negative=conditioning(info, info.null_label),
        latent=empty_latent(model, 0, 0, N),
        adp=random_adp(ATTRIBUTES, CHANNELS, {"hair": (UP, CHANNELS)}, "tiny", size=0.3),
    )


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, prompt: Any) -> Spy:
    return Spy(monkeypatch)


def exempt(conditioning: Any) -> Any:
    from equipoise.nodes.guidance.exempt_from_guidance import ExemptFromGuidance

    return ExemptFromGuidance.execute(conditioning).result[0]


def combined(world: Any, one: Any, other: Any) -> Any:
    return world.host.nodes.ConditioningCombine().combine(one, other)[0]


def target() -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target("eyeglasses x hair: uniform", ATTRIBUTES)


def guided(world: Any, finished: list[Any] | None = None, **settings: Any) -> Any:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.guidance.run import GuidanceSettings

    on_finish = None if finished is None else lambda run: finished.append(run.summary())
    return apply_guidance(world.model, world.adp, GuidanceSettings(target(), **settings), on_finish)


def draw(world: Any, positive: Any, model: Any = None, negative: Any = None, **sampler: Any) -> Tensor:
    given = {"seed": 5, "steps": 3, "cfg": 3.0, **sampler}
    return world.host.ksampler(model or world.model, positive, negative or world.negative, world.latent, **given)["samples"]


def touched(call: Any) -> tuple[bool, ...]:
    """By chunk, whether any row of it was changed: a step of the soft modes may be too small for some."""
    rows = torch.tensor(call.changed).view(len(call.marks), -1)
    return tuple(rows.any(1).tolist())


def far(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) > 1e-2


def test_the_mark_is_put_on_a_copy(world: Any) -> None:
    before = [dict(entry[1]) for entry in world.explicit]
    marked = exempt(world.explicit)
    assert [entry[1] for entry in world.explicit] == before and all(e[1]["equipoise_exempt"] is True for e in marked)
    assert all(a[0] is b[0] for a, b in zip(marked, world.explicit, strict=True))
    assert torch.equal(draw(world, marked), draw(world, world.explicit)), "an unguided sampler does not mind it"


@pytest.mark.parametrize(("mode", "strength"), MODES)
@pytest.mark.parametrize("rows", ROWS)
def test_an_exempt_prompt_is_drawn_as_without_guidance_bit_for_bit(
    world: Any, spy: Spy, mode: str, strength: float, rows: str
) -> None:
    finished: list[Any] = []
    model = guided(world, finished, mode=mode, strength=strength, rows=rows)
    plain = draw(world, world.explicit)
    assert far(draw(world, world.explicit, model), plain)
    assert torch.equal(draw(world, exempt(world.explicit), model), plain)
    assert finished[0].readings.shares and not finished[1].readings.shares and finished[1].exempt and not finished[0].exempt
    assert finished[1].cells is None and finished[1].counts is None
    assert torch.equal(draw(world, exempt(world.explicit), model, sampler="dpmpp_2s_ancestral"), draw(
        world, world.explicit, sampler="dpmpp_2s_ancestral"
    ))  # fmt: skip


@pytest.mark.parametrize("assign", ["reading", "seeded"])
def test_directions_by_seed_and_gradients_leave_it_alone_too(world: Any, assign: str) -> None:
    for cfg in (1.0, 3.0):
        plain = draw(world, world.explicit, cfg=cfg)
        for direction in ("calibrated", "adp-gradient"):
            model = guided(world, assign=assign, direction=direction, rows="cond+uncond")
            assert torch.equal(draw(world, exempt(world.explicit), model, cfg=cfg), plain)


@pytest.mark.parametrize(("mode", "strength"), MODES)
def test_combined_with_another_prompt_only_that_one_is_edited(world: Any, spy: Spy, mode: str, strength: float) -> None:
    finished: list[Any] = []
    both = combined(world, exempt(world.explicit), world.neutral)
    model = guided(world, finished, mode=mode, strength=strength)
    out = draw(world, both, model)
    assert {call.marks for call in spy.calls} == {(1, 0, 0)}
    (chunks,) = {touched(call) for call in spy.at(MIDDLE)}
    assert sorted(chunks) == [False, False, True], "one of the two positives"
    assert far(out, draw(world, both))
    assert not finished[0].exempt and (mode != "quota" or sorted(finished[0].cells.tolist()) == [0, 1, 2, 3])
    # Without the mark the explicit prompt is edited too.
    spy.calls.clear()
    assert far(out, draw(world, combined(world, world.explicit, world.neutral), model))
    assert {touched(call) for call in spy.at(MIDDLE)} == {(False, True, True)}


def test_readings_are_those_of_the_other_prompt(world: Any) -> None:
    """Only the readings at the first call compare: what is drawn differs afterwards."""
    finished: list[Any] = []
    model = guided(world, finished)
    draw(world, combined(world, exempt(world.explicit), world.neutral), model)
    draw(world, world.neutral, model)
    draw(world, combined(world, world.explicit, world.neutral), model)
    combination, alone, unmarked = (torch.tensor(run.readings.shares[0]["eyeglasses"]) for run in finished)
    torch.testing.assert_close(combination, alone, rtol=1e-4, atol=1e-5)
    assert (unmarked - alone).abs().max() > 1e-4
    assert torch.equal(finished[0].cells, finished[1].cells)


def test_short_of_memory_and_with_areas_it_stays_so(world: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = draw(world, world.explicit)
    model = guided(world, rows="cond+uncond")
    part = [[e[0], {**e[1], "area": (8, 8, 4, 4)}] for e in exempt(world.explicit)]
    mixed = [*part, *world.neutral]
    out = draw(world, mixed, model)
    assert far(out, draw(world, mixed))
    small = [call for call in spy.at(MIDDLE) if call.shape[-1] == 4]
    assert small and not any(any(call.changed) for call in small), "the host copies the area, mark and all, to the negative"
    assert torch.equal(draw(world, [*part, *exempt(world.neutral)], model), draw(world, mixed))
    monkeypatch.setattr(world.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    torch.testing.assert_close(draw(world, exempt(world.explicit), model), plain, rtol=1e-3, atol=1e-3)


def test_the_mark_goes_through_the_hosts_own_nodes(world: Any) -> None:
    """Set area, mask, timestep range and average copy what a CONDITIONING holds."""
    nodes = world.host.nodes
    mask = torch.ones(1, 16, 16)
    marked = exempt(world.explicit)
    for made in (
        nodes.ConditioningSetArea().append(marked, 64, 64, 0, 0, 1.0)[0],
        nodes.ConditioningSetMask().append(marked, mask, "default", 1.0)[0],
        nodes.ConditioningSetTimestepRange().set_range(marked, 0.0, 0.5)[0],
    ):
        assert all(entry[1]["equipoise_exempt"] for entry in made)
    model = guided(world)
    early = nodes.ConditioningSetTimestepRange().set_range(marked, 0.0, 0.5)[0]
    late = nodes.ConditioningSetTimestepRange().set_range(world.explicit, 0.5, 1.0)[0]
    out = draw(world, [*early, *late], model, steps=6)
    assert far(out, draw(world, world.explicit, steps=6)) and far(out, draw(world, world.explicit, model, steps=6))


def test_an_exempt_negative_is_not_edited_either(world: Any, spy: Spy) -> None:
    model = guided(world, rows="cond+uncond")
    draw(world, world.neutral, model, negative=exempt(world.negative))
    assert spy.chunks() == {(0, True), (1, False)}


def test_the_sampler_node_says_that_nothing_was_done(world: Any) -> None:
    from equipoise.nodes.guidance.distribution_guidance_ksampler import DistributionGuidanceKSampler

    latent, report, assigned = execute(
        DistributionGuidanceKSampler,
        world.model, 5, 3, 3.0, "euler", "normal", exempt(world.explicit), world.negative, world.latent, 1.0, world.adp, target(), "quota",
        1.0, 0.0, 1.0, "cond", "calibrated", "auto", 0,
    ).result  # fmt: skip
    assert torch.equal(latent["samples"], draw(world, world.explicit))
    assert report == "guidance did nothing: every positive is exempt from it (Exempt From Guidance)."
    assert '"assigned": null' in assigned


def test_recording_leaves_exempt_prompts_out(world: Any) -> None:
    from equipoise.host.data.recording import apply_recording
    from equipoise.methods.data.recording import RecordingSettings

    kept: list[Any] = []
    model = apply_recording(world.model, RecordingSettings(unconditional=True), kept.append)
    draw(world, world.neutral, model)
    draw(world, combined(world, exempt(world.explicit), world.neutral), model)
    # At the first call the latents are alike, later on they are not.
    for alone, both in ((kept[0].features, kept[1].features), (kept[0].unconditional[0], kept[1].unconditional[0])):
        torch.testing.assert_close(alone[:, 0], both[:, 0], rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="every positive is exempt"):
        draw(world, exempt(world.explicit), model)
