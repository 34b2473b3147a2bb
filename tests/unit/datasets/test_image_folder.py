"""Data sets of labelled images: read from any layout, added to without loss."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.datasets import image_folder_writer
from equipoise.methods.datasets.image_folder import TEST, TRAIN, joined_folders, open_image_folder
from equipoise.methods.datasets.image_folder_writer import ImageFolderWriter, Item, parse_splits, whole_parts
from equipoise.methods.labels.labels import read_csv

KNOWN = {"glasses": ("yes", "no"), "hair": ("short", "long")}


def digest(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def item(n: int, glasses: str = "no", hair: str = "short") -> Item:
    data = f"picture {n}".encode()
    return Item(digest(n), {"glasses": glasses, "hair": hair}, lambda: data, {"origin": "generated", "source": "labeller"})


def many(yes: int, no: int, start: int = 0) -> list[Item]:
    return [item(start + i, "yes" if i < yes else "no") for i in range(yes + no)]


def writer(root: Path, **options: Any) -> ImageFolderWriter:
    return ImageFolderWriter(root, KNOWN, **options)


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    path = root / split / "metadata.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def files_of(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    saved = writer(tmp_path / "set").add(many(4, 6), {TRAIN: 0.5, TEST: 0.5})
    assert len(saved.files) == 10 and saved.splits == {TRAIN: 5, TEST: 5}
    found = open_image_folder(tmp_path / "set")
    assert found.attributes == KNOWN and found.counts("glasses") == {"yes": 4, "no": 6}
    assert found.of_split(TEST).counts("glasses") == {"yes": 2, "no": 3}  # every split composed alike
    assert {r.origin for r in found.rows} == {"generated"} and {r.source for r in found.rows} == {"labeller"}
    assert sorted(found.indices("glasses")) == [0] * 4 + [1] * 6
    assert (tmp_path / "set" / found.rows[0].file).read_bytes().startswith(b"picture")
    assert "10 images (train 5, test 5; generated 10)" in found.text()


def test_the_csv_is_one_that_the_label_nodes_read(tmp_path: Path) -> None:
    writer(tmp_path / "set").add([item(0, "yes", "long"), item(1)], {TRAIN: 1.0})
    labels = read_csv(tmp_path / "set" / "labels.csv")
    assert set(labels.attributes) == set(KNOWN) and labels.files[0].startswith("train/")
    assert labels.counts("glasses") == (1, 1)


def test_class_folders(tmp_path: Path) -> None:
    writer(tmp_path / "set", class_folder="glasses").add(many(1, 1), {TRAIN: 1.0})
    assert [r["file_name"].split("/")[0] for r in rows_of(tmp_path / "set", TRAIN)] == ["yes", "no"]
    assert len(open_image_folder(tmp_path / "set").rows) == 2
    with pytest.raises(ValueError, match="other class folders"):
        writer(tmp_path / "set")
    with pytest.raises(ValueError, match="'age' cannot name the folders"):
        writer(tmp_path / "other", class_folder="age")
    with pytest.raises(ValueError, match="do not give different folder names"):
        ImageFolderWriter(tmp_path / "third", {"a": ("x/y", "x:y")}, class_folder="a")


def test_saving_again_adds_what_is_new_and_changes_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "set"
    writer(root).add(many(2, 2), {TRAIN: 1.0})
    before = {f: (root / f).read_bytes() for f in files_of(root)}
    again = writer(root).add([*many(2, 2), item(9), item(9)], {TRAIN: 1.0})
    assert again.known == 5 and len(again.files) == 1
    assert all((root / f).read_bytes().startswith(data) for f, data in before.items())
    assert len(rows_of(root, TRAIN)) == 5 and "5 were in the data set already" in again.text()


def test_an_image_is_in_one_split_only(tmp_path: Path) -> None:
    root = tmp_path / "set"
    writer(root).add(many(4, 4), {TRAIN: 1.0})
    assert writer(root).add(many(4, 4), {TEST: 1.0}).files == []
    assert rows_of(root, TEST) == []


@pytest.mark.parametrize("stop", ["before the row", "before the name", "within the row"])
def test_a_lost_process_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    root = tmp_path / "set"
    writer(root).add([item(0)], {TRAIN: 1.0})

    def lost(*_: Any) -> None:
        raise KeyboardInterrupt

    def half(path: Path, text: str) -> None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stop == "before the name":
            patch.setattr(image_folder_writer.os, "rename", lost)
        else:
            patch.setattr(image_folder_writer, "append", lost if stop == "before the row" else half)
        with pytest.raises(KeyboardInterrupt):
            writer(root).add([item(1, "yes")], {TRAIN: 1.0})
    assert len(open_image_folder(root).rows) == 1  # a reader sees a whole set at any time
    saved = writer(root).add([item(1, "yes")], {TRAIN: 1.0})
    assert (len(saved.files), saved.known) == ((0, 1) if stop == "before the name" else (1, 0))
    assert not [f for f in files_of(root) if "pending" in f]
    found = open_image_folder(root)
    assert found.counts("glasses") == {"yes": 1, "no": 1} and not found.notes
    assert len(list(csv.reader((root / "labels.csv").read_text().splitlines()))) == 3


def test_interrupted_between_images_keeps_those_before(tmp_path: Path) -> None:
    calls = iter([None, None, KeyboardInterrupt])

    def each() -> None:
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(KeyboardInterrupt):
        writer(tmp_path / "set").add(many(0, 5), {TRAIN: 1.0}, each=each)
    saved = writer(tmp_path / "set").add(many(0, 5), {TRAIN: 1.0})
    assert saved.known == 2 and len(saved.files) == 3


def test_a_csv_that_was_corrected_by_hand_stays_so(tmp_path: Path) -> None:
    root = tmp_path / "set"
    writer(root).add(many(1, 1), {TRAIN: 1.0})
    path = root / "labels.csv"
    corrected = path.read_text().replace(",yes,", ",no,").rstrip("\n")  # an editor that leaves the last line end out
    path.write_text(corrected)
    writer(root).add([item(7)], {TRAIN: 1.0})
    assert path.read_text().startswith(corrected + "\n") and len(path.read_text().splitlines()) == 4


def test_a_picture_that_somebody_put_there_is_not_overwritten(tmp_path: Path) -> None:
    root = tmp_path / "set"
    writer(root)
    (root / "train").mkdir()
    own = root / "train" / f"{digest(0)[:24]}.png"
    own.write_bytes(b"mine")
    with pytest.raises(ValueError, match="move it away"):
        writer(root).add([item(0)], {TRAIN: 1.0})
    assert own.read_bytes() == b"mine"


def cells(root: Path) -> Counter[str]:
    return Counter(r.labels["glasses"] for r in open_image_folder(root).rows)


def test_a_target_without_a_size_keeps_the_whole_set_at_its_shares(tmp_path: Path) -> None:
    root, target = tmp_path / "set", parse_target("glasses: yes=0.5, no=0.5", KNOWN)
    saved = writer(root).add(many(3, 9), {TRAIN: 1.0}, target)
    assert cells(root) == {"yes": 3, "no": 3} and saved.full == 6
    writer(root).add(many(4, 1, start=100), {TRAIN: 1.0}, target)
    assert cells(root) == {"yes": 4, "no": 4}
    with pytest.raises(ValueError, match="holds no labelled pictures"):
        writer(tmp_path / "empty").add(many(0, 5), {TRAIN: 1.0}, target)
        open_image_folder(tmp_path / "empty")


def test_a_target_with_a_size_fills_every_cell_and_then_stops(tmp_path: Path) -> None:
    root, target = tmp_path / "set", parse_target("glasses: yes=0.25, no=0.75", KNOWN)
    for start in (0, 100, 200):
        writer(root).add(many(4, 4, start), {TRAIN: 1.0}, target, size=8)
    assert cells(root) == {"yes": 2, "no": 6}
    assert writer(root).add(many(1, 1, 900), {TRAIN: 1.0}, target, size=8).full == 2
    assert len(writer(tmp_path / "plain").add(many(5, 5), {TRAIN: 1.0}, size=3).files) == 3


def test_joint_targets_count_combinations(tmp_path: Path) -> None:
    offered = [item(i, g, h) for i, (g, h) in enumerate([("yes", "long")] * 2 + [("no", "long")] * 5 + [("yes", "short"), ("no", "short")])]
    writer(tmp_path / "set").add(offered, {TRAIN: 1.0}, parse_target("glasses x hair: uniform", KNOWN))
    found = Counter((r.labels["glasses"], r.labels["hair"]) for r in open_image_folder(tmp_path / "set").rows)
    assert set(found.values()) == {1} and len(found) == 4


def test_another_set_of_that_name_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    writer(root).add(many(1, 1), {TRAIN: 1.0})
    with pytest.raises(ValueError, match="has other labels"):
        ImageFolderWriter(root, {"glasses": ("yes", "no")})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="not a data set of Equipoise"):
        writer(tmp_path / "photos")
    with pytest.raises(ValueError, match="every data set has"):
        ImageFolderWriter(tmp_path / "third", {"origin": ("a", "b")})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("train", {"train": 1.0}),
        ("train=0.8, test=0.2", {"train": 0.8, "test": 0.2}),
        ("train=3;validation=1", {"train": 0.75, "validation": 0.25}),
    ],
)
def test_splits_are_read(text: str, wanted: dict[str, float]) -> None:
    assert parse_splits(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "training", "train=0", "train=x", "train, train", "train=inf", "train=-1"])
def test_bad_splits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="split"):
        parse_splits(text)


def test_whole_parts_sum_up() -> None:
    assert whole_parts([1 / 3] * 3, 10) == [4, 3, 3] and whole_parts([0.04, 0.96], 10) == [0, 10]
    assert sum(whole_parts([0.17, 0.33, 0.5], 101)) == 101


def write(root: Path, files: Sequence[str]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")


def test_folders_named_after_classes_are_read(tmp_path: Path) -> None:
    write(tmp_path, ["train/cat/1.png", "train/dog/2.jpg", "val/cat/3.png", "train/dog/.hidden.png", "train/loose.png", "test/dog/4.png"])
    found = open_image_folder(tmp_path)
    assert found.attributes == {"label": ("cat", "dog")}
    assert Counter(r.split for r in found.rows) == {"train": 2, "validation": 1, "test": 1}
    assert {r.origin for r in found.rows} == {"real"}


def test_metadata_of_others_is_read(tmp_path: Path) -> None:
    write(tmp_path, ["a.png", "b.png", "sub/c.png"])
    rows = [
        {"file_name": "a.png", "age": "young", "text": "somebody", "score": 0.3},
        {"file_name": "b.png", "age": "old", "text": "somebody else"},
        {"file_name": "sub/c.png", "age": None, "text": "a third"},
        {"file_name": "gone.png", "age": "old"},
        {"file_name": "../outside.png", "age": "old"},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = open_image_folder(tmp_path)
    assert found.attributes == {"age": ("old", "young")} and len(found.rows) == 3
    assert found.indices("age") == [1, 0, -1]
    assert found.notes == ("1 rows were left out, because their pictures are missing",)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,age\na.png,young\nb.png,old\n")
    assert open_image_folder(tmp_path).counts("age") == {"old": 1, "young": 1}


def test_data_sets_are_put_together(tmp_path: Path) -> None:
    write(tmp_path / "real", ["cat/1.png", "dog/2.png"])
    writer(tmp_path / "ours").add(many(1, 1), {TRAIN: 1.0})
    ImageFolderWriter(tmp_path / "third", {"label": ("dog", "fox"), "other": ("a", "b")})
    one, ours = open_image_folder(tmp_path / "real"), open_image_folder(tmp_path / "ours")
    with pytest.raises(ValueError, match="no attribute in common"):
        joined_folders([one, ours])
    assert joined_folders([ours, ours]) == KNOWN


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("{}\n", "has no file_name"),
        ("[1]\n", "is not a JSON object"),
        ("{x\n{}\n", "row 1 .* is not a JSON object"),
        ("", "no labelled pictures"),
    ],
)
def test_broken_metadata_is_named(tmp_path: Path, lines: str, says: str) -> None:
    write(tmp_path, ["a.png"])
    (tmp_path / "metadata.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=says):
        open_image_folder(tmp_path)


def test_bad_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no data set"):
        open_image_folder(tmp_path / "none")
    write(tmp_path, ["cat/1.png"])
    with pytest.raises(ValueError, match="no labels"):
        open_image_folder(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="damaged"):
        open_image_folder(tmp_path)
    writer(tmp_path / "ours").add(many(1, 1), {TRAIN: 1.0})
    found = open_image_folder(tmp_path / "ours")
    with pytest.raises(ValueError, match="no images in the split 'test'; it has: train"):
        found.of_split(TEST)
    with pytest.raises(ValueError, match="no labels of 'age'"):
        found.only(["age"])


def test_hugging_face_reads_it(tmp_path: Path) -> None:
    """Their own loader, where it is installed."""
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    root = tmp_path / "set"

    def png(n: int) -> bytes:
        path = tmp_path / "one.png"
        Image.new("RGB", (4, 4), (n, 0, 0)).save(path)
        return path.read_bytes()

    items = [
        Item(digest(n), {"glasses": "yes" if n % 2 else "no", "hair": "long"}, lambda n=n: png(n), {"origin": "real"}) for n in range(6)
    ]
    writer(root, class_folder="glasses").add(items, {TRAIN: 0.5, TEST: 0.5})
    loaded = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test"} and len(loaded["train"]) + len(loaded["test"]) == 6
    assert set(loaded["train"][0]) >= {"image", "glasses", "hair", "origin"}
    assert Counter(loaded["train"]["glasses"]) + Counter(loaded["test"]["glasses"]) == {"yes": 3, "no": 3}
