"""Feature sets on disk and the training of a predictor from one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from equipoise.methods.adp.train import AdpSettings, train_predictor
from equipoise.methods.data.feature_rows import split_images
from equipoise.methods.data.feature_set import FeatureSetWriter, iterate_shards, read_index
from equipoise.models.noise_level import default_knots

LEVELS = torch.tensor([-6.0, -2.0, 1.0, 4.0])


def _write(folder: Path, n: int = 240) -> torch.Tensor:
    """A feature set in which channel 0 tells the class where noise is low, and nothing else does."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    writer = FeatureSetWriter(folder)
    for start in range(0, n, 40):
        features = torch.randn(40, len(LEVELS), 3, 4, 4, generator=generator)
        features[:, 2:, 0] += 2.0 * labels[start : start + 40, None, None, None].float()
        names = [f"{i}.png" for i in range(start, start + 40)]
        writer.add(features * 5 + 3, LEVELS, names, list(range(40)), [""] * 40)
    return labels


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    _write(tmp_path)
    entries = read_index(tmp_path)
    assert [e.image_id for e in entries] == list(range(240))
    assert entries[41].shard == "shard-000040.safetensors" and entries[41].offset == 4 and entries[41].rows == 4
    shards = list(iterate_shards(tmp_path, entries[30:50]))
    assert [len(ids) for _, _, ids in shards] == [40, 40]
    features, level, ids = shards[1]
    assert features.shape == (40, 3, 4, 4) and features.dtype == torch.float16
    assert ids.tolist() == [i for i in range(40, 50) for _ in range(4)] and level[:4].tolist() == LEVELS.tolist()


def test_a_writer_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    _write(tmp_path, 40)
    FeatureSetWriter(tmp_path).add(torch.zeros(2, 4, 3, 4, 4), LEVELS, ["a", "b"], [1, 2], ["", ""])
    assert [e.image_id for e in read_index(tmp_path)][-2:] == [40, 41]


def test_a_folder_without_an_index_and_a_broken_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no feature set"):
        read_index(tmp_path)
    (tmp_path / "index.jsonl").write_text('{"image_id": 0\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        read_index(tmp_path)


def test_no_image_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    _write(tmp_path)
    train, held = split_images(read_index(tmp_path), 0)
    assert len(held) == 36 and not {e.image_id for e in train} & {e.image_id for e in held}


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_predictor_learns_where_there_is_something_to_read(tmp_path: Path, kind: str) -> None:
    labels = _write(tmp_path)
    soft = torch.nn.functional.one_hot(labels, 2).float()
    predictor, accuracy = train_predictor(tmp_path, {"glasses": soft}, {"glasses": ("no", "yes")}, AdpSettings(kind, epochs=30, batch=64))
    by_level = dict(map(tuple, accuracy["glasses"]))
    assert min(v for k, v in by_level.items() if k > 0) > 0.9
    assert max(v for k, v in by_level.items() if k < 0) < 0.75
    # Normalised features have mean 0 and unit spread at a recorded level.
    features, level, _ = next(iterate_shards(tmp_path, read_index(tmp_path)))
    x = predictor.normalise(features.float(), level)[level == -2.0]
    assert x.mean().abs() < 0.15 and abs(x.std() - 1) < 0.15
    assert len(predictor.knots) == len(default_knots())


def test_train_adp_command_names_the_image_without_a_label(tmp_path: Path) -> None:
    from equipoise.cli.main import main

    _write(tmp_path / "set", 40)
    (tmp_path / "l.csv").write_text("file,hair\n0.png,long\n", encoding="utf-8")
    words = ["train-adp", "--features", str(tmp_path / "set"), "--labels", str(tmp_path / "l.csv"), "--attribute", "hair"]
    assert main([*words, "--out", str(tmp_path / "out.safetensors")]) == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_train_adp_command_writes_a_file_that_loads(tmp_path: Path) -> None:
    from equipoise.cli.main import main
    from equipoise.models.adp import load_adp

    labels = _write(tmp_path / "set", 80)
    rows = "".join(f"{i}.png,{'long' if labels[i] else 'short'}\n" for i in range(80))
    (tmp_path / "l.csv").write_text("file,hair\n" + rows, encoding="utf-8")
    out = tmp_path / "out.safetensors"
    words = ["train-adp", "--features", str(tmp_path / "set"), "--labels", str(tmp_path / "l.csv"), "--attribute", "hair"]
    assert main([*words, "--out", str(out), "--epochs", "2"]) == 0
    loaded = load_adp(out)
    assert loaded.attributes == {"hair": ("short", "long")} and loaded.moves == {}
    assert json.dumps(loaded.info)
