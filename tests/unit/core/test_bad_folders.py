"""Feature sets, data sets, label files and checkpoints, damaged in ways that hypothesis draws: read as far as whole, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.methods.core.trainer import VectorFit
from equipoise.methods.core.trials import TrialLog
from equipoise.methods.data.feature_set import FeatureSetWriter, iterate_shards, iterate_spatial, open_feature_set
from equipoise.methods.datasets.image_folder import open_image_folder
from equipoise.methods.datasets.image_folder_writer import ImageFolderWriter, Item
from equipoise.methods.labels.label_cache import LabelCache
from equipoise.methods.labels.labels import LabelSet, read_csv, write_csv
from equipoise.models.files import read_safetensors
from equipoise_mutations import ODD_VALUES, bad_input, changed_bytes, changed_json, damaged
from hypothesis import given
from hypothesis import strategies as st

SECRET = "secret.txt"


def sentence(error: Exception) -> str:
    """One line, with an end, that names something by its name."""
    text = str(error)
    assert "'" in text and "\n" not in text and "\0" not in text and text.endswith(".") and 30 < len(text) < 1200, text
    return text


def damaged_lines(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """JSON or JSON Lines with another value at one place, or a file with other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return changed_bytes(draw, content)
    lines = content.decode("utf-8").splitlines() if content.count(b"}\n{") else [content.decode("utf-8")]
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = json.dumps(changed_json(draw, json.loads(lines[at])))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def make_set(folder: Path) -> None:
    writer = FeatureSetWriter(folder, {"base_model": "tiny", "site": "middle", "channels": 4})
    for batch in range(2):
        features, level = torch.rand(2, 3, 4, 4, 4), torch.tensor([-2.0, 0.0, 2.0])
        names, maps = [f"{batch}{i}.png" for i in range(2)], (torch.rand(2, 1, 4, 2, 2), level[:1])
        writer.add(features, level, names, [batch] * 2, ["a", "b"], spatial=maps)


def read_set(folder: Path) -> None:
    found = open_feature_set(folder)
    assert found.digest and found.name
    for entry in found.entries:
        inside = found.image_path(entry).resolve()
        assert inside.is_relative_to(folder.resolve()), inside
    for iterate in (iterate_shards, iterate_spatial):
        for features, level, ids in iterate(folder, found.entries):
            assert len(features) == len(level) == len(ids)


def make_pictures(folder: Path) -> None:
    writer = ImageFolderWriter(folder, {"hair": ("short", "long")})
    items = [Item(f"{i}" * 32, {"hair": ("short", "long")[i % 2]}, lambda: b"png", {"origin": "generated"}) for i in range(4)]
    writer.add(items, {"train": 0.5, "test": 0.5})


def read_pictures(folder: Path) -> None:
    found = open_image_folder(folder)
    assert found.text() and all(sum(found.counts(a).values()) <= len(found.rows) for a in found.attributes)
    for row in found.rows:
        assert (folder / row.file).resolve().is_relative_to(folder.resolve()), row.file
    new = Item("f" * 32, {a: c[0] for a, c in found.attributes.items()}, lambda: b"png")
    ImageFolderWriter(folder, found.attributes).add([new], {"train": 1.0})


@pytest.mark.parametrize(
    "make, read, files",
    [
        (make_set, read_set, ("index.jsonl", "set.json", "shard-000000.safetensors", "spatial-000002.safetensors")),
        (make_pictures, read_pictures, ("dataset.json", "train/metadata.jsonl", "labels.csv")),
    ],
    ids=["feature set", "data set"],
)
def test_a_damaged_folder_is_read_or_refused_in_a_sentence(make: Any, read: Any, files: tuple[str, ...], tmp_path: Path) -> None:
    whole, place = tmp_path / "whole", tmp_path / "place"
    torch.manual_seed(0)
    make(whole)
    (tmp_path / SECRET).write_text("kept", encoding="utf-8")
    refused = 0

    @bad_input(160)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        nonlocal refused
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place / "set")
        file = place / "set" / data.draw(st.sampled_from(files))
        content = file.read_bytes()
        how = damaged if file.suffix == ".safetensors" else changed_bytes if file.suffix == ".csv" else damaged_lines
        file.write_bytes(how(data.draw, content))
        try:
            read(place / "set")
        except ValueError as error:
            sentence(error)
            refused += 1
        assert [p.name for p in place.iterdir()] == ["set"]

    one()
    assert refused > 30
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["whole", "place", SECRET])


