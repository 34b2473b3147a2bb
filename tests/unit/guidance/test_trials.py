"""Calibration by trials on a bench whose outcome is a known function of direction and size: what is kept, chosen, and not run twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.methods.core.trials import TrialLog, TrialReadings, Trials
from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set
from equipoise.methods.guidance.calibrate import MoveBench, band_sizes, directions_of, reading_levels, trials_needed, with_moves
from equipoise.methods.guidance.direction_rows import direction_levels, images_for_directions, rows_at
from equipoise.methods.guidance.directions import KINDS
from equipoise.methods.guidance.run import GuidanceSettings
from equipoise.methods.labels.labels import LabelSet
from equipoise.models.adp import AdpFile, AttributePredictor, Move, load_adp, save_adp

KNOTS = torch.tensor([-7.0, -2.0, 3.0])
ATTRIBUTES = {"hair": ("short", "long"), "hat": ("no", "yes")}
N = 100


def file(**moves: Move) -> AdpFile:
    predictor = AttributePredictor(ATTRIBUTES, 2, torch.tensor([-8.0, 0.0, 8.0]))
    info = {"accuracy_by_log_snr": {"hair": [[-8.0, 0.5], [0.0, 0.8], [8.0, 0.98]]}}
    return AdpFile(predictor.eval().requires_grad_(False), moves, "tiny", info)


def move(source: str, seed: int = 0) -> Move:
    vectors = torch.randn(3, 2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Move("middle", KNOTS, vectors, torch.ones(3, 2), source=source, relative=True)


class World:
    """Images of which ``hits(source, sizes, strength)`` become what they were assigned, ``doubt`` of them doubtful, and hats come along
    with long hair by ``hats``."""

    def __init__(
        self, hits: Callable[..., float], doubt: Callable[..., float] = lambda *a: 0.0, hats: Callable[..., float] = lambda *a: 0.0
    ) -> None:
        self.hits, self.doubt, self.hats = hits, doubt, hats
        self.calls: list[tuple[str, list[float], float]] = []

    def __call__(self, adp: AdpFile | None, settings: GuidanceSettings | None) -> TrialReadings:
        cells = torch.arange(N) % 2
        if adp is None:
            return TrialReadings({"hair": torch.eye(2)[cells], "hat": torch.eye(2)[torch.zeros(N, dtype=torch.long)]})
        (made,) = adp.moves.values()
        given = (made.source, band_sizes(made), settings.strength)
        self.calls.append(given)
        missed = torch.arange(N) >= round(N * self.hits(*given))
        hair = torch.eye(2)[torch.where(missed, 1 - cells, cells)]
        hair[: round(N * self.doubt(*given))] = 0.5
        hat = ((torch.arange(N) < round(N * self.hats(*given))) & (cells == 1)).long()
        return TrialReadings({"hair": hair, "hat": torch.eye(2)[hat]}, cells)


def bench(world: World, log: Path | None = None, adp: AdpFile | None = None, **settings: Any) -> MoveBench:
    return MoveBench(adp or file(), Trials(world, N, TrialLog(log, {"judge": "the test", **settings})), 3)


def reach(source: str, sizes: list[float], strength: float) -> float:
    """The sum needs less than the others; high noise works backwards."""
    need = {"mean-difference": 0.8, "linear-discriminant": 8.0, "sum": 0.4}[source]
    return min(1.0, 0.5 + 0.45 * min(1.0, sizes[1] * strength / need) - 0.2 * (sizes[0] > 0) + 0.05 * (sizes[0] < 0))


def test_the_direction_that_hits_most_is_used_and_the_others_are_kept(tmp_path: Path) -> None:
    world = World(reach)
    done = bench(world).calibrate("hair", [move(k) for k in KINDS])
    made = done.file
    # "sum" and "mean-difference" both hit all; what the middle band and the sign at high noise add is found for each.
    record = made.info["calibration"]["hair"]["compare_directions"]
    assert record["sizes"]["sum"] == [-0.4, 0.4, 0.0] and record["sizes"]["mean-difference"] == [-0.8, 0.8, 0.0]
    assert record["hits"]["sum"] == 1.0 and record["hits"]["linear-discriminant"] == pytest.approx(0.73, abs=0.011)
    assert made.moves["hair"].source == "mean-difference" and set(made.alternatives["hair"]) == {"sum", "linear-discriminant"}
    assert band_sizes(made.moves["hair"]) == [-0.8, 0.8, 0.0]
    assert record["window"]["sum"] == [-7.0, 3.0] and record["images"] == N and record["judge"] == "the test"
    assert made.info["accuracy_mid"]["hair"] == pytest.approx(0.725, abs=1e-3), "in the middle of the window, at log-SNR -2"
    assert done.lines[0] == "hair: with 'mean-difference', 100.0% of 100 images show their class (short 100%, long 100%)"
    assert [t["best"] for t in done.trials["hair"]].count(True) == 1 and [t["chosen"] for t in done.trials["hair"]].count(True) == 3
    save_adp(made, tmp_path / "a.safetensors")
    back = load_adp(tmp_path / "a.safetensors")
    assert set(back.alternatives["hair"]) == set(made.alternatives["hair"]) and back.info["calibration"] == made.info["calibration"]


def test_nothing_more_is_tried_where_all_hit_or_hits_fall() -> None:
    world = World(lambda *a: 1.0)
    bench(world).calibrate("hair", [move("sum")])
    assert [sizes for _, sizes, strength in world.calls if strength == 1] == [[0.0, 0.15, 0.0]]
    world = World(lambda source, sizes, strength: 0.9 - 0.5 * max(0.0, sizes[1] - 0.4))
    done = bench(world).calibrate("hair", [move("sum")])
    middle = [sizes[1] for _, sizes, strength in world.calls if strength == 1 and sizes[0] == sizes[2] == 0]
    assert middle == [0.15, 0.4, 0.8] and band_sizes(done.file.moves["hair"]) == [0.0, 0.15, 0.0], "the smallest that does as well"


def test_a_direction_that_makes_images_doubtful_gives_way() -> None:
    """Three points above plain images are allowed, more are not, whatever it hits."""
    doubts = {"mean-difference": 0.03, "linear-discriminant": 0.0, "sum": 0.10}
    world = World(lambda source, sizes, strength: {"sum": 1.0}.get(source, 0.9), lambda source, *a: doubts[source])
    done = bench(world).calibrate("hair", [move(k) for k in KINDS])
    assert done.file.moves["hair"].source in ("linear-discriminant", "mean-difference")
    assert done.file.info["calibration"]["hair"]["compare_directions"]["unsure"] == doubts


@pytest.mark.parametrize(
    ("doubt", "hats", "limit", "why"),
    [
        (lambda s, z, x: 0.0, lambda s, z, x: 0.0, 2.0, "quality holds up to strength 2; no higher strength was tried"),
        (lambda s, z, x: 0.2 * (x > 1.3), lambda s, z, x: 0.0, 1.25, "at 1.6, 20.0% of the images are unsure (before: 0.0%)"),
        (lambda s, z, x: 0.0, lambda s, z, x: 0.5 * (x > 1.2), 1.0, "at 1.25, the drift of other attributes rises from 0.000 to 0.250"),
        (lambda s, z, x: 0.2, lambda s, z, x: 0.0, None, "quality: at strength 1, 20.0% of the images are unsure (plain images: 0.0%)"),
    ],
)
def test_where_quality_ends(doubt: Any, hats: Any, limit: float | None, why: str) -> None:
    done = bench(World(reach, doubt, hats)).calibrate("hair", [move("sum")])
    quality = done.file.info["calibration"]["hair"]["compare_directions"]["quality"]
    assert quality["limit"] == limit and why in quality["text"] and any(why in line for line in done.lines)


def test_drift_is_measured_against_plain_images() -> None:
    """Half of those with long hair get a hat that plain ones do not have: a quarter of the mean distance over both classes."""
    world = World(lambda *a: 1.0, hats=lambda *a: 0.5)
    record = bench(world).record("hair", move("sum"))
    assert record["drift"] == pytest.approx(0.25) and record["hits"] == [1.0, 1.0] and record["unsure"] == 0


def test_trials_are_written_down_and_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.json"
    world = World(reach)

    class Cut(Exception):
        pass

    def cut(adp: AdpFile | None, settings: GuidanceSettings | None) -> TrialReadings:
        if len(world.calls) == 5:
            raise Cut
        return world(adp, settings)

    moves = [move(k) for k in KINDS]
    with pytest.raises(Cut):
        MoveBench(file(), Trials(cut, N, TrialLog(path, {"judge": "the test"})), 3).calibrate("hair", moves)
    assert len(json.loads(path.read_text(encoding="utf-8"))["trials"]) == 6, "five, and the plain images"
    first = bench(world, path).calibrate("hair", moves)
    total = len(world.calls)
    assert total + 1 == len(json.loads(path.read_text(encoding="utf-8"))["trials"]) <= trials_needed({"hair": moves})
    again = bench(world, path).calibrate("hair", moves)
    assert len(world.calls) == total and again.lines == first.lines and again.trials == first.trials
    assert torch.equal(again.file.moves["hair"].sizes, first.file.moves["hair"].sizes)
    log = TrialLog(path, {"judge": "another"})
    assert log.stale and not log.trials
    for broken in ("{", "[]", '{"settings": {}}'):
        path.write_text(broken, encoding="utf-8")
        assert TrialLog(path, {"judge": "the test"}).stale


def test_a_learned_move_is_calibrated_by_gains() -> None:
    learned = Move("middle", KNOTS, torch.randn(3, 2, 2, 2, 4, 4), torch.full((3, 2), 0.5), source="learned")
    world = World(lambda source, sizes, strength: min(1.0, 0.5 + abs(sizes[1]) * 0.5))
    done = bench(world).calibrate("hair", [learned])
    assert done.file.moves["hair"].source == "learned" and float(done.file.moves["hair"].sizes.max()) > 0.9
    assert len(world.calls) <= trials_needed({"hair": [learned]}) - 1


def test_a_move_that_hit_more_before_stays_the_one_used() -> None:
    known = {"calibration": {"hair": {"calibrate_learned": {"hits": {"learned": 0.99}}}}}
    old = replace(file(hair=replace(move("learned"), source="learned")), info=known)
    record = {"hits": {"sum": 0.9}}
    kept = with_moves(old, "hair", {"sum": move("sum")}, "sum", record)
    assert kept.moves["hair"].source == "learned" and list(kept.alternatives["hair"]) == ["sum"]
    better = with_moves(old, "hair", {"sum": move("sum")}, "sum", {"hits": {"sum": 0.99}})
    assert better.moves["hair"].source == "sum" and list(better.alternatives["hair"]) == ["learned"]
    assert better.info["calibration"]["hair"]["calibrate_learned"] == {"hits": {"learned": 0.99}} and "compare_directions" not in known


def test_finished_images_are_read_where_the_predictor_reads_best() -> None:
    assert reading_levels(file(), -10, 9)["hair"] == 8.0
    assert reading_levels(file(), -10, 4)["hair"] == 0.0, "of what the model knows"
    assert reading_levels(file(), 2, 4) == {"hair": 2.0, "hat": 2.0}, "nothing is known there"


# -- rows for directions -------------------------------------------------------------------------------------------------------------


def test_directions_are_read_off_at_most_ten_levels(tmp_path: Path) -> None:
    level = torch.linspace(-6, 6, 25)
    generator = torch.Generator().manual_seed(0)
    writer = FeatureSetWriter(tmp_path / "set", {"base_model": "tiny"})
    truth = (torch.arange(60) % 3 == 0).long()
    for start in range(0, 60, 20):
        x = torch.randn(20, 25, 3, 4, 4, generator=generator)
        x[:, :, 1] += 2.0 * truth[start : start + 20, None, None, None]
        writer.add(x, level, [f"{i}.png" for i in range(start, start + 20)], [0] * 20, [""] * 20)
    features = open_feature_set(tmp_path / "set")
    levels = direction_levels(features)
    assert len(levels) == 10 and levels[0] == -6 and levels[-1] == 6 and set(levels) <= {round(v, 4) for v in level.tolist()}
    rows = rows_at(features.folder, features.entries[5:25], levels)
    assert rows.shape == (20, 10, 3, 4, 4) and rows.dtype == torch.float16
    whole = rows_at(features.folder, features.entries, [6.0, -6.0])
    assert torch.equal(whole[5:25, 1], rows[:, 0]) and torch.equal(whole[5:25, 0], rows[:, -1])
    labels = LabelSet({"hair": ("short", "long")}, tuple(e.file for e in features.entries), {"hair": torch.eye(2)[truth]})
    found = directions_of(features, labels, "hair")
    assert [m.source for m in found] == list(KINDS) and all(m.relative and len(m.knots) == 10 for m in found)
    share = found[0].vectors[:, 1, 0, 1].pow(2).sum((1, 2)) / found[0].vectors[:, 1, 0].pow(2).sum((1, 2, 3))
    assert share.min() > 0.8, "the direction points along the channel that tells the classes apart"


def test_images_for_directions_are_chosen_evenly_and_sure_ones_first() -> None:
    p = torch.zeros(100, 2)
    p[:, 0], p[90:, 1], p[90:, 0] = 0.99, 0.99, 0.01
    p[:50, 0], p[:50, 1] = 0.7, 0.3
    chosen = images_for_directions(p, 20)
    assert len(chosen) == 20 and sum(i >= 90 for i in chosen) == 10 and all(i >= 50 for i in chosen) and chosen == sorted(chosen)
    doubtful = p.clone()
    doubtful[90:] = torch.tensor([0.4, 0.6])
    assert sum(i >= 90 for i in images_for_directions(doubtful, 200)) == 10, "a class that has only doubtful images keeps them"


def test_rows_at_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no rows"):
        rows_at(tmp_path, [], [0.0])
