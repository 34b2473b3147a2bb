"""Load Attribute Classifier and Attribute Histogram in a real host."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ATTRIBUTES = {"tint": ("red", "blue"), "light": ("dark", "medium", "bright")}
FILE = "test_tint.safetensors"


def tint_classifier() -> Any:
    """A vision transformer whose patch weights are set so that "tint" reads red minus blue of the whole image; the rest is random."""
    from equipoise.models.attribute_classifier import VisionTransformer, VitSizes

    torch.manual_seed(0)
    net = VisionTransformer(ATTRIBUTES, image_size=8, sizes=VitSizes(patch=4, dim=16, depth=1, num_heads=1, mlp=16))
    with torch.no_grad():
        for parameter in net.blocks.parameters():
            parameter.zero_()
        net.pos_embed.zero_()
        net.patch_embed.weight.zero_()
        net.patch_embed.bias.zero_()
        net.patch_embed.weight[0, 0], net.patch_embed.weight[0, 2] = 1.0, -1.0
        block = net.blocks[0]
        block.norm1.weight.fill_(1.0)
        block.value.weight.copy_(torch.eye(16))
        block.attention_out.weight.copy_(torch.eye(16))
        net.heads["tint"].weight.zero_()
        net.heads["tint"].bias.zero_()
        net.heads["tint"].weight[0, 0], net.heads["tint"].weight[1, 0] = 5.0, -5.0
    return net.eval()


def pictures(red: int, blue: int, size: int = 12) -> torch.Tensor:
    """IMAGE [B, H, W, 3], red ones first."""
    images = torch.full((red + blue, size, size, 3), 0.2)
    images[:red, ..., 0] = 0.9
    images[red:, ..., 2] = 0.9
    return images


def write_files(folder: Path) -> None:
    """A file, and a folder as transformers writes it."""
    from equipoise.benchmarks.neuron_path.vit_export import export_vit
    from equipoise.models.attribute_classifier import save_classifier

    save_classifier(tint_classifier(), folder / FILE)
    if not (folder / "test_vit").exists():
        export_vit(tint_classifier(), "tint", folder / "test_vit")


@pytest.fixture
def classifiers(prompt: Any) -> Iterator[Any]:
    """The host, with classifiers in its model folder."""
    with torch.inference_mode(False):
        write_files(prompt.base / "models" / "attribute_classifiers")
    yield prompt


def load(name: str = FILE) -> Any:
    from equipoise.nodes.labels.load_attribute_classifier import LoadAttributeClassifier

    return LoadAttributeClassifier.execute(name).result[0]


def target(text: str, known: Any = ATTRIBUTES) -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, known)


def run(*arguments: Any, **options: Any) -> tuple[torch.Tensor, float, dict[str, Any], dict[str, Any]]:
    from equipoise.nodes.report.attribute_histogram import AttributeHistogram

    # The host gives a copy of the class with the prompt's hidden values; a preview asks for them.
    node = type("Prepared", (AttributeHistogram,), {"hidden": type("Hidden", (), {"prompt": None, "extra_pnginfo": None})()})
    output = node.execute(*arguments, **options)
    chart, fd, text = output.result
    return chart, fd, json.loads(text), output.ui


def test_files_and_folders_are_offered_by_name(classifiers: Any) -> None:
    from equipoise.host.labels.classifier import classifier_choices

    found = classifier_choices()
    assert FILE in found and "test_vit" in found and not any("/" in name or "\\" in name for name in found if "test_vit" in name)


def test_the_loader_says_what_it_reads_and_notices_a_new_file(classifiers: Any) -> None:
    from equipoise.nodes.labels.load_attribute_classifier import LoadAttributeClassifier

    assert LoadAttributeClassifier.execute(FILE).result[1] == "tint: red, blue\nlight: dark, medium, bright"
    for name, file in ((FILE, FILE), ("test_vit", "test_vit/config.json")):
        before = LoadAttributeClassifier.fingerprint_inputs(name)
        assert before == LoadAttributeClassifier.fingerprint_inputs(name)
        path = classifiers.base / "models" / "attribute_classifiers" / file
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
        assert LoadAttributeClassifier.fingerprint_inputs(name) != before


@pytest.mark.parametrize("name", [FILE, "test_vit"])
def test_the_host_gives_what_the_network_gives(classifiers: Any, name: str) -> None:
    classifier, images = load(name), torch.rand(5, 20, 14, 3, generator=torch.Generator().manual_seed(0))
    expected = tint_classifier().probabilities(images.movedim(-1, 1))["tint"]
    read = classifier.probabilities(images)
    assert read["tint"].dtype == torch.float32 and read["tint"].device.type == "cpu"
    torch.testing.assert_close(read["tint"], expected, rtol=0, atol=2e-3)  # the file holds halves
    with_alpha = torch.cat([images, torch.zeros(5, 20, 14, 1)], dim=-1)
    torch.testing.assert_close(classifier.probabilities(with_alpha)["tint"], read["tint"], rtol=0, atol=0)
    assert classifier.embed(images).shape == (5, 16)


def test_chunks_change_nothing(classifiers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, images = load(), torch.rand(7, 8, 8, 3)
    whole = classifier.probabilities(images)["light"]
    monkeypatch.setattr("equipoise.host.labels.classifier.PIXELS_PER_CHUNK", 2 * 64)
    torch.testing.assert_close(classifier.probabilities(images)["light"], whole, rtol=0, atol=1e-6)


def test_the_host_can_interrupt_and_the_network_is_under_its_management(classifiers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management

    classifier = load()
    monkeypatch.setattr("equipoise.host.labels.classifier.PIXELS_PER_CHUNK", 64)
    classifier.probabilities(pictures(2, 0))
    assert any(loaded.model is classifier.patcher for loaded in management.current_loaded_models)
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        classifier.probabilities(pictures(2, 0))
    assert classifier.probabilities(pictures(2, 0))["tint"].shape == (2, 2)


def test_counts_and_discrepancy(classifiers: Any) -> None:
    chart, fd, figures, shown = run(pictures(6, 2), load(), target("tint: red=0.5, blue=0.5"))
    (panel,) = figures["panels"]
    assert panel["report"]["counts"] == [6, 2] and panel["report"]["n"] == 8 and figures["classifier"] == FILE
    assert fd == pytest.approx(np.sqrt(2) * 0.25) and figures["fd"] == fd and isinstance(fd, float)
    assert chart.ndim == 4 and chart.shape[0] == 1 and chart.shape[2:] == (960, 3) and chart.dtype == torch.float32
    assert 0 <= float(chart.min()) < 0.3 and float(chart.max()) == 1.0
    assert len(shown["images"]) == 1 and "tint: red 75.0% (6)" in shown["text"][0]
    shared = classifiers.base / "temp" / shown["images"][0]["filename"]
    assert np.asarray(Image.open(shared).convert("RGB")).shape == chart.shape[1:]


def test_classes_are_matched_by_name(classifiers: Any) -> None:
    other_order = target("tint: blue=0.75, red=0.25", {"tint": ("blue", "red")})
    _, fd, figures, _ = run(pictures(2, 6), load(), other_order)
    assert fd == pytest.approx(0.0, abs=1e-9) and figures["panels"][0]["report"]["target"] == [0.25, 0.75]


def test_a_joint_target_counts_its_cells(classifiers: Any) -> None:
    classifier, images = load(), pictures(3, 5)
    _, fd, figures, _ = run(images, classifier, target("tint x light: uniform"))
    joint, *marginals = (p["report"] for p in figures["panels"])
    assert len(joint["counts"]) == 6 and sum(joint["counts"][:3]) == 3 and fd == joint["fd"]
    assert [p["attributes"] for p in figures["panels"]] == [["tint", "light"], ["tint"], ["light"]] and marginals[0]["counts"] == [3, 5]


def test_baseline_attribute_and_batches(classifiers: Any) -> None:
    images = torch.cat([pictures(1, 1)] * 8)
    _, fd, figures, _ = run(images, load(), None, pictures(1, 9), "tint", 2)
    (panel,) = figures["panels"]
    assert panel["report"]["resampled"] == "batches" and panel["report"]["fd_high"] == 0.0 == fd
    assert panel["baseline"]["counts"] == [1, 9] and not panel["report"]["target_given"]
    assert len(run(images, load())[2]["panels"]) == 2


@pytest.mark.parametrize(
    ("asked", "attribute", "says"),
    [
        ("beard: full=0.5, none=0.5", "", "'test_tint.safetensors' cannot measure.*'beard'.*known: tint, light"),
        ("tint: green=0.5, red=0.5", "", "'green' of 'tint'.*known: red, blue"),
        (None, "beard", r"does not read 'beard'; it reads: tint \(red, blue\)"),
    ],
)
def test_what_the_classifier_does_not_know_is_answered_with_what_it_knows(
    classifiers: Any, asked: str | None, attribute: str, says: str
) -> None:
    known = {"beard": ("full", "none"), "tint": ("green", "red")}
    with pytest.raises(ValueError, match=says) as caught:
        run(pictures(1, 1), load(), target(asked, known) if asked else None, None, attribute)
    assert "\n" not in str(caught.value)


def test_other_inputs_that_do_not_fit_are_refused(classifiers: Any) -> None:
    with pytest.raises(ValueError, match="reads images of shape"):
        run(torch.zeros(2, 3, 8, 5), load())
    with pytest.raises(FileNotFoundError, match="'nothing.safetensors' is not in models/attribute_classifiers"):
        load("nothing.safetensors")
    damaged = classifiers.base / "models" / "attribute_classifiers" / "test_damaged.safetensors"
    damaged.write_bytes((classifiers.base / "models" / "attribute_classifiers" / FILE).read_bytes()[:500])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(damaged.name)


def test_pictures_come_with_the_class_assigned_and_the_class_seen(classifiers: Any) -> None:
    from equipoise.host.report.thumbs import COLUMNS, TILE

    images, wanted = pictures(2, 9), target("tint: blue=0.5, red=0.5", {"tint": ("blue", "red")})
    told = json.dumps({"attributes": ["tint"], "assigned": ["red", "blue", "red", *["blue"] * 8], "missed": None})
    plain, marked = run(images, load(), wanted), run(images, load(), wanted, assigned=told)
    assert {k: v for k, v in plain[2].items()} == marked[2] and plain[1] == marked[1], "the figures are the same"
    (shown,) = marked[3]["equipoise_thumbs"]
    assert [s["tint"] for s in shown["seen"]] == ["red"] * 2 + ["blue"] * 9 and shown["images"] == 11
    assert [a["tint"] for a in shown["assigned"]][:4] == ["red", "blue", "red", "blue"]
    assert plain[3]["equipoise_thumbs"][0]["assigned"] is None
    sheet = Image.open(classifiers.base / "temp" / shown["sheet"]["filename"])
    assert sheet.size == (COLUMNS * TILE, 2 * TILE) and shown["columns"] == COLUMNS
    for i in (0, 1, 2, 10):
        red, _, blue = sheet.getpixel(((i % COLUMNS) * TILE + TILE // 2, i // COLUMNS * TILE + TILE // 2))
        assert (red > 150 > blue) == (i < 2), i


def test_no_more_pictures_than_a_node_has_room_for(classifiers: Any) -> None:
    from equipoise.host.report.thumbs import MOST

    (shown,) = run(torch.rand(MOST + 3, 9, 30, 3), load(), None, None, "light")[3]["equipoise_thumbs"]
    assert len(shown["seen"]) == MOST and shown["images"] == MOST + 3 and set(shown["seen"][0]) == {"light"}
    (alone,) = run(torch.rand(1, 200, 90, 3), load())[3]["equipoise_thumbs"]
    assert alone["columns"] == 1 and set(alone["seen"][0]) == set(ATTRIBUTES)


@pytest.mark.parametrize(
    ("asked", "text", "says"),
    [
        (None, "{}", "connect the target too"),
        ("tint: uniform", '{"attributes": ["tint"], "assigned": ["red"]}', "is about 1 images, and 4 are connected"),
        ("tint: uniform", '{"attributes": ["light"], "assigned": []}', "is about light, and the target is about tint"),
        ("tint: uniform", "no json", "connect the output of the sampler that made them"),
    ],
)
def test_classes_assigned_to_other_images_are_refused(classifiers: Any, asked: str | None, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(pictures(2, 2), load(), target(asked) if asked else None, assigned=text)


def test_the_graph_runs_in_a_server(server: Any) -> None:
    """On both hosts: images from disk, counted, shown on the node."""
    write_files(server.base / "models" / "attribute_classifiers")
    for i, picture in enumerate(pictures(2, 2, size=16)):
        Image.fromarray((picture.numpy() * 255).astype(np.uint8)).save(server.base / "input" / f"tint_{i}.png")
    graph: dict[str, Any] = {str(i): {"class_type": "LoadImage", "inputs": {"image": f"tint_{i}.png"}} for i in (1, 2)}
    graph["both"] = {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}}
    graph["load"] = {"class_type": "EquipoiseLoadAttributeClassifier", "inputs": {"classifier_name": FILE}}
    graph["chart"] = {
        "class_type": "EquipoiseAttributeHistogram",
        "inputs": {"images": ["both", 0], "classifier": ["load", 0], "attribute": "tint", "batch_size": 1},
    }
    outcome = server.queue(graph)
    assert not outcome.error
    assert "tint: red 50.0% (1), blue 50.0% (1)" in outcome.outputs["chart"]["text"][0]
    assert server.images(outcome, "chart").shape[2] == 960