@pytest.mark.parametrize("key", ["file", "shard", "spatial"])
@pytest.mark.parametrize(
    "name",
    [f"../{SECRET}", f"../../{SECRET}", "ABSOLUTE", "a\0b", "x" * 5000, "", "..", ".", f"images\\..\\..\\{SECRET}", "C:x", "\ud800"],
    ids=ascii,
)
def test_an_index_that_leads_out_of_its_folder_is_refused(key: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    make_set(folder)
    (tmp_path / SECRET).write_text("kept", encoding="utf-8")
    lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    row[key] = str(tmp_path / SECRET) if name == "ABSOLUTE" else name
    if key == "spatial" and not name:
        pytest.skip("no name means that there is none")
    (folder / "index.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 of index.jsonl in 'set'") as refusal:
        open_feature_set(folder)
    sentence(refusal.value)
    with pytest.raises(ValueError, match="line 1 of index.jsonl in 'set'"):
        FeatureSetWriter(folder)


def test_a_damaged_label_file_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    file, whole = tmp_path / "labels.csv", tmp_path / "whole.csv"
    hair = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    write_csv(LabelSet({"hair": ("short", "long")}, ("a.png", "b.png", "c,d.png"), {"hair": hair}), whole)
    classes = "file,hair\na.png,short\nb.png,long\nc.png,short\n"
    odd = st.sampled_from(
        ("nan", "inf", "-1", "", "1e400", '"', ",", "\n", ";", "\t", "\r", "\0", "file", "hair:short", "x" * 200_000, "\ufeff", "=1+1")
    )
    refused = 0

    @bad_input(150)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        nonlocal refused
        content = data.draw(st.sampled_from((whole.read_bytes(), classes.encode())))
        if data.draw(st.booleans()):
            content = changed_bytes(data.draw, content)
        else:
            place = data.draw(st.integers(0, len(content)))
            content = content[:place] + data.draw(odd).encode() + content[place:]
        file.write_bytes(content)
        try:
            found = read_csv(file)
            assert found.lines() and all(bool(p.isfinite().all()) for p in found.probabilities.values())
        except ValueError as error:
            sentence(error)
            refused += 1

    one()
    assert 40 < refused < 150


def test_what_can_be_made_again_is_made_again(tmp_path: Path) -> None:
    """A label cache, a log of trials and a fit's checkpoint are no user's work: damaged ones count as none."""
    cache, log, fit = LabelCache(tmp_path, "x", {"a": 1}), tmp_path / "log.json", tmp_path / "fit.safetensors"
    cache.add(["one|1|1"], {"hair": torch.tensor([[0.5, 0.5]])})
    cache.save()
    TrialLog(log, {"steps": 1}).keep("key", {"hits": 1})

    def begun() -> VectorFit:
        state = VectorFit({"hair": torch.zeros(1, 2, 1, 2, 4, 4)}, 0.1, 3, 0, ("loss",))
        state.path, state.key = fit, "settings"
        return state

    state = begun()
    state.update((state.vectors["hair"] - 1).square().sum(), [1.0])
    state.save()
    kept = {p: p.read_bytes() for p in (cache.path, log, fit)}
    outcomes = set()

    @bad_input(150)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(kept)))
        content = kept[path]
        path.write_bytes(damaged_lines(data.draw, content) if path == log else damaged(data.draw, content))
        if path == cache.path:
            again = LabelCache(tmp_path, "x", {"a": 1})
            assert "one|1|1" not in again or all(len(t) == 1 and bool(t.isfinite().all()) for t in again.table(["one|1|1"]).values())
        elif path == log:
            found = TrialLog(log, {"steps": 1})
            assert isinstance(found.trials, dict) and all(isinstance(v, dict) for v in found.trials.values())
        else:
            fresh = begun()
            outcomes.add(fresh.resume())
            while fresh.step < 3:
                fresh.update((fresh.vectors["hair"] - 1).square().sum(), [1.0])
            assert len(fresh.curve()) <= 3 and fresh.vectors["hair"].shape == (1, 2, 1, 2, 4, 4)

    one()
    assert {"stale", "resumed"} <= outcomes
    assert _restored(kept, cache.path) and "one|1|1" in LabelCache(tmp_path, "x", {"a": 1})
    assert _restored(kept, log) and TrialLog(log, {"steps": 1}).trials == {"key": {"hits": 1}}
    assert set(read_safetensors(_restored(kept, fit))[0]) >= {"extra.history", "generator"}


def _restored(kept: dict[Path, bytes], path: Path) -> Path:
    path.write_bytes(kept[path])
    return path


@pytest.mark.parametrize("value", [v for v in ODD_VALUES if not isinstance(v, str)], ids=repr)
def test_a_data_set_row_with_an_odd_file_name_is_refused(value: Any, tmp_path: Path) -> None:
    make_pictures(tmp_path / "set")
    path = tmp_path / "set" / "train" / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": value, "hair": "short"}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="row 1 of 'train/metadata.jsonl' has no file_name"):
        open_image_folder(tmp_path / "set")
