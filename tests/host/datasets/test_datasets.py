"""Save Balanced Dataset, Load Dataset, Train Attribute Classifier and Classifier Fairness in a real host."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

CLASSES = {"tint": ("red", "blue"), "light": ("dark", "bright")}


class Reader:
    """Stands in for a classifier: reads the colour off the first pixel, exactly."""

    name, attributes = "reader", CLASSES

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        first = images[:, 0, 0]
        tint, light = (first[:, 2] > first[:, 0]).float(), (first.amax(-1) > 0.7).float()
        return {"tint": torch.stack([1 - tint, tint], 1) * 0.98 + 0.01, "light": torch.stack([1 - light, light], 1) * 0.56 + 0.22}


def pictures(counts: dict[tuple[str, str], int], seed: int = 0, size: int = 16) -> torch.Tensor:
    """IMAGE of so many pictures per (tint, light), noisy so that no two are alike."""
    g, made = torch.Generator().manual_seed(seed), []
    for (tint, light), n in counts.items():
        image = torch.rand(n, size, size, 3, generator=g) * 0.1
        image[..., 0 if tint == "red" else 2] += 0.5 if light == "dark" else 0.85
        made.append(image)
    return torch.cat(made)


def even(n: int, seed: int = 0) -> torch.Tensor:
    return pictures({(t, x): n for t in CLASSES["tint"] for x in CLASSES["light"]}, seed)


def prepared(node: Any, prompt: Any = None) -> Any:
    """The host gives a copy of the class with the prompt's hidden values; a preview asks for them."""
    return type("Prepared", (node,), {"hidden": type("Hidden", (), {"prompt": prompt, "extra_pnginfo": None})()})


@pytest.fixture
def place(prompt: Any) -> Iterator[Path]:
    """Where data sets are kept; emptied afterwards, with what was trained."""
    root = prompt.base / "output" / "equipoise" / "datasets"
    yield root
    for folder in (root, prompt.base / "output" / "equipoise" / "learning"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (prompt.base / "models" / "attribute_classifiers").glob("set_*.safetensors"):
        file.unlink()


def save(images: torch.Tensor, name: str = "set", graph: Any = None, **given: Any) -> tuple[Any, str, str]:
    from equipoise.nodes.datasets.save_balanced_dataset import SaveBalancedDataset

    options: dict[str, Any] = {"split": "train", "attribute": "", "size": 0, "class_folder": "", "sure": 0.0, "origin": "generated"}
    options |= given
    if "labels" not in options:
        options.setdefault("classifier", Reader())
    return prepared(SaveBalancedDataset, graph).execute(images, name, **options).result


def train(dataset: Any, name: str = "set_classifier", **given: Any) -> tuple[Any, str, torch.Tensor]:
    from equipoise.nodes.datasets.train_attribute_classifier import TrainAttributeClassifier

    options: dict[str, Any] = {"attribute": "tint", "architecture": "cnn", "image_size": "32", "steps": 30, "batch": 8, "augment": "none"}
    options |= {"generated_weight": 1.0, "balance": "", "seed": 0, "overwrite": False} | given
    return prepared(TrainAttributeClassifier).execute(dataset, name, **options).result


def judge(classifier: Any, **given: Any) -> tuple[torch.Tensor, str, float, dict[str, Any]]:
    from equipoise.nodes.datasets.classifier_fairness import ClassifierFairnessNode

    options: dict[str, Any] = {"attribute": "tint", "group": "light", "split": "test"} | given
    chart, report, odds, text = prepared(ClassifierFairnessNode).execute(classifier, **options).result
    return chart, report, odds, json.loads(text)


def target(text: str) -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, CLASSES)


