"""Label sources on a feature set's pictures in a real host: classifiers, skin tone, prompts, label files, and what they share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

N = 40
PROMPTS = ("a chef with eyeglasses", "a chef without eyeglasses")


def write_set(folder: Path, images: torch.Tensor, prompts: tuple[str, ...] = PROMPTS) -> Any:
    """A feature set with these pictures [N, 3, H, W]; its features are of no account."""
    from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set

    n = len(images)
    names = [f"{i:04d}.png" for i in range(n)]
    (folder / "images").mkdir(parents=True)
    for name, image in zip(names, images, strict=True):
        save_picture(folder / "images" / name, image)
    writer = FeatureSetWriter(folder, {})
    writer.add(torch.zeros(n, 2, 3, 4, 4), torch.tensor([-1.0, 1.0]), names, list(range(n)), [prompts[i % len(prompts)] for i in range(n)])
    return open_feature_set(folder)


def save_picture(path: Path, image: torch.Tensor) -> None:
    Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy()).save(path)


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Drawn portraits [N, 3, 32, 32] as 8-bit files hold them, and what was drawn."""
    from equipoise.factory.train_classifiers import draw_unseen

    images, labels = draw_unseen(N)
    return (images * 255).round() / 255, labels


@pytest.fixture
def features(prompt: Any, drawn: Any) -> Iterator[Any]:
    """A set of them below the host's output folder."""
    from equipoise.host.data.feature_sets import set_folder

    shutil.rmtree(set_folder("labelled"), ignore_errors=True)
    yield write_set(set_folder("labelled"), drawn[0])


@pytest.fixture
def vit_folder(prompt: Any) -> Iterator[str]:
    """The shipped labeller's eyeglasses as a transformers ViT in the host's model folder."""
    from equipoise.benchmarks.neuron_path.vit_export import export_vit
    from equipoise.shipped import weights

    folder = prompt.base / "models" / "attribute_classifiers" / "eyeglasses_vit"
    if not folder.exists():
        with torch.inference_mode(False):
            export_vit(weights.classifier(weights.LABELLER), "eyeglasses", folder)
    yield folder.name


def classifier(name: str) -> Any:
    from equipoise.nodes.labels.load_attribute_classifier import LoadAttributeClassifier

    return LoadAttributeClassifier.execute(name).result[0]


def with_classifier(*arguments: Any, **options: Any) -> Any:
    from equipoise.nodes.labels.label_features_with_classifier import LabelFeaturesWithClassifier

    return LabelFeaturesWithClassifier.execute(*arguments, **options).result


# Classifiers


def test_a_transformers_vit_labels_as_the_network_it_was_exported_from(features: Any, drawn: Any, vit_folder: str) -> None:
    from equipoise.shipped import weights

    images, truth = drawn
    labels, report = with_classifier(features, classifier(vit_folder))
    ours = weights.classifier(weights.LABELLER).probabilities(images)["eyeglasses"]
    assert labels.attributes == {"eyeglasses": ("yes", "no")} and labels.files == tuple(f"{i:04d}.png" for i in range(N))
    torch.testing.assert_close(labels.probabilities["eyeglasses"], ours, rtol=0, atol=2e-3)
    assert (labels.probabilities["eyeglasses"].argmax(1) == truth["eyeglasses"]).float().mean() >= 0.95
    assert report.startswith("eyeglasses (classifier eyeglasses_vit): yes ") and "unsure" in report


def test_several_attributes_of_one_classifier_and_a_chain(features: Any, drawn: Any, vit_folder: str) -> None:
    ours = classifier("portraits_judge.safetensors")
    first, _ = with_classifier(features, classifier(vit_folder))
    both, report = with_classifier(features, ours, attributes="hair, skin_tone", labels=first)
    assert list(both.attributes) == ["eyeglasses", "hair", "skin_tone"] and "eyeglasses" not in report
    assert (both.probabilities["hair"].argmax(1) == drawn[1]["hair"]).float().mean() >= 0.95
    with pytest.raises(ValueError, match="'eyeglasses' is labelled by both"):
        with_classifier(features, ours, labels=first)
    with pytest.raises(ValueError, match="does not read 'beard'; it reads: eyeglasses, hair"):
        with_classifier(features, ours, attributes="beard")


