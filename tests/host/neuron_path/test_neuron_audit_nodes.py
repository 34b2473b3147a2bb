"""Audits of neurons and their edits in the host's inference mode: what they say, what an edited model does, and that originals stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise_tiny_clip import DEPTH, WIDTH, host_vision, tiny_clip
from torch import Tensor

transformers = pytest.importorskip("transformers")

LABELLER = "portraits_labeller.safetensors"
EDIT = {
    "neurons": "",
    "class_name": "",
    "operation": "zero",
    "factor": 2.0,
    "share": 1.0,
    "rows": "neurons",
    "first_layer": 0,
    "last_layer": -1,
    "seed": 0,
}
AUDIT = {
    "attributes": "hair, eyeglasses",
    "top_k": 2,
    "objective": "margin",
    "least": 0.02,
    "control_draws": 1,
    "source": "",
    "target": "",
    "seed": 0,
    "memory_mb": 64,
}
PRUNE = {
    "attribute": "hair",
    "truth": "",
    "kept": "1, 4",
    "pruned": "0.5, 1",
    "search": "clean-layer",
    "objective": "margin",
    "first_layer": 0,
    "last_layer": -1,
    "control_draws": 1,
    "seed": 0,
    "memory_mb": 64,
}
GALLERY = {"attribute": "hair", "neurons": "", "class_name": "", "count": 5, "overlay": True}


@pytest.fixture
def labeller(prompt: Any) -> Any:
    from equipoise.host.labels.classifier import load_host_classifier

    return load_host_classifier(LABELLER)


@pytest.fixture
def vision(prompt: Any, tmp_path: Path) -> Any:
    return host_vision(tiny_clip(), tmp_path)


@pytest.fixture
def head(prompt: Any) -> Any:
    return make_head("eyeglasses", 2)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return drawn(12)


def drawn(n: int) -> Tensor:
    """IMAGE of n drawings, with as many of short as of long hair."""
    from equipoise.factory.portraits import draw_portraits
    from equipoise.factory.train_classifiers import uniform_labels

    generator = torch.Generator().manual_seed(3)
    labels = {**uniform_labels(n, generator), "hair": torch.arange(n) % 2}
    return draw_portraits(labels, generator).movedim(1, -1)


def make_head(attribute: str, seed: int, width: int = WIDTH) -> Any:
    from equipoise.models.zero_shot_head import ZeroShotHead

    made = torch.randn(2, width, generator=torch.Generator().manual_seed(seed))
    return ZeroShotHead(attribute, ("yes", "no"), torch.nn.functional.normalize(made, dim=-1))


def find(images: Tensor, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.find_neuron_path import FindNeuronPath

    fixed = {"target": "", "search": "clean-layer", "objective": "margin", "nodes": "gauss-4", "shortlist": 4, "memory_mb": 64}
    return FindNeuronPath.execute(images, **{"attribute": "", "top_k": 1, "shared": False, **fixed, **given}).result[0]


def edit(**given: Any) -> Any:
    from equipoise.nodes.neuron_path.edit_vision_neurons import EditVisionNeurons

    return EditVisionNeurons.execute(**{**EDIT, **given}).result


def audit(images: Tensor, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.attribute_leakage_audit import AttributeLeakageAudit

    return AttributeLeakageAudit.execute(images, **{**AUDIT, **given}).result


def effect(images: Tensor, path: Any, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.neuron_path_effect import NeuronPathEffect

    return NeuronPathEffect.execute(images, path, **{"control_draws": 1, "seed": 0, **given}).result


def prune(images: Tensor, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.prune_classifier_curve import PruneClassifierCurve

    return PruneClassifierCurve.execute(images, **{**PRUNE, **given}).result


def gallery(images: Tensor, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.neuron_gallery import NeuronGallery

    return NeuronGallery.execute(images, **{**GALLERY, **given}).result


# -- edited classifiers -------------------------------------------------------------------------------------------------------------------


def test_an_edited_classifier_reads_as_edited_and_the_original_as_before(labeller: Any, images: Tensor) -> None:
    from equipoise.host.labels.labelling import classifier_source
    from equipoise.host.neuron_path.models import pixels_of, vision_of
    from equipoise.methods.neuron_path.neuron_edits import NeuronEdit, edited_logits

    assert torch.is_inference_mode_enabled()
    before, seen = labeller.probabilities(images), labeller.embed(images)
    path = find(images, classifier=labeller, attribute="eyeglasses", top_k=4)
    edited, blocked, report = edit(classifier=labeller, neuron_path=path, neurons="0:17, 5:3")
    named = edited.edits[0].neurons
    assert {(0, 17), (5, 3)} <= {(i, int(j)) for i, row in enumerate(named) for j in row} and "are set to 0 at the CLS token" in report
    net = vision_of(labeller, attribute="eyeglasses")
    expected = edited_logits(net, pixels_of(net, images), [NeuronEdit(named)]).softmax(-1)
    found = edited.probabilities(images)
    torch.testing.assert_close(found["eyeglasses"], expected, rtol=0, atol=1e-5)
    assert float((found["eyeglasses"] - before["eyeglasses"]).abs().max()) > 0.05
    assert not torch.equal(edited.embed(images), seen) and torch.equal(labeller.embed(images), seen)
    assert all(torch.equal(v, before[k]) for k, v in labeller.probabilities(images).items())
    assert not any(m._forward_pre_hooks for m in labeller.model.modules())
    assert type(blocked).__name__ == "ExecutionBlocker" and "CLIP vision model" in blocked.message
    keys = [classifier_source(c, ["hair"]).key["classifier"] for c in (labeller, edited, edit(classifier=labeller, neurons="0:17")[0])]
    assert len(set(keys)) == 3, "labels of one classifier would be taken for those of another"
    twice, *_ = edit(classifier=edited, neurons="1:1", operation="scale", factor=0.0)
    assert twice.original is labeller and len(twice.edits) == 2
    both = [NeuronEdit(named), NeuronEdit(twice.edits[1].neurons)]
    expected = edited_logits(net, pixels_of(net, images), both).softmax(-1)
    torch.testing.assert_close(twice.probabilities(images)["eyeglasses"], expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="were edited.*connect the original"):
        find(images, classifier=edited, attribute="eyeglasses")


def test_hooks_are_taken_away_where_a_pass_fails(labeller: Any, images: Tensor) -> None:
    edited, *_ = edit(classifier=labeller, neurons="0:0")
    with pytest.raises(RuntimeError):
        edited.model(torch.zeros(1, 5, 32, 32))
    assert not any(m._forward_pre_hooks for m in labeller.model.modules())


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_a_transformers_classifier_is_edited_where_its_neurons_live(kind: str, prompt: Any, images: Tensor, tmp_path: Path) -> None:
    from equipoise.host.labels.classifier import HostClassifier
    from equipoise.host.neuron_path.models import pixels_of, vision_of
    from equipoise.methods.neuron_path.neuron_edits import edited_logits
    from equipoise.models.transformers_classifier import load_transformers_classifier

    torch.manual_seed(0)
    size = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "hidden_size": 24, "image_size": 32, "patch_size": 8}
    named = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    with torch.inference_mode(False):
        if kind == "vit":
            network = transformers.ViTForImageClassification(transformers.ViTConfig(**size, **named))
        else:
            config = transformers.CLIPConfig(vision_config=size, text_config={"hidden_size": 16, "num_hidden_layers": 1}, **named)
            network = transformers.CLIPForImageClassification(config)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.3)
    network.save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    classifier = HostClassifier(load_transformers_classifier(tmp_path), "tiny")
    (attribute,) = classifier.attributes
    before = classifier.probabilities(images)[attribute]
    edited, _, report = edit(classifier=classifier, neurons="0:1, 0:2, 1:5, 1:6, 1:7", operation="scale", factor=4.0)
    net = vision_of(classifier)
    expected = edited_logits(net, pixels_of(net, images), list(edited.edits)).softmax(-1)
    torch.testing.assert_close(edited.probabilities(images)[attribute], expected, rtol=0, atol=1e-4)
    assert not torch.allclose(expected, before, atol=1e-3) and torch.equal(classifier.probabilities(images)[attribute], before)
    assert ("the patch tokens" if kind == "clip" else "the CLS token") in report
    everywhere, *_ = edit(classifier=classifier, neurons="0:1, 0:2", operation="scale", factor=4.0, rows="all tokens")
    assert not torch.allclose(everywhere.probabilities(images)[attribute], before, atol=1e-4)


def test_means_keep_only_and_layers(labeller: Any, images: Tensor) -> None:
    before = labeller.probabilities(images)["hair"]
    whole, *_ = edit(classifier=labeller, neurons="3:1", operation="keep-only", first_layer=5, last_layer=5)
    assert whole.edits[0].layers == (5, 5) and not torch.equal(whole.probabilities(images)["hair"], before)
    nothing, *_ = edit(classifier=labeller, neurons="3:1", operation="keep-only", share=0.0)
    assert torch.equal(nothing.probabilities(images)["hair"], before)
    held, *_ = edit(classifier=labeller, neurons="3:1", operation="mean", images=images)
    assert held.edits[0].means.shape == (6, 128)


# -- edited CLIP_VISION -------------------------------------------------------------------------------------------------------------------


def test_an_edited_clip_vision_model_and_its_original_in_turn(vision: Any, head: Any, images: Tensor) -> None:
    from dataclasses import replace

    from equipoise.host.labels.clip_zero_shot import edit_mark
    from equipoise.host.neuron_path.models import pixels_of, vision_of
    from equipoise.methods.neuron_path.neuron_edits import edited_logits

    import nodes as host_nodes

    before = vision.encode_image(images)
    state = {k: v.clone() for k, v in vision.model.state_dict().items()}
    path = find(images, clip_vision=vision, zero_shot_head=head, top_k=3)
    blocked, edited, _ = edit(clip_vision=vision, neuron_path=path, operation="scale", factor=5.0)
    first = edited.encode_image(images)
    again = vision.encode_image(images)
    second = host_nodes.CLIPVisionEncode().encode(edited, images, "none")[0]
    other, *_ = edit(clip_vision=vision, neurons="0:1", rows="all tokens")[1:2]
    other.encode_image(images)
    for name in ("image_embeds", "last_hidden_state", "penultimate_hidden_states"):
        assert torch.equal(before[name], again[name]) and torch.equal(before[name], vision.encode_image(images)[name])
        assert not torch.equal(first[name], before[name])
    assert torch.equal(second["image_embeds"], edited.encode_image(images, crop=False)["image_embeds"])
    assert all(torch.equal(v, state[k]) for k, v in vision.model.state_dict().items())
    assert not vision.patcher.object_patches and type(blocked).__name__ == "ExecutionBlocker"
    bare = vision_of(None, vision, head)
    net = replace(bare, weights={**bare.weights, "head.weight": torch.eye(WIDTH)}, scale=1.0)
    expected = edited_logits(net, pixels_of(net, images), list(edited.equipoise_edits))
    torch.testing.assert_close(torch.nn.functional.normalize(first["image_embeds"], dim=-1), expected, rtol=0, atol=2e-3)
    marks = [edit_mark(v) for v in (vision, edited, other)]
    assert marks[0] == "" and len(set(marks)) == 3
    twice = edit(clip_vision=edited, neurons="2:7")[1]
    assert len(twice.equipoise_edits) == 2 and twice.equipoise_original is vision
    assert not torch.equal(twice.encode_image(images)["image_embeds"], first["image_embeds"])
    with pytest.raises(ValueError, match="were edited.*connect the original"):
        find(images, clip_vision=edited, zero_shot_head=head)
    with pytest.raises(ValueError, match="edited at 'neurons' already"):
        edit(clip_vision=edited, neurons="2:7", rows="all tokens")


# -- what paths do ------------------------------------------------------------------------------------------------------------------------


def test_effects_of_several_paths_of_the_same_images(labeller: Any, images: Tensor) -> None:
    from equipoise.nodes.neuron_path.baseline_paths import BaselinePaths

    own = find(images, classifier=labeller, attribute="eyeglasses", top_k=4)
    fixed = {"attribute": "eyeglasses", "target": "", "objective": "margin", "nodes": "gauss-4", "top_k": 4, "shared": False, "seed": 0}
    other = BaselinePaths.execute(images, method="gradient-activation", memory_mb=64, classifier=labeller, **fixed).result[0]
    chart, report, removal, flipped = effect(images, own, classifier=labeller, neuron_path_2=other, neuron_path_3=own)
    lines = report.splitlines()[2:]
    assert [line.split(":")[0] for line in lines] == [
        f"{m}, {o}" for m in ("clean-layer", "gradient-activation", "clean-layer 2", "random") for o in ("removal", "doubling")
    ]
    assert lines[0].replace("clean-layer", "") == lines[4].replace("clean-layer 2", "") and chart.shape[2] == 960
    assert removal < -0.1 and 0 <= flipped <= 1
    hair = find(images, classifier=labeller, attribute="hair")
    long = find(images, classifier=labeller, attribute="eyeglasses", target="yes")
    for path, given, said in (
        (own, {"classifier": labeller, "neuron_path_2": hair}, "compare paths of one attribute"),
        (own, {"classifier": labeller, "neuron_path_2": long}, "explain different classes"),
        (own, {}, "no model is connected"),
    ):
        with pytest.raises(ValueError, match=said):
            effect(images, path, **given)
    with pytest.raises(ValueError, match="12 neuron path\\(s\\), one for each image, and 5 image"):
        effect(images[:5], own, classifier=labeller)


def test_the_shipped_labeller_is_not_flagged_and_carriers_go_into_an_edit(labeller: Any, images: Tensor) -> None:
    groups = labeller.probabilities(images)["hair"].argmax(1).tolist()
    assert min(groups.count(0), groups.count(1)) < 8
    _, report, *given, leaks = audit(images, classifier=labeller)
    assert "no carriers: " in report and leaks == 0 and all(type(g).__name__ == "ExecutionBlocker" for g in given)
    images = drawn(20)
    chart, report, carriers, neurons, leaks = audit(images, classifier=labeller, source="hair", target="eyeglasses")
    assert leaks == 0 and "no leak" in report and "no warning: nothing here needs an edit" in report and chart.shape[2] == 960
    assert carriers.attribute == "eyeglasses" and carriers.shared and carriers.method == "carriers of hair"
    edited, *_ = edit(classifier=labeller, neuron_path=carriers)
    typed, *_ = edit(classifier=labeller, neurons=neurons)
    assert torch.equal(edited.probabilities(images)["hair"], typed.probabilities(images)["hair"])
    assert neurons.count(":") == carriers.path.numel()


def test_an_audit_of_zero_shot_heads(vision: Any, head: Any, images: Tensor) -> None:
    heads = {"zero_shot_head": head, "zero_shot_head_2": make_head("hair", 5)}
    _, report, *_ = audit(images, clip_vision=vision, attributes="", **heads)
    assert "eyeglasses -> hair" in report and f"{DEPTH} x 96" in report
    for given, said in (
        ({"zero_shot_head": head}, "two or more zero-shot heads"),
        ({"zero_shot_head": head, "zero_shot_head_2": head}, "of different attributes"),
        ({"zero_shot_head": head, "zero_shot_head_3": make_head("hair", 5, 8)}, "different widths"),
    ):
        with pytest.raises(ValueError, match=said):
            audit(images, clip_vision=vision, attributes="", **given)


def test_pruning_gives_what_keep_only_takes(labeller: Any, images: Tensor) -> None:
    chart, report, path, recommended = prune(images, classifier=labeller)
    assert "agreement with the whole model" in report and "nothing is saved" in report and chart.shape[2] == 960
    assert path.shared and path.top_k == (recommended or 4) and recommended in (0, 1, 4)
    assert "keep-only" not in report and report.count("as many random ones") == 4
    truth = ", ".join(labeller.attributes["hair"][int(i)] for i in labeller.probabilities(images)["hair"].argmax(1))
    known = prune(images, classifier=labeller, truth=truth)[1]
    assert "; accuracy and the class's probability" in known and "agreement" not in known
    edited, *_ = edit(classifier=labeller, neuron_path=path, operation="keep-only")
    assert not torch.equal(edited.probabilities(images)["hair"], labeller.probabilities(images)["hair"])


def test_a_gallery_of_typed_neurons_and_of_a_path(labeller: Any, images: Tensor) -> None:
    path = find(images, classifier=labeller, attribute="hair", top_k=2)
    picture, text = gallery(images, classifier=labeller, neurons="5:3, 0:7", neuron_path=path)
    names = [line.split(" ")[0] for line in text.splitlines()]
    assert names[:2] == ["5:3", "0:7"] and len(names) == 5 and picture.shape[2] == 960
    bare = gallery(images, classifier=labeller, neurons="5:3, 0:7", overlay=False)[0]
    assert bare.shape != picture.shape


def test_bad_input_is_answered_in_one_sentence(labeller: Any, vision: Any, head: Any, images: Tensor) -> None:
    mine = {"classifier": labeller}
    path = find(images, classifier=labeller, attribute="hair")
    other = {"clip_vision": vision, "neuron_path": path}
    for call, said in (
        (lambda: edit(**mine), "no neurons are named"),
        (lambda: edit(neurons="0:1"), "no model is connected"),
        (lambda: edit(neurons="0-1", **mine), "'0-1' is not"),
        (lambda: edit(neurons="9:1", **mine), "9:1 is none of them"),
        (lambda: edit(neurons="0:1", operation="mean", **mine), "needs images to take it over"),
        (lambda: edit(neurons="0:1", first_layer=4, last_layer=2, **mine), "4 to 2 were asked for"),
        (lambda: edit(neuron_path=path, class_name="bald", **mine), "no path of the class 'bald'"),
        (lambda: edit(**other), "found in another model"),
        (lambda: audit(images[:4], **mine), "connect at least 8"),
        (lambda: audit(images, **{**mine, "attributes": "hair"}), "name more"),
        (lambda: audit(images, **{**mine, "attributes": "hair, age"}), "not 'age'"),
        (lambda: audit(images, source="hair", target="age", **mine), "'age' is not audited"),
        (lambda: audit(images, source="hair", target="hair", **mine), "both are 'hair'"),
        (lambda: prune(images, kept="0, 5", **mine), "choose 1 to 128"),
        (lambda: prune(images, kept="few", **mine), "met 'few'"),
        (lambda: prune(images, pruned="1.5", **mine), "0 to 1"),
        (lambda: prune(images[:3], **mine), "connect 8 or more"),
        (lambda: gallery(images, **mine), "no neurons are named"),
        (lambda: gallery(images[:0], neurons="0:1", **mine), "no images"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            call()
        assert "\n" not in str(error.value) and str(error.value).endswith(".")
