"""The benchmark of predictors: its parts that need neither a host nor minutes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from equipoise.benchmarks.adp import adp, adp_accuracy, adp_timing, clothing, cross_scheduler
from equipoise.benchmarks.adp.cross_scheduler import SAMPLING_METHODS, SamplingMethod, slug
from equipoise.benchmarks.core.stages import load_or_make
from equipoise.factory.portraits import portraits
from equipoise.methods.data.feature_set import open_feature_set
from equipoise.methods.labels.labels import read_csv
from PIL import Image


def test_a_finished_part_is_not_measured_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"fd": torch.tensor(0.25), "nothing": float("nan")}

    first = load_or_make(tmp_path, "part", {"n": 2, "ways": ("a", "b")}, make)
    assert (first["fd"], first["nothing"]) == (0.25, None) and first["seconds"] >= 0
    assert load_or_make(tmp_path, "part", {"n": 2, "ways": ["a", "b"]}, make) == first and len(made) == 1
    load_or_make(tmp_path, "part", {"n": 3, "ways": ["a", "b"]}, make)
    (tmp_path / "part.json").write_text('{"facts": {"n"', encoding="utf-8")
    load_or_make(tmp_path, "part", {"n": 3, "ways": ["a", "b"]}, make)
    assert len(made) == 3 and json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))["facts"]["n"] == 3


def test_clothing_is_measured_as_it_was_drawn() -> None:
    drawn = portraits(1500, 246_810)
    worn = torch.tensor([0, 1, 1, 2])[drawn.labels["profession"]]  # firefighters dark, chefs and doctors white, teachers purple
    found, votes = clothing.clothing_colour(drawn.images)
    assert (found == worn).float().mean() > 0.998
    assert votes.min() >= 0 and (votes >= 0.6).float().mean() > 0.95
    grey = torch.full((1, 3, 32, 32), 0.62)
    assert clothing.clothing_colour(grey)[1].item() == 0, "no colour is near: nothing has voted"


def test_labels_are_written_as_a_person_would(tmp_path: Path) -> None:
    drawn = portraits(6, 3)
    (tmp_path / "plain").mkdir()
    lines = [{"file": f"{i}.png"} for i in range(6)]
    for line, image in zip(lines, drawn.images, strict=True):
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(tmp_path / "plain" / line["file"])
    shares = clothing.write_labels(tmp_path, "plain", lines, tmp_path / "labels.csv")
    read = read_csv(tmp_path / "labels.csv", {"clothing": clothing.CLASSES})
    assert read.files[0] == "0.png" and abs(sum(shares) - 1) < 1e-6
    assert read.probabilities["clothing"].mean(0).tolist() == pytest.approx(shares)


def test_the_timing_set_is_whole_and_readable(tmp_path: Path) -> None:
    labels = adp_timing.random_feature_set(tmp_path / "set", 12, 3, per_shard=5)
    features = open_feature_set(tmp_path / "set")
    assert len(features.entries) == 12 == len(labels.files) and {e.rows for e in features.entries} == {adp_timing.LEVELS}
    assert labels.probabilities["four"].sum(0).tolist() == [3, 3, 3, 3]
    assert (adp_timing.TEST_BED * 16, adp_timing.SD * 16) == (2048, 20480)


def test_accuracy_in_the_middle_of_the_window_is_read_off_the_curve() -> None:
    from equipoise.shipped import weights

    low, high = weights.adp().moves["eyeglasses"].window
    middle = (low + high) / 2
    assert adp_accuracy.accuracy_mid([[low, 0.5], [middle, 0.8], [high, 0.9]], "eyeglasses") == pytest.approx(0.8)
    assert adp_accuracy.accuracy_mid([[0.0, 0.5]], "profession") is None, "it is read and not moved"


def _kind() -> dict[str, object]:
    curve = [[-9.0, 0.6], [0.0, 0.9], [6.0, 0.95]]
    part = {"by_log_snr": curve, "mid": 0.9}
    return {"attributes": {"eyeglasses": part, "hair": part}, "commit": "a" * 40}


def test_the_object_has_the_keys_of_the_contract(tmp_path: Path) -> None:
    ways = SAMPLING_METHODS[:2]
    cells = {w.name: {"fd": 0.01 * (i + 1), "commit": "b" * 40} for i, w in enumerate(ways)}
    made = {"stage_seconds": {"calibrate": 9.0}}
    table = [{"trained": w.name, "made": made, "cells": cells} for w in ways]
    table.append({"trained": "shipped", "made": {}, "cells": {ways[0].name: {"fd": 0.9, "commit": "b" * 40}}})
    part = {"images": 200, "epochs": 2, "processor": 15.0}
    timing = {"test_bed": {"clock": 61.0}, "sd_part": part}
    kinds = {"mlp": _kind(), "linear": _kind()}
    found = adp.adp_result(timing, kinds, {}, None, table, cross_scheduler.TableSizes(), False)
    assert (found["accuracy_mid"], found["by_log_snr"][1]) == (0.9, [0.0, 0.9])
    assert found["worst_cross_scheduler_fd"] == 0.02, "the shipped file's row is no part of it"
    assert found["train_seconds_per_2000x50"] == 61.0 and found["train_seconds_sd_width"] is None
    assert "900 s for 2,000 and 12" in found["notes"]["train_seconds_sd_width"] and "aaaaaaaaa, bbbbbbbbb" in found["notes"]["commit"]
    none = adp.adp_result({**timing, "sd_part": None}, kinds, {}, None, [], cross_scheduler.TableSizes(), True)
    assert none["worst_cross_scheduler_fd"] is None and "no ComfyUI" in none["notes"]["worst_cross_scheduler_fd"]
    adp_accuracy.draw_accuracy(kinds, tmp_path / "kinds.png")
    assert np.asarray(Image.open(tmp_path / "kinds.png")).shape[1] == 960


def test_rows_stand_in_the_order_of_the_samplers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(folder: Path, way: SamplingMethod | None, ways: tuple[SamplingMethod, ...], sizes: object) -> dict[str, object]:
        return {"trained": "shipped" if way is None else way.name}

    monkeypatch.setattr(adp, "table_row", row)
    rows = adp.cross_table(tmp_path, SAMPLING_METHODS, cross_scheduler.TableSizes(), 1)
    assert [r["trained"] for r in rows] == [*(w.name for w in SAMPLING_METHODS), "shipped"]
    assert len({slug(w) for w in SAMPLING_METHODS}) == 5 and slug(SAMPLING_METHODS[1]) == "dpm---2m-karras-20"