def test_a_folder_with_pickled_weights_is_refused_in_words(prompt: Any, vit_folder: str) -> None:
    source = prompt.base / "models" / "attribute_classifiers" / vit_folder
    folder = shutil.copytree(source, source.with_name("pickled_vit"), dirs_exist_ok=True)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"'pickled_vit' has no \.safetensors weights, and no other format is loaded"):
        classifier("pickled_vit")


# What all that look at pictures share


class Counting:
    """Counts the pictures that a classifier is shown; raises after so many, where asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loaded: Any, stop_after: int | None = None) -> None:
        self.seen, self._read, self._stop = 0, loaded.model.probabilities, stop_after
        self.shapes: set[tuple[int, ...]] = set()
        monkeypatch.setattr(loaded.model, "probabilities", self)

    def __call__(self, images: torch.Tensor, batch: int = 256) -> dict[str, torch.Tensor]:
        import comfy.model_management as management

        self.seen += len(images)
        self.shapes.add(tuple(images.shape[1:]))
        if self._stop is not None and self.seen >= self._stop:
            management.interrupt_current_processing()
        return self._read(images, batch=batch)


def test_every_picture_is_read_once(features: Any, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set

    loaded = classifier("portraits_judge.safetensors")
    counting = Counting(monkeypatch, loaded)
    before, _ = with_classifier(features, loaded, attributes="hair")
    again, _ = with_classifier(features, loaded, attributes="hair")
    assert counting.seen == N and again.probabilities["hair"].equal(before.probabilities["hair"])
    # A set that has grown by two, and one picture that was made again.
    writer = FeatureSetWriter(features.folder, None)
    writer.add(torch.zeros(2, 2, 3, 4, 4), torch.tensor([-1.0, 1.0]), ["x.png", "y.png"], [0, 1], ["", ""])
    for name in ("x.png", "y.png", "0003.png"):
        save_picture(features.folder / "images" / name, drawn[0][5])
    os.utime(features.folder / "images" / "0003.png", ns=(1, 10**18))
    grown, _ = with_classifier(open_feature_set(features.folder), loaded, attributes="hair")
    assert counting.seen == N + 3 and grown.files[-2:] == ("x.png", "y.png")
    torch.testing.assert_close(grown.probabilities["hair"][3], before.probabilities["hair"][5])
    with_classifier(features, loaded, attributes="eyeglasses")
    with_classifier(features, loaded, attributes="hair", crop="0, 0, 0.5, 0.5")
    assert counting.seen == 3 * N + 3


def test_the_host_can_interrupt_and_what_was_read_is_kept(features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management

    monkeypatch.setattr("equipoise.host.labels.labelling.BATCH", 8)
    loaded = classifier("portraits_judge.safetensors")
    counting = Counting(monkeypatch, loaded, stop_after=16)
    with pytest.raises(management.InterruptProcessingException):
        with_classifier(features, loaded)
    assert counting.seen == 16
    monkeypatch.undo()
    counting = Counting(monkeypatch, loaded)
    labels, _ = with_classifier(features, loaded)
    assert counting.seen in (N - 16, N - 8) and len(labels.files) == N  # newer hosts look for an interruption within a network too


def test_progress_counts_the_whole_set(features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.utils

    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: told.append((value, total)))
    with_classifier(features, classifier("portraits_judge.safetensors"))
    assert told[0][0] == 0 and told[-1] == (N, N) and {t for _, t in told} == {N}
    told.clear()
    with_classifier(features, classifier("portraits_judge.safetensors"))
    assert told == [(N, N)]


def test_pictures_of_several_sizes_and_a_crop(prompt: Any, drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures twice as large with the portrait in the lower right quarter: the crop finds it."""
    padded = torch.rand(N, 3, 64, 64)
    padded[:, :, 32:, 32:] = drawn[0]
    features = write_set(tmp_path / "padded", (padded * 255).round() / 255)
    save_picture(features.folder / "images" / "0002.png", torch.nn.functional.interpolate(padded[2:3], size=(96, 128))[0])
    loaded = classifier("portraits_judge.safetensors")
    counting = Counting(monkeypatch, loaded)
    labels, _ = with_classifier(features, loaded, crop="0.5, 0.5, 0.5, 0.5")
    assert counting.shapes == {(3, 32, 32), (3, 48, 64)}
    for name in ("hair", "profession"):
        assert (labels.probabilities[name].argmax(1) == drawn[1][name]).float().mean() >= 0.95
    mask = torch.zeros(1, 64, 64)
    mask[:, 32:, 32:] = 1
    masked, _ = with_classifier(features, loaded, mask=mask)
    torch.testing.assert_close(masked.probabilities["hair"], labels.probabilities["hair"], rtol=0, atol=1e-3)  # one mask is stretched
    with pytest.raises(ValueError, match="does not fit 40 pictures"):
        with_classifier(features, loaded, mask=mask.repeat(3, 1, 1))