def test_a_set_is_saved_balanced_added_to_and_loaded(place: Path) -> None:
    from equipoise.nodes.datasets.load_dataset import LoadDataset

    offered = pictures({("red", "dark"): 6, ("blue", "dark"): 2})
    found, report, path = save(offered, target=target("tint: uniform"), split="train=0.5, test=0.5", class_folder="tint")
    assert found.counts("tint") == {"red": 2, "blue": 2} and "4 left out" in report and Path(path) == place / "set"
    again, report, _ = save(offered, target=target("tint: uniform"), split="train=0.5, test=0.5", class_folder="tint")
    assert "saved none; 4 were in the data set already" in report and len(again.rows) == 4
    more, _, _ = save(
        pictures({("blue", "bright"): 3}, 1), target=target("tint: blue=0.6, red=0.4"), split="train", size=10, class_folder="tint"
    )
    assert more.counts("tint") == {"red": 2, "blue": 5}
    loaded, text = LoadDataset.execute("set", "tint").result
    assert loaded.counts("tint") == {"red": 2, "blue": 5} and list(loaded.attributes) == ["tint"] and "7 images" in text
    row = json.loads((place / "set" / "train" / "metadata.jsonl").read_text().splitlines()[0])
    assert row["source"] == "classifier reader" and row["origin"] == "generated" and row["tint_probability"] == pytest.approx(0.99)
    assert row["file_name"].split("/")[0] in CLASSES["tint"] and (place / "set" / "train" / row["file_name"]).is_file()


def test_pictures_come_back_as_they_were(place: Path) -> None:
    from equipoise.host.data.feature_sets import read_picture

    images = pictures({("red", "dark"): 1})
    found, _, _ = save(images)
    torch.testing.assert_close(read_picture(found.root / found.rows[0].file), (images[0] * 255).round() / 255, rtol=0, atol=1e-6)


def test_the_graph_is_kept_once_and_a_set_is_noticed_to_change(place: Path) -> None:
    from equipoise.nodes.datasets.load_dataset import LoadDataset

    save(even(1), graph={"1": {"class_type": "A"}})
    before = LoadDataset.fingerprint_inputs("set", "")
    assert before == LoadDataset.fingerprint_inputs("set", "") != LoadDataset.fingerprint_inputs("set", "tint")
    save(even(1, seed=2), graph={"1": {"class_type": "A"}})
    (graph,) = (place / "set" / "graphs").iterdir()
    rows = [json.loads(line) for line in (place / "set" / "train" / "metadata.jsonl").read_text().splitlines()]
    assert {r["graph"] for r in rows} == {graph.stem} and json.loads(graph.read_text()) == {"1": {"class_type": "A"}}
    assert LoadDataset.fingerprint_inputs("set", "") != before
    assert "missing" in LoadDataset.fingerprint_inputs("none", "")


def test_labels_of_ones_own_and_unsure_images(place: Path) -> None:
    from equipoise.methods.labels.labels import LabelSet

    images = even(1)
    labels = LabelSet({"mood": ("calm", "wild")}, tuple(f"{i}.png" for i in range(4)), {"mood": torch.eye(2)[[0, 1, 1, 0]]}, {"mood": "me"})
    found, _, _ = save(images, labels=labels)
    assert found.counts("mood") == {"calm": 2, "wild": 2} and found.rows[0].source == "me"
    with pytest.raises(ValueError, match="there are 4 labels for 2 images"):
        save(images[:2], "other", labels=labels)
    with pytest.raises(ValueError, match="nothing could be saved yet: saved none; 4 left out, because their labels are less sure than 0.9"):
        save(images, "sure", sure=0.9)
    kept, report, _ = save(images, "sure", sure=0.9, attribute="tint")
    assert len(kept.rows) == 4 and "less sure" not in report


def test_what_cannot_be_saved_is_told_in_a_sentence(place: Path) -> None:
    from equipoise.nodes.datasets.save_balanced_dataset import SaveBalancedDataset

    images = even(1)
    images[2, 3, 3] = float("nan")
    cases = [
        ({"images": images}, "1 of 4 images hold values that are no numbers .the first is image 2."),
        ({"images": even(1) * float("nan")}, "4 of 4 images"),
        ({"classifier": None}, "connect either a classifier or labels"),
        ({"attribute": "age"}, "does not read 'age'; it reads: tint, light"),
        ({"target": target_of_another()}, "'beard'"),
        ({"class_folder": "age"}, "cannot name the folders"),
        ({"name": "../up"}, "cannot be the name of a data set"),
        ({"split": "dev"}, "is not a split"),
    ]
    for change, says in cases:
        given = {"images": even(1), "name": "bad"} | change
        with pytest.raises(ValueError, match=says) as caught:
            save(given.pop("images"), given.pop("name"), **given)
        assert "\n" not in str(caught.value)
    assert not (place / "bad" / "train").exists()
    assert SaveBalancedDataset.validate_inputs("set", "train") is True
    assert "not a split" in SaveBalancedDataset.validate_inputs("set", "all")


def target_of_another() -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target("beard: full=0.5, none=0.5", {"beard": ("full", "none")})


