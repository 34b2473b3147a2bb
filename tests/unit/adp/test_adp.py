"""The ADP: kept in a file and read back, read at any size and noise level, and refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp, random_move
from equipoise.models.adp import KINDS, AdpFile, AttributePredictor, load_adp, save_adp
from equipoise.models.files import read_safetensors, write_safetensors
from equipoise.models.noise_level import at_level, interpolation, log_snr
from equipoise.models.sites import GRID, average, pool
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "skin": ("light", "medium", "dark")}
CHANNELS = 6


@pytest.fixture(params=KINDS)
def adp(request: pytest.FixtureRequest) -> AdpFile:
    return random_adp(ATTRIBUTES, CHANNELS, {"skin": ("output.2", 10)}, "portraits", request.param, assign="seeded")


def features(n: int, height: int = GRID, width: int = GRID, seed: int = 0) -> Tensor:
    return torch.randn(n, CHANNELS, height, width, generator=torch.Generator().manual_seed(seed))


def levels(*values: float) -> Tensor:
    return torch.tensor(values)


# -- the file ------------------------------------------------------------------------------------------------------------------------


def test_a_file_read_back_is_the_same_up_to_half_precision(adp: AdpFile, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "adp.safetensors"
    save_adp(AdpFile(adp.predictor, adp.moves, adp.base_model, {"licence": "GPL-3.0", "accuracy_mid": {"skin": 0.9}}), path)
    back = load_adp(path)
    assert back.attributes == adp.attributes and back.base_model == "portraits"
    assert (back.predictor.kind, back.predictor.channels, back.predictor.hidden) == (adp.predictor.kind, CHANNELS, adp.predictor.hidden)
    assert back.info == {"licence": "GPL-3.0", "accuracy_mid": {"skin": 0.9}}
    state = adp.predictor.state_dict()
    assert back.predictor.state_dict().keys() == state.keys()
    for name, value in back.predictor.state_dict().items():
        exact = name.startswith(("knots", "mean", "std", "temperature"))
        assert torch.equal(value, state[name] if exact else state[name].half().float()), name
        assert value.dtype == torch.float32
    for attribute, move in back.moves.items():
        was = adp.moves[attribute]
        assert (move.site, move.assign, move.source) == (was.site, was.assign, was.source)
        assert torch.equal(move.vectors, was.vectors.half().float())
        assert torch.equal(move.sizes, was.sizes) and torch.equal(move.knots, was.knots)
        assert move.window == was.window
    assert back.site_channels == {"middle": CHANNELS, "output.2": 10}
    again = tmp_path / "again.safetensors"
    save_adp(back, again)
    (tensors, meta), (tensors_again, meta_again) = read_safetensors(path), read_safetensors(again)
    assert meta_again == meta and all(torch.equal(tensors_again[k], v) for k, v in tensors.items())
    assert [p.name for p in path.parent.iterdir()] == ["adp.safetensors"]


def test_the_moves_that_were_not_best_are_kept_too(adp: AdpFile, tmp_path: Path) -> None:
    other = replace(random_move(3, CHANNELS, site="middle", seed=9), source="sum")
    path = tmp_path / "adp.safetensors"
    save_adp(AdpFile(adp.predictor, adp.moves, adp.base_model, alternatives={"skin": {"sum": other}}), path)
    back = load_adp(path)
    assert list(back.sources()["skin"]) == [adp.moves["skin"].source, "sum"]
    kept = back.sources()["skin"]["sum"]
    assert (kept.site, kept.source) == ("middle", "sum") and torch.equal(kept.vectors, other.vectors.half().float())
    assert torch.equal(kept.sizes, other.sizes) and torch.equal(back.moves["skin"].sizes, adp.moves["skin"].sizes)


def test_a_file_says_what_it_is(adp: AdpFile) -> None:
    text = adp.text()
    for part in ("portraits", adp.predictor.kind, f"{CHANNELS} channels", "eyeglasses: no, yes", "moved at output.2"):
        assert part in text, text


def damaged(tmp_path: Path, adp: AdpFile, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Path:
    """A file whose tensors and metadata were changed after it was written."""
    path = tmp_path / "damaged.safetensors"
    save_adp(adp, path)
    tensors, meta = read_safetensors(path)
    change(tensors, meta)
    write_safetensors(path, tensors, meta)
    return path


def moves_of(meta: dict[str, str], **change: Any) -> str:
    return json.dumps({a: m | change for a, m in json.loads(meta["moves"]).items()})


DAMAGE: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, str]], Any], str]] = {
    "another format": (lambda t, m: m.update(format="equipoise-sae"), "is not an ADP.*'equipoise-sae'.*'equipoise-adp'"),
    "no metadata at all": (lambda t, m: m.clear(), "is not an ADP.*None"),
    "a later version": (lambda t, m: m.update(format_version="9"), "version '9'.*update Equipoise"),
    "missing metadata": (lambda t, m: [m.pop(k) for k in ("base_model", "attributes")], "lacks the metadata base_model, attributes"),
    "attributes that are no table": (lambda t, m: m.update(attributes="[1]"), "does not fit its own metadata"),
    "metadata that is no JSON": (lambda t, m: m.update(moves="{"), "does not fit its own metadata"),
    "info that is no JSON": (lambda t, m: m.update(info="{"), "does not fit its own metadata"),
    "another width": (lambda t, m: m.update(channels="7"), "does not fit its own metadata"),
    "another kind": (lambda t, m: m.update(kind="cnn"), "does not fit its own metadata.*'cnn'"),
    "a missing tensor": (lambda t, m: t.pop("adp.mean"), "does not fit its own metadata.*mean"),
    "a move without vectors": (lambda t, m: t.pop("move.skin.vectors"), "does not fit its own metadata.*move.skin.vectors"),
    "a move without a site": (lambda t, m: m.update(moves='{"skin": {}}'), "does not fit its own metadata.*site"),
    "a move of an attribute unknown": (lambda t, m: m.update(attributes='{"eyeglasses": ["no", "yes"]}'), "does not fit its own metadata"),
    "a move for two of three classes": (
        lambda t, m: t.update({"move.skin.vectors": t["move.skin.vectors"][:, :2].clone()}),
        "move of 'skin' has vectors.*for 3 classes",
    ),
    "sizes of another number of levels": (lambda t, m: t.update({"move.skin.sizes": t["move.skin.sizes"][1:].clone()}), "move of 'skin'"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    change, pattern = DAMAGE[kind]
    path = damaged(tmp_path, random_adp(ATTRIBUTES, CHANNELS), change)
    with pytest.raises(ValueError, match=pattern) as error:
        load_adp(path)
    text = str(error.value)
    assert "'damaged.safetensors'" in text and "\n" not in text and text.endswith(".")
    assert str(tmp_path) not in text


@pytest.mark.parametrize("keep", [0, 5, 40, 0.5, 0.999])
def test_a_truncated_file_is_refused_in_one_sentence(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    save_adp(random_adp(ATTRIBUTES, CHANNELS), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(ValueError, match=r"'short.safetensors' is not a whole safetensors file .*: copy or download it again\.$") as error:
        load_adp(path)
    assert "\n" not in str(error.value)


def test_another_width_is_refused_where_it_is_met(adp: AdpFile) -> None:
    with pytest.raises(ValueError, match=f"features of {CHANNELS} channels, and this model has 9.*another diffusion model"):
        adp.predictor(torch.randn(2, 9, GRID, GRID), levels(0, 0))


# -- reading -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (26, 38), (5, 7), (2, 2), (1, 1), (3, 64)])
def test_any_size_of_h_is_read(adp: AdpFile, height: int, width: int) -> None:
    pooled = pool(features(3, height, width).half())
    assert pooled.shape == (3, CHANNELS, GRID, GRID) and pooled.dtype == torch.float32
    logits = adp.predictor(pooled, levels(-3, 0, 5))
    assert {a: tuple(v.shape) for a, v in logits.items()} == {"eyeglasses": (3, 2), "skin": (3, 3)}
    assert all(v.isfinite().all() for v in logits.values())


@pytest.mark.parametrize(("height", "width"), [(8, 8), (26, 38), (5, 7), (4, 6), (2, 2), (1, 3), (3, 64), (9, 4)])
def test_averages_are_torchs_adaptive_ones(height: int, width: int) -> None:
    h = features(2, height, width)
    torch.testing.assert_close(pool(h), torch.nn.functional.adaptive_avg_pool2d(h, GRID))
    out = average(h, 3, 5)
    torch.testing.assert_close(out, torch.nn.functional.adaptive_avg_pool2d(h, (3, 5)))


def test_pooling_averages_and_keeps_what_is_4_by_4_already() -> None:
    h = features(2, 8, 12)
    torch.testing.assert_close(pool(h)[:, :, 1, 2], h[:, :, 2:4, 6:9].mean((2, 3)))
    small = features(2)
    assert pool(small) is small


def test_rows_are_read_each_at_its_own_level(adp: AdpFile) -> None:
    """Whatever stands beside it: a batch over several noise levels equals the rows one by one."""
    x, at = features(5), levels(-20, -6, -1.5, 3, 20)
    together = adp.predictor(x, at)
    for i in range(5):
        for attribute, logits in adp.predictor(x[i : i + 1], at[i : i + 1]).items():
            torch.testing.assert_close(logits[0], together[attribute][i], rtol=1e-4, atol=1e-5)


def test_the_level_changes_the_reading_continuously_and_is_clamped_at_the_ends(adp: AdpFile) -> None:
    x = features(1)

    def read(level: float) -> Tensor:
        return adp.predictor(x, levels(level))["skin"][0]

    assert not torch.allclose(read(-3), read(3), atol=1e-3)
    torch.testing.assert_close(read(-1e-4), read(1e-4), rtol=1e-2, atol=1e-2)
    # Beyond the outer knots only the mlp's embedding of the level goes on changing.
    if adp.predictor.kind == "linear":
        torch.testing.assert_close(read(12), read(25))
        torch.testing.assert_close(read(-12), read(-25))


def test_the_linear_kind_is_affine_and_mixes_two_levels() -> None:
    predictor = AttributePredictor({"a": ("x", "y")}, 1, torch.tensor([0.0, 4.0]), "linear")
    with torch.no_grad():
        predictor.weight[0, 0], predictor.weight[1, 0] = 1.0, 3.0
        predictor.bias[0, 1], predictor.bias[1, 1] = -2.0, 2.0
    ones = torch.ones(3, 1, GRID, GRID)
    out = predictor(ones, levels(0, 1, 4))["a"]
    torch.testing.assert_close(out, torch.tensor([[16.0, -2.0], [24.0, -1.0], [48.0, 2.0]]))


def test_temperature_and_statistics_are_interpolated_over_the_level() -> None:
    predictor = AttributePredictor({"a": ("x", "y")}, 1, torch.tensor([0.0, 4.0]), "linear")
    with torch.no_grad():
        predictor.weight[:, 0] = 1 / 16  # logit 0 is the mean of the normalised features
        predictor.temperature["a"].copy_(torch.tensor([1.0, 3.0]))
        predictor.mean.copy_(torch.tensor([[0.0], [2.0]]))
        predictor.std.copy_(torch.tensor([[1.0], [5.0]]))
    x = torch.full((3, 1, GRID, GRID), 7.0)
    out = predictor(x, levels(0, 2, 4))["a"][:, 0]
    torch.testing.assert_close(out, torch.tensor([(7 - 0) / 1 / 1, (7 - 1) / 3 / 2, (7 - 2) / 5 / 3]))


def test_interpolation_between_knots() -> None:
    knots, table = torch.tensor([-2.0, 0.0, 4.0]), torch.tensor([[0.0, 1.0], [10.0, 1.0], [30.0, 5.0]])
    at = levels(-9, -2, -1, 0, 1, 4, 9)
    expected = torch.tensor([[0, 1], [0, 1], [5, 1], [10, 1], [15, 2], [30, 5], [30, 5]], dtype=torch.float32)
    torch.testing.assert_close(at_level(table, knots, at), expected)
    low, weight = interpolation(knots, at)
    assert low.tolist() == [0, 0, 0, 1, 1, 1, 1] and ((weight >= 0) & (weight <= 1)).all()
    assert torch.equal(at_level(table[:1], knots[:1], at), table[:1].expand(7, -1)), "a single knot holds everywhere"
    assert at_level(table.half(), knots, at).dtype == torch.float16


def test_log_snr_of_a_noise_level() -> None:
    assert float(log_snr(1.0)) == 0
    assert float(log_snr(157.407)) == pytest.approx(-10.118, abs=1e-3)
    torch.testing.assert_close(log_snr(torch.tensor([0.1, 10.0])), torch.tensor([4.6052, -4.6052]), rtol=1e-4, atol=0)
    assert log_snr(0.0).isfinite(), "a call at sigma 0 is no error"


# -- moves ---------------------------------------------------------------------------------------------------------------------------


def test_the_window_of_a_move_reaches_to_the_neighbours_of_its_sizes() -> None:
    move = random_move(2, CHANNELS, window=True)
    assert move.window == (-6.0, 6.0)
    assert random_move(2, CHANNELS).window == (-12.0, 12.0)
    move.sizes.zero_()
    low, high = move.window
    assert low > high, "no level is inside"


# -- inference mode ------------------------------------------------------------------------------------------------------------------


def test_loading_and_reading_work_in_inference_mode(adp: AdpFile, tmp_path: Path) -> None:
    path = tmp_path / "adp.safetensors"
    save_adp(adp, path)
    expected = load_adp(path).predictor(features(2), levels(0, 3))
    with torch.inference_mode():
        back = load_adp(path)
        assert back.predictor.state_dict()["knots"].is_inference()
        out = back.predictor(features(2), levels(0, 3))
    for attribute in ATTRIBUTES:
        assert torch.equal(out[attribute], expected[attribute])