def test_a_missing_and_a_damaged_picture_are_named(features: Any) -> None:
    path = features.folder / "images" / "0007.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"'0007\.png' cannot be read"):
        with_classifier(features, classifier("portraits_judge.safetensors"))
    path.unlink()
    with pytest.raises(ValueError, match=r"'0007\.png' of the feature set 'labelled' is missing"):
        with_classifier(features, classifier("portraits_judge.safetensors"))


# Skin tone, prompts, label files


def test_skin_tone_merged_into_three(features: Any, drawn: Any) -> None:
    from equipoise.nodes.labels.label_features_with_skin_tone import LabelFeaturesWithSkinTone
    from equipoise.nodes.labels.merge_labels import MergeLabels

    labels, report = LabelFeaturesWithSkinTone.execute(features).result
    assert labels.attributes["skin_tone"][0] == "very light" and "ITA from -" in report and "not read" not in report
    groups = "skin_tone: light=very light|light, medium=intermediate|tan|brown, dark"
    three, merged_report = MergeLabels.execute(labels, groups).result
    assert (three.probabilities["skin_tone"].argmax(1) == drawn[1]["skin_tone"]).float().mean() >= 0.9
    assert three.attributes == {"skin_tone": ("light", "medium", "dark")} and merged_report.startswith("skin_tone (individual")


def test_a_mask_beside_the_face_is_not_skin(features: Any) -> None:
    from equipoise.nodes.labels.label_features_with_skin_tone import LabelFeaturesWithSkinTone

    for picture in (features.folder / "images").iterdir():
        save_picture(picture, torch.full((3, 8, 8), 0.5))
    labels, report = LabelFeaturesWithSkinTone.execute(features, "tone", 0.5, "", torch.ones(8, 8)).result
    assert labels.unsure("tone").all() and "no picture could be read" in report