def test_an_output_folder_that_cannot_be_written_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True)
    (place / "set").write_text("a file is in the way")
    with pytest.raises(ValueError, match="cannot be written to output/equipoise/datasets/set .*free space, or change the rights"):
        save(even(1))
    (place / "set").unlink()

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("equipoise.methods.datasets.image_folder_writer.append", refused)
    with pytest.raises(ValueError, match="Permission denied"):
        save(even(1))


def test_saving_can_be_interrupted_and_goes_on(place: Path) -> None:
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        save(even(2))
    found, report, _ = save(even(2))
    assert len(found.rows) == 8 and "saved 8" in report


@pytest.mark.parametrize("architecture", ["cnn", "vit"])
def test_a_classifier_is_trained_saved_and_loaded_by_name(place: Path, prompt: Any, architecture: str) -> None:
    from equipoise.nodes.labels.load_attribute_classifier import LoadAttributeClassifier

    dataset, _, _ = save(even(12), split="train=0.75, test=0.25")
    classifier, report, chart = train(dataset, f"set_{architecture}", architecture=architecture, attribute="tint, light", steps=60)
    assert "held out" in report and "trained on 32 images (0 real, 32 generated), 4 held out" in report
    assert chart.shape == (1, 520, 960, 3)
    loaded = LoadAttributeClassifier.execute(f"set_{architecture}.safetensors").result[0]
    assert loaded.attributes == CLASSES == classifier.attributes
    read, new = loaded.probabilities(even(5, seed=9)), Reader().probabilities(even(5, seed=9))
    right = (read["tint"].argmax(1) == new["tint"].argmax(1)).float().mean()
    assert float(right) >= 0.9
    for a in CLASSES:
        torch.testing.assert_close(read[a], classifier.probabilities(even(5, seed=9))[a])


def test_the_same_training_is_not_repeated_and_another_does_not_overwrite(
    place: Path, prompt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _, _ = save(even(4))
    train(dataset)
    path = prompt.base / "models" / "attribute_classifiers" / "set_classifier.safetensors"
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("equipoise.methods.datasets.classifier_training._loss", None)  # a step would fail
        train(dataset)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="another 'set_classifier.safetensors'.*nothing was written"):
        train(dataset, seed=1)
    assert path.read_bytes() == before
    train(dataset, seed=1, overwrite=True)
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match="cannot be the name of a classifier"):
        train(dataset, "../up")


def test_real_and_generated_sets_together_and_weighed(place: Path) -> None:
    real, _, _ = save(even(3), "real", origin="real")
    made, _, _ = save(even(3, seed=4), "made")
    _, report, _ = train(real, more=made, generated_weight=0.5, balance="tint", steps=2)
    assert "trained on 20 images (9 real, 11 generated), 4 held out" in report
    only, _, _ = save(pictures({("red", "dark"): 3}, 7), "red")
    with pytest.raises(ValueError, match="no image shows 'blue' of 'tint'"):
        train(only, "set_other", steps=2)
    with pytest.raises(ValueError, match="nothing is left to train on"):
        train(made, "set_other", generated_weight=0.0, steps=2)
    tests, _, _ = save(even(1, seed=8), "tests", split="test")
    with pytest.raises(ValueError, match="all images of 'tests' are of the split 'test'"):
        train(tests, "set_other")


def test_training_can_be_interrupted_and_goes_on(place: Path, prompt: Any) -> None:
    import comfy.model_management as management

    dataset, _, _ = save(even(4))
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        train(dataset)
    assert not (prompt.base / "models" / "attribute_classifiers" / "set_classifier.safetensors").exists()
    assert "held out" in train(dataset)[1]


def test_folders_that_cannot_be_written_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _, _ = save(even(4))

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("equipoise.methods.core.checkpoint.write_safetensors", refused)
    with pytest.raises(ValueError, match="cannot be written to output/equipoise/learning .*Permission denied.*change the rights"):
        train(dataset, steps=2)


