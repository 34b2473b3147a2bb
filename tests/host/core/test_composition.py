"""Guidance and steering with everything else that changes a sampling: the pairs of docs/composition.md, each before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise_composition_page import page
from equipoise_partners import PARTNERS, Partner
from equipoise_spy import Spy
from equipoise_unet import MIDDLE, UP, N, Scene, tiny_sd
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes")}
KINDS = ("guidance", "steering")


@pytest.fixture(scope="module")
def files(load_module: Callable[[Path, str], Any], repository: Path, host: Any) -> dict[str, Any]:
    """A random ADP, autoencoder and bias features for the small U-Net."""
    sae = random_sae(UP[1], UP[0], "sd15")
    return {
        "adp": random_adp(ATTRIBUTES, MIDDLE[1], base_model="sd15", size=0.5),
        "sae": sae,
        "bias": random_bias(sae, ATTRIBUTES),
    }


@pytest.fixture(scope="module")
def model(host: Any) -> Any:
    with torch.inference_mode():
        return tiny_sd()


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """Images without our nodes, by the partner's key ("" without any)."""
    return {}


@pytest.fixture
def scene(prompt: Any, model: Any) -> Scene:
    return Scene(prompt, model)


def drawn(scene: Scene) -> Tensor:
    """Samples; partners that draw numbers of their own (HyperTile, token merging) draw the same each time."""
    torch.manual_seed(0)
    return scene.sample()


def ours(scene: Scene, kind: str, files: dict[str, Any], finished: list[Any] | None = None, strength: float = 1.0) -> Scene:
    """The scene with our patch at the end of the MODEL's chain: half of the images to each class."""
    from equipoise.host.bias_features.apply import apply_steering
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.bias_features.run import SteerSettings
    from equipoise.methods.core.target_text import parse_target
    from equipoise.methods.guidance.run import GuidanceSettings

    target = parse_target("eyeglasses: uniform", ATTRIBUTES)
    on_finish = None if finished is None else lambda run: finished.append(run.summary())
    if kind == "guidance":
        return scene.but(model=apply_guidance(scene.model, files["adp"], GuidanceSettings(target, strength=strength), on_finish))
    settings = SteerSettings(target, strength=strength)
    return scene.but(model=apply_steering(scene.model, files["sae"], files["bias"], settings, on_finish=on_finish))


def change(image: Tensor, other: Tensor) -> Tensor:
    """[N]: how far images are from others, as a share of the others' norm."""
    return (image - other).flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1)


def edited(spy: Spy, site: str) -> set[tuple[int, bool]]:
    """(number of the conditioning, whether the row was changed) of every row seen at a site; tiles repeat all the chunks."""
    seen = set()
    for call in spy.at(site):
        chunks = len(call.marks)
        batch = min(N, len(call.changed) // chunks)
        seen |= {(call.marks[(row // batch) % chunks], changed) for row, changed in enumerate(call.changed)}
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partner", PARTNERS, ids=lambda p: p.key)
def test_a_pair(
    scene: Scene, partner: Partner, kind: str, files: dict[str, Any], alone: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := partner.why_not():
        pytest.skip(why)
    if "" not in alone:
        alone[""] = drawn(scene)
    if partner.key not in alone:
        alone[partner.key] = drawn(partner.apply(scene))
    without = alone[partner.key]
    if kind not in alone:
        alone[kind] = drawn(ours(scene, kind, files))
    spy, finished = Spy(monkeypatch, kind), []

    before = drawn(ours(partner.apply(scene), kind, files, finished))
    after = drawn(partner.apply(ours(scene, kind, files, finished)))

    for image in (before, after):
        assert image.shape == without.shape and image.isfinite().all()
        assert (change(image, without) > 1e-3).all(), "the edit is still there"
        if partner.shows and (change(without, alone[""]) > 1e-3).all():
            assert (change(image, alone[kind]) > 1e-3).all(), "and so is the partner"
    assert torch.equal(before, after) == partner.same
    assert [sorted(run.cells.tolist()) for run in finished] == [[0, 1]] * 2, "the target's quotas are kept"
    waiting = {(0, False)} if partner.waits and kind == "guidance" else set()
    assert edited(spy, MIDDLE[0] if kind == "guidance" else UP[0]) == partner.rows | waiting
    assert all(run() is None or run()._device is None for run in spy.runs), "a run holds tensors after its end"

    for off in (ours(partner.apply(scene), kind, files, strength=0.0), partner.apply(ours(scene, kind, files, strength=0.0))):
        assert torch.equal(drawn(off), without)


def test_there_are_enough_partners() -> None:
    assert sum(partner.chain for partner in PARTNERS) >= 14 and len({partner.key for partner in PARTNERS}) == len(PARTNERS)


def test_the_page_is_that_of_the_list(repository: Path) -> None:
    assert (repository / "docs" / "composition.md").read_text(encoding="utf-8") == page(), "run tools/equipoise_composition_page.py"