def test_prompts_and_what_they_do_not_say(features: Any) -> None:
    from equipoise.nodes.labels.label_features_from_prompts import LabelFeaturesFromPrompts

    labels, _ = LabelFeaturesFromPrompts.execute(features, "eyeglasses: yes=with eyeglasses, no=...").result
    assert labels.counts("eyeglasses") == (N // 2, N // 2) and labels.probabilities["eyeglasses"][0].tolist() == [1, 0]
    with pytest.raises(ValueError, match="20 of 40 prompts name no class of 'x'"):
        LabelFeaturesFromPrompts.execute(features, "x: a=with eyeglasses, b=hat")
    unsure, _ = LabelFeaturesFromPrompts.execute(features, "x: a=with eyeglasses, b=hat", "unsure").result
    assert unsure.unsure("x").float().mean() == 0.5


def test_a_label_file(features: Any, prompt: Any) -> None:
    import folder_paths
    from equipoise.nodes.labels.label_features_from_csv import LabelFeaturesFromCSV

    rows = [f"{i:04d}.png,{'long' if i % 4 == 0 else 'short'}" for i in reversed(range(N))]
    path = Path(folder_paths.get_input_directory()) / "deep" / "l.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["file,hair", *rows]), encoding="utf-8")
    labels, _ = LabelFeaturesFromCSV.execute(features, "deep/l.csv", "hair: short, long").result
    assert labels.counts("hair") == (30, 10) and labels.files[0] == "0000.png" and labels.probabilities["hair"][4].tolist() == [0, 1]
    before = LabelFeaturesFromCSV.fingerprint_inputs(file_name="deep/l.csv", classes="")
    os.utime(path, ns=(1, 10**18))
    assert LabelFeaturesFromCSV.fingerprint_inputs(file_name="deep/l.csv", classes="") != before
    with pytest.raises(ValueError, match="labels 'hair' as 'short', which is none of long, none"):
        LabelFeaturesFromCSV.execute(features, "deep/l.csv", "hair: long, none")
    path.write_text("\n".join(["file,hair", *rows, "other.png,long"]), encoding="utf-8")
    with pytest.raises(ValueError, match="1 labels are for images that are not in the set, the first is 'other.png'"):
        LabelFeaturesFromCSV.execute(features, "deep/l.csv")
    assert len(LabelFeaturesFromCSV.execute(features, "deep/l.csv", "", True).result[0].files) == N
    for name in ("../l.csv", "/etc/passwd", "C:\\l.csv", "l.png", ""):
        with pytest.raises(ValueError, match="is no name of a label file"):
            LabelFeaturesFromCSV.execute(features, name)
    with pytest.raises(ValueError, match="there is no 'none.csv' in ComfyUI's input folder"):
        LabelFeaturesFromCSV.execute(features, "none.csv")


def test_typing_errors_show_before_anything_runs(prompt: Any) -> None:
    from equipoise.nodes.labels.label_features_from_csv import LabelFeaturesFromCSV
    from equipoise.nodes.labels.label_features_from_prompts import PROMPT_CLASSES, LabelFeaturesFromPrompts
    from equipoise.nodes.labels.label_features_with_classifier import LabelFeaturesWithClassifier
    from equipoise.nodes.labels.label_features_with_clip import LabelFeaturesWithCLIP
    from equipoise.nodes.labels.label_features_with_skin_tone import LabelFeaturesWithSkinTone
    from equipoise.nodes.labels.merge_labels import MergeLabels
    from equipoise.nodes.labels.source_inputs import CLIP_CLASSES, CLIP_TEMPLATES

    assert LabelFeaturesWithCLIP.validate_inputs(CLIP_CLASSES, CLIP_TEMPLATES, "") is True
    assert "CLIP cannot read" in LabelFeaturesWithCLIP.validate_inputs("a: x, y=...", CLIP_TEMPLATES, "")
    assert "exactly one {}" in LabelFeaturesWithCLIP.validate_inputs(CLIP_CLASSES, "a photo", "")
    assert "is no box" in LabelFeaturesWithClassifier.validate_inputs("1, 2")
    assert "holds ','" in LabelFeaturesWithSkinTone.validate_inputs("a,b", "")
    assert LabelFeaturesFromPrompts.validate_inputs(PROMPT_CLASSES) is True
    assert LabelFeaturesFromCSV.validate_inputs("") is True
    assert "at least two are needed" in MergeLabels.validate_inputs("hair: a")


# Label Features


def test_label_features_shows_and_keeps_the_labels(features: Any, prompt: Any) -> None:
    from equipoise.methods.labels.labels import read_csv
    from equipoise.nodes.labels.label_features import LabelFeatures
    from equipoise.nodes.labels.label_features_from_csv import LabelFeaturesFromCSV

    labels, _ = with_classifier(features, classifier("portraits_judge.safetensors"))
    node = type("Prepared", (LabelFeatures,), {"hidden": type("Hidden", (), {"prompt": None, "extra_pnginfo": None})()})
    output = node.execute(features, labels, "hair, eyeglasses", 12)
    kept, chart, sheets, report = output.result
    assert list(kept.attributes) == ["hair", "eyeglasses"] and kept.files == labels.files
    assert chart.shape[0] == 1 and chart.shape[2:] == (960, 3) and sheets.shape[0] == 4 and sheets.shape[3] == 3
    assert sheets.dtype == torch.float32 and float(sheets.min()) >= 0 and float(sheets.max()) == 1.0
    assert "hair (classifier portraits_judge.safetensors): short" in report and "written to labelled/labels.csv" in report
    assert len(output.ui["images"]) == 1 and output.ui["text"][0] == report
    written = read_csv(features.folder / "labels.csv")
    torch.testing.assert_close(written.probabilities["hair"], kept.probabilities["hair"], rtol=0, atol=1e-5)
    # Corrected by hand and read again; the next look keeps the correction beside its own file.
    path = features.folder / "labels.csv"
    path.write_text(path.read_text().replace("0000.png", "0000.PNG", 1))
    corrected = path.read_text()
    with pytest.raises(ValueError, match="have no label, the first is '0000.png'"):
        LabelFeaturesFromCSV.execute(features, "labelled/labels.csv")
    node.execute(features, labels, "hair", 12)
    assert path.with_name("labels.previous.csv").read_text() == corrected


def test_label_features_names_classes_without_an_example(features: Any) -> None:
    from equipoise.methods.labels.labels import LabelSet
    from equipoise.nodes.labels.label_features import LabelFeatures

    table = torch.tensor([[0.6, 0.4, 0.0]]).repeat(N, 1)
    labels = LabelSet({"hair": ("short", "long", "none")}, tuple(e.file for e in features.entries), {"hair": table})
    node = type("Prepared", (LabelFeatures,), {"hidden": type("Hidden", (), {"prompt": None, "extra_pnginfo": None})()})
    shutil.rmtree(features.folder / "images")  # recorded without pictures: the sheets are grey
    _, _, sheets, report = node.execute(features, labels).result
    assert "hair: no image shows long, none, which training needs" in report and "unsure 100.0%" in report and sheets.shape[0] == 3
    other = LabelSet({"hair": ("short", "long")}, ("0000.png", "z.png"), {"hair": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="39 of the 40 images of the set have no label"):
        node.execute(features, other)


# Through the server, on both hosts


def test_the_nodes_run_in_a_graph(server: Any, drawn: Any) -> None:
    folder = server.base / "output" / "equipoise" / "features" / "graph"
    if not folder.exists():
        write_set(folder, drawn[0])
    (server.base / "input" / "graph.csv").write_text(
        "\n".join(["file,side", *(f"{i:04d}.png,{'left' if i % 2 else 'right'}" for i in range(N))]), encoding="utf-8"
    )
    node = lambda kind, **inputs: {"class_type": f"Equipoise{kind}", "inputs": inputs}  # noqa: E731
    words, table = "glasses: yes=with eyeglasses, no=...", {"file_name": "graph.csv", "classes": "", "ignore_other_images": False}
    graph = {
        "1": node("LoadFeatures", set_name="graph"),
        "2": node("LoadAttributeClassifier", classifier_name="portraits_judge.safetensors"),
        "3": node("LabelFeaturesWithClassifier", features=["1", 0], classifier=["2", 0], attributes="hair", crop=""),
        "4": node("LabelFeaturesWithSkinTone", features=["1", 0], attribute="tone", softness=0.5, crop="", labels=["3", 0]),
        "5": node("LabelFeaturesFromPrompts", features=["1", 0], classes=words, unmatched="refuse", labels=["4", 0]),
        "6": node("LabelFeaturesFromCSV", features=["1", 0], labels=["5", 0], **table),
        "7": node("MergeLabels", labels=["6", 0], groups="tone: light=very light|light, other=..."),
        "8": node("LabelFeatures", features=["1", 0], labels=["7", 0], attribute="", images_per_class=8),
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 2]}},
    }
    outcome = server.queue(graph)
    assert outcome.error == "" and len(outcome.outputs["9"]["images"]) == 8
    (report,) = outcome.outputs["8"]["text"]
    assert [line.split(" ", 1)[0] for line in report.splitlines()[:4]] == ["hair", "tone", "glasses", "side"]
    header = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "file,hair:short,hair:long,tone:light,tone:other,glasses:yes,glasses:no,side:right,side:left"
    graph["7"]["inputs"]["groups"] = "tone: light=very pale, other=..."
    assert "has no class 'very pale' to put in 'light'" in server.queue(graph).error
    graph["7"]["inputs"]["groups"] = "tone"
    with pytest.raises(AssertionError, match="'tone' names no attribute and classes"):
        server.queue(graph)
    assert json.loads((folder / "set.json").read_text(encoding="utf-8"))["kind"] == "pooled"