def test_pictures_of_other_sizes_and_foreign_folders(place: Path, prompt: Any) -> None:
    from equipoise.host.data.feature_sets import write_picture
    from equipoise.nodes.datasets.load_dataset import LoadDataset

    folder = prompt.base / "input" / "colours"
    for i, image in enumerate(even(6)):
        shape = ("red", "blue")[i // 12]
        write_picture(image[: 16 - i % 3, :12] if i % 2 else image, folder / "train" / shape / f"{i}.png")
    try:
        dataset, text = LoadDataset.execute("input/colours").result
        assert dataset.attributes == {"label": ("blue", "red")} and "24 images" in text
        classifier, _, _ = train(dataset, "set_colours", attribute="", steps=5)
        assert classifier.attributes == {"label": ("blue", "red")}
        (folder / "train" / "red" / "0.png").write_bytes(b"no picture")
        with pytest.raises(ValueError, match="'0.png' cannot be read"):
            train(dataset, "set_broken", attribute="")
    finally:
        shutil.rmtree(folder)
    with pytest.raises(ValueError, match="there is no data set 'input/colours'"):
        LoadDataset.execute("input/colours")
    with pytest.raises(ValueError, match="there is no data set 'input/../output'"):
        LoadDataset.execute("input/../output")


def biased() -> Any:
    """Reads bright blue pictures as red."""
    reader = Reader()
    read = reader.probabilities

    def probabilities(images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = read(images)
        bright = found["light"].argmax(1) == 1
        found["tint"][bright] = torch.tensor([0.9, 0.1])
        return found

    reader.probabilities, reader.name = probabilities, "biased"
    return reader


def test_an_unfair_classifier_is_measured_as_such(place: Path) -> None:
    dataset, _, _ = save(even(10), split="test")
    chart, report, odds, figures = judge(biased(), dataset=dataset)
    assert odds == 1.0 == figures["equalised_odds_difference"]["value"] and figures["worst_group"] == "bright"
    accuracy = {g["name"]: g["accuracy"]["value"] for g in figures["groups"]}
    assert accuracy == {"dark": 1.0, "bright": 0.5} and figures["demographic_parity_difference"]["value"] == 0.5
    assert chart.ndim == 4 and chart.shape[2:] == (960, 3) and "bright: 20 images, accuracy 50.0%" in report
    fair = judge(Reader(), dataset=dataset)
    assert fair[2] == 0.0 and "how far it agrees with itself" in fair[1] and "agrees with itself" not in report
    assert any("agrees with itself" in note for note in fair[3]["notes"])


def test_images_with_labels_give_the_same_figures(place: Path) -> None:
    from equipoise.methods.labels.labels import LabelSet

    images = even(10)
    dataset, _, _ = save(images, split="test")
    read = Reader().probabilities(images)
    swapped = {"tint": ("blue", "red"), "light": CLASSES["light"]}  # another order of classes
    labels = LabelSet(swapped, tuple(map(str, range(40))), {"tint": read["tint"].flip(1), "light": read["light"]})
    _, report, odds, figures = judge(biased(), images=images, labels=labels)
    assert figures["groups"] == judge(biased(), dataset=dataset)[3]["groups"] and odds == 1.0
    assert "40 images have an unsure label" in report


def test_what_does_not_fit_is_told(place: Path) -> None:
    dataset, _, _ = save(even(2), split="test")
    strange = Reader()
    strange.attributes = {"tint": ("red", "green"), "light": CLASSES["light"]}
    cases = [
        (Reader(), {"dataset": dataset, "attribute": "age"}, "no labels of 'age'; it has: tint, light"),
        (Reader(), {"dataset": dataset, "split": "train"}, "no images in the split 'train'; it has: test"),
        (Reader(), {"dataset": dataset, "group": "tint"}, "two different names"),
        (Reader(), {}, "connect either a data set, or images together with their labels"),
        (Reader(), {"images": even(1)}, "connect either a data set"),
        (strange, {"dataset": dataset}, "has the class 'blue' of 'tint', which the classifier 'reader' does not know"),
    ]
    for classifier, given, says in cases:
        with pytest.raises(ValueError, match=says) as caught:
            judge(classifier, **given)
        assert "\n" not in str(caught.value)
    one, _, _ = save(pictures({("red", "dark"): 1}), "one", split="test")
    _, report, odds, figures = judge(biased(), dataset=one)
    assert odds == -1.0 and "all images are of one group, dark" in report and figures["equalised_odds_difference"]["value"] is None


def test_names_are_offered(place: Path, prompt: Any) -> None:
    from equipoise.host.datasets.datasets import dataset_names

    save(even(1), "first")
    os.makedirs(prompt.base / "input" / "photos", exist_ok=True)
    found = dataset_names()
    assert "first" in found and "input/photos" in found
    os.rmdir(prompt.base / "input" / "photos")
