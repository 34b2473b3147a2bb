"""ADP files with moves for attributes that they do not read: kept, guided with, trained further, and refused where a reading is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp, random_move, random_predictor
from equipoise.methods.adp.edit_file import check_classes, in_order, with_alternative
from equipoise.methods.adp.figures import describe_adp
from equipoise.methods.adp.train import train_adp
from equipoise.methods.core.run import Call
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, open_feature_set
from equipoise.methods.guidance.calibrate import reading_levels
from equipoise.methods.guidance.moves import GRADIENT, move_vector
from equipoise.methods.guidance.run import GuidanceRun, GuidanceSettings
from equipoise.methods.labels.labels import LabelSet
from equipoise.models.adp import AdpFile, Move, load_adp, save_adp
from equipoise.models.files import read_safetensors, write_safetensors
from equipoise.models.noise_level import log_snr
from equipoise.models.sites import MIDDLE, pool
from torch import Tensor

READ, HAIR = {"eyeglasses": ("no", "yes")}, ("short", "medium", "long")
C, SIGMA = 6, 1.3
CONTRAST = "prompt-contrast"


@pytest.fixture
def move() -> Move:
    return replace(random_move(3, C, "output.1", from_to=False, seed=4), source=CONTRAST, relative=True)


@pytest.fixture
def bare(move: Move) -> AdpFile:
    """Directions for hair, and nothing that reads."""
    return with_alternative(None, "tiny", "hair", HAIR, move, {"lines": ["read off 8 images"]})


@pytest.fixture
def both(move: Move) -> AdpFile:
    """Reads and moves eyeglasses; moves hair too."""
    return with_alternative(random_adp(READ, C, base_model="tiny"), "", "hair", HAIR, move, {})


def settings(file: AdpFile, text: str = "hair: uniform", **more: Any) -> GuidanceSettings:
    return GuidanceSettings(parse_target(text, file.attributes), **{"direction": CONTRAST, **more})


def features(n: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n, C, 8, 8, generator=torch.Generator().manual_seed(seed))


def options(batch: int, sigma: float = SIGMA) -> dict[str, Any]:
    return {"sigmas": torch.full((batch,), sigma), "cond_or_uncond": [0]}


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300, text
    return text


# -- the file ------------------------------------------------------------------------------------------------------------------------


def test_a_file_without_a_predictor_comes_back_as_it_was(bare: AdpFile, move: Move, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_adp(bare, path)
    tensors, meta = read_safetensors(path)
    assert not [k for k in tensors if k.startswith("adp.")] and (meta["format_version"], meta["kind"]) == ("1", "none")
    back = load_adp(path)
    assert back.predictor is None and back.read == {} and back.attributes == {"hair": HAIR} == back.unread
    assert back.base_model == "tiny" and not back.moves and back.site_channels == {"output.1": C}
    held = back.alternatives["hair"][CONTRAST]
    assert held.relative and torch.equal(held.vectors, move.vectors.half().float()) and torch.equal(held.sizes, move.sizes)
    said = describe_adp(back)
    assert "ADP for tiny (no predictor" in said and "hair: short, medium, long (not read, not calibrated)" in said
    assert "'prompt-contrast': read off 8 images" in said and "assigned by seed" in said


def test_a_file_may_read_some_attributes_and_not_others(both: AdpFile, tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    save_adp(both, path)
    back = load_adp(path)
    assert list(back.attributes) == ["eyeglasses", "hair"] and back.read == READ and back.unread == {"hair": HAIR}
    assert back.site_channels == {MIDDLE: C, "output.1": C} and "eyeglasses" in back.moves
    x, level = torch.randn(3, C, 4, 4), torch.zeros(3)
    assert list(back.predictor(x, level)) == ["eyeglasses"]
    assert list(reading_levels(back, -9, 9)) == ["eyeglasses"], "finished images are read for what can be read"
    again = tmp_path / "again.safetensors"
    save_adp(back, again)
    assert read_safetensors(again)[1] == read_safetensors(path)[1]


def test_a_file_of_today_has_nothing_new_in_it(tmp_path: Path) -> None:
    save_adp(random_adp(READ, C), tmp_path / "a.safetensors")
    assert "unread" not in read_safetensors(tmp_path / "a.safetensors")[1]


def test_a_file_that_contradicts_itself_is_refused(bare: AdpFile, tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_adp(bare, path)
    tensors, meta = read_safetensors(path)
    for wrong in ({"unread": "[]"}, {"unread": '["hat"]'}, {"kind": "mlp"}):
        write_safetensors(path, tensors, meta | wrong)
        with pytest.raises(ValueError, match="does not fit its own metadata"):
            load_adp(path)
    with pytest.raises(ValueError, match="'eyeglasses' is listed both as read"):
        AdpFile(random_predictor(READ, C), {}, "", unread=dict(READ))


# -- guidance ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assign", ["auto", "reading", "seeded"])
def test_without_a_reading_images_are_assigned_from_the_seed(bare: AdpFile, move: Move, assign: str) -> None:
    run = GuidanceRun(bare, settings(bare, assign=assign, seed=3))
    assert run.sites == {"output.1"} and run.unread == ("hair",)
    h = features(6)
    assert run.edit(MIDDLE, h, Call.read(options(6))) is h
    out = run.edit("output.1", h, Call.read(options(6)))
    assert sorted(run.cells.tolist()) == [0, 0, 1, 1, 2, 2] and not run.readings.shares
    step = move_vector(move, run.cells, None, float(log_snr(SIGMA)), h.shape)
    torch.testing.assert_close(out - h, h.flatten(1).norm(dim=1)[:, None, None, None] * step)
    assert run.summary().unread == ("hair",)
    orders = {tuple(cells_of(bare, seed, h)) for seed in range(6)}
    assert len(orders) > 1, "who gets what depends on the seed"


def cells_of(file: AdpFile, seed: int, h: Tensor) -> list[int]:
    run = GuidanceRun(file, settings(file, seed=seed))
    run.edit("output.1", h, Call.read(options(len(h))))
    return run.cells.tolist()


def test_one_attribute_that_is_not_read_makes_the_whole_target_seeded(both: AdpFile) -> None:
    file = replace(both, moves={"eyeglasses": both.moves["eyeglasses"], "hair": both.alternatives["hair"][CONTRAST]}, alternatives={})
    given = settings(file, "eyeglasses x hair: uniform", direction="calibrated", assign="reading")
    run, h = GuidanceRun(file, given), features(6)
    assert run.unread == ("hair",) and run.sites == {MIDDLE, "output.1"}
    out = run.edit(MIDDLE, h, Call.read(options(6)))
    assert sorted(run.cells.tolist()) == list(range(6)) and list(run.readings.shares[0]) == ["eyeglasses"]
    level = float(log_snr(SIGMA))
    reading = file.predictor(pool(h), torch.full((6,), level))["eyeglasses"].softmax(-1)
    step = move_vector(file.moves["eyeglasses"], run.cells // 3, reading, level, h.shape)
    torch.testing.assert_close(out - h, h.flatten(1).norm(dim=1)[:, None, None, None] * step)
    assert (run.edit("output.1", h, Call.read(options(6))) != h).flatten(1).any(1).all()
    alone = GuidanceRun(file, settings(file, "eyeglasses: uniform", direction="calibrated"))
    assert alone.unread == ()


@pytest.mark.parametrize("more", [{"mode": "kl"}, {"mode": "chi-square"}, {"direction": GRADIENT}])
def test_what_goes_by_a_reading_is_refused(bare: AdpFile, both: AdpFile, more: dict[str, str]) -> None:
    for file in (bare, both):
        with pytest.raises(ValueError, match=f"does not read 'hair', and .*'{next(iter(more.values()))}'.*prompt-contrast") as error:
            GuidanceRun(file, settings(file, **more))
        sentence(error)


def test_directions_that_are_not_calibrated_are_named(bare: AdpFile) -> None:
    with pytest.raises(ValueError, match="has no calibrated moves for 'hair'.*set direction to 'prompt-contrast'") as error:
        GuidanceRun(bare, settings(bare, direction="calibrated"))
    sentence(error)


# -- adding moves --------------------------------------------------------------------------------------------------------------------


def test_moves_take_the_files_own_order_of_classes(both: AdpFile) -> None:
    move = replace(random_move(2, C, from_to=False), source=CONTRAST)
    more = with_alternative(both, "", "eyeglasses", ("yes", "no"), move, {})
    held = more.alternatives["eyeglasses"][CONTRAST]
    assert torch.equal(held.vectors, move.vectors[:, [1, 0]]) and torch.equal(held.sizes, move.sizes[:, [1, 0]])
    assert more.moves["eyeglasses"] is both.moves["eyeglasses"] and more.read == READ and "hair" in more.alternatives
    with pytest.raises(ValueError, match="does not know 'eyeglasses' with the classes no, some.*it knows eyeglasses: no, yes") as error:
        check_classes(both, {"eyeglasses": ("no", "some")})
    sentence(error)


def test_a_move_of_the_same_source_is_replaced_with_what_was_said_of_it(both: AdpFile) -> None:
    record = {"stage": {"hits": {CONTRAST: 0.9, "sum": 0.8}, "window": {CONTRAST: [0, 1]}, "images": 8}}
    old = replace(both.alternatives["hair"][CONTRAST], sizes=torch.full((5, 3), 0.2))
    calibrated = replace(both, moves={**both.moves, "hair": old}, alternatives={"hair": {"sum": replace(old, source="sum")}})
    calibrated = replace(calibrated, info={"calibration": {"hair": record}})
    new = replace(old, sizes=torch.ones(5, 3))
    made = with_alternative(calibrated, "", "hair", HAIR, new, {"lines": ["new"]})
    assert "hair" not in made.moves and made.alternatives["hair"][CONTRAST] is new and list(made.alternatives["hair"]) == ["sum", CONTRAST]
    assert made.info["calibration"]["hair"]["stage"] == {"hits": {"sum": 0.8}, "window": {}, "images": 8}
    assert made.info["directions"] == {"hair": {CONTRAST: {"lines": ["new"]}}}
    kept = with_alternative(replace(calibrated, moves={"hair": replace(old, source="sum")}), "", "hair", HAIR, new, {})
    assert kept.moves["hair"].source == "sum" and list(kept.alternatives["hair"]) == [CONTRAST]


def test_the_order_of_classes_goes_through_from_to_moves_too() -> None:
    move = random_move(3, C, from_to=True)
    turned = move.reordered([2, 0, 1])
    assert torch.equal(turned.vectors[:, 0, 1], move.vectors[:, 2, 0]) and torch.equal(turned.sizes[:, 2], move.sizes[:, 1])
    assert move.reordered([0, 1, 2]) is move
    file = in_order(AdpFile(None, {"hair": move}, "", unread={"hair": HAIR}), {"hair": ("long", "short", "medium")})
    assert file.unread["hair"] == ("long", "short", "medium") and torch.equal(file.moves["hair"].vectors, turned.vectors)


# -- training ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """60 images of three hair lengths, two of eyeglasses."""
    folder = tmp_path_factory.mktemp("recorded") / "set"
    writer = FeatureSetWriter(folder, {"base_model": "tiny", "site": "middle"})
    x = torch.randn(60, 2, C, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, :, 0] += 3 * (torch.arange(60) % 3)[:, None, None, None]
    writer.add(x, torch.tensor([0.0, 3.0]), [f"{i}.png" for i in range(60)], [0] * 60, [""] * 60)
    return open_feature_set(folder)


def labels(features: FeatureSet, attribute: str, classes: tuple[str, ...]) -> LabelSet:
    p = torch.eye(len(classes))[torch.arange(60) % len(classes)]
    return LabelSet({attribute: classes}, tuple(e.file for e in features.entries), {attribute: p})


def test_directions_get_their_predictor_and_stay(recorded: FeatureSet, bare: AdpFile, move: Move) -> None:
    turned = ("long", "short", "medium")
    made = train_adp(recorded, labels(recorded, "hair", turned), epochs=1, extend=bare)
    assert made.read == {"hair": turned} and made.unread == {} and made.base_model == "tiny"
    assert torch.equal(made.alternatives["hair"][CONTRAST].vectors, move.vectors[:, [2, 0, 1]])
    assert made.info["directions"]["hair"][CONTRAST]["lines"] and "verdict" in made.info
    other = train_adp(recorded, labels(recorded, "eyeglasses", ("no", "yes")), epochs=1, extend=bare)
    assert list(other.attributes) == ["eyeglasses", "hair"] and other.unread == {"hair": HAIR}
    assert other.alternatives["hair"][CONTRAST] is move
    third = train_adp(recorded, labels(recorded, "hair", HAIR), epochs=1, extend=other)
    assert list(third.read) == ["eyeglasses", "hair"] and third.alternatives["hair"][CONTRAST] is move
    again = train_adp(recorded, labels(recorded, "eyeglasses", ("no", "yes")), epochs=1, extend=other)
    assert again.alternatives["hair"][CONTRAST] is move, "also where all that was read is replaced"


def test_directions_for_other_classes_or_another_model_are_refused(recorded: FeatureSet, bare: AdpFile) -> None:
    with pytest.raises(ValueError, match="does not know 'hair' with the classes short, long .*hair: short, medium, long") as error:
        train_adp(recorded, labels(recorded, "hair", ("short", "long")), epochs=1, extend=bare)
    sentence(error)
    with pytest.raises(ValueError, match="was made for 'sdxl'") as error:
        train_adp(recorded, labels(recorded, "hair", HAIR), epochs=1, extend=replace(bare, base_model="sdxl"))
    sentence(error)
