"""The neuron path nodes in the host's inference mode: CLIP_VISION and classifiers, what they find, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise_tiny_clip import DEPTH, MLP, SEEN, SIZE, WIDTH, host_text, host_vision, tiny_clip
from safetensors.torch import save_file
from torch import Tensor

transformers = pytest.importorskip("transformers")

CLASSES = "eyeglasses: yes=eyeglasses|round (thin) glasses, no=bare eyes, hidden=hat"
FIND = {
    "attribute": "",
    "target": "",
    "search": "clean-layer",
    "objective": "margin",
    "nodes": "gauss-4",
    "top_k": 1,
    "shortlist": 4,
    "shared": False,
    "memory_mb": 64,
}
BASE = {k: v for k, v in FIND.items() if k not in ("search", "shortlist")} | {"method": "random", "seed": 0}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return tiny_clip()


@pytest.fixture
def vision(weights: dict[str, Tensor], prompt: Any, tmp_path: Path) -> Any:
    return host_vision(weights, tmp_path)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 40, SIZE, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def head(prompt: Any) -> Any:
    from equipoise.models.zero_shot_head import ZeroShotHead

    made = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))
    return ZeroShotHead("eyeglasses", ("yes", "no", "hidden"), torch.nn.functional.normalize(made, dim=-1))


@pytest.fixture
def labeller(prompt: Any) -> Any:
    from equipoise.host.labels.classifier import load_host_classifier

    return load_host_classifier("portraits_labeller.safetensors")


def find(images: Tensor, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.find_neuron_path import FindNeuronPath

    return FindNeuronPath.execute(images, **{**FIND, **given}).result


def make_head(clip: Any = None, vision: Any = None, classes: str = CLASSES, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.zero_shot_attribute_head import ZeroShotAttributeHead

    hidden = type("Hidden", (), {"prompt": given.pop("graph", None), "unique_id": "9"})()
    node = type("Prepared", (ZeroShotAttributeHead,), {"hidden": hidden})
    return node.execute(clip, vision, classes, "a photo of {}\n{}", **given).result


def all_weights(vision: Any) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in vision.model.state_dict().items()}


# -- CLIP_VISION --------------------------------------------------------------------------------------------------------------------------


def test_paths_of_a_clip_vision_model_and_the_same_bits_before_and_after(vision: Any, head: Any, images: Tensor) -> None:
    from equipoise.host.neuron_path.models import logits_of, pixels_of, vision_of
    from equipoise.methods.labels.zero_shot import zero_shot

    assert torch.is_inference_mode_enabled()
    before, state = vision.encode_image(images)["image_embeds"], all_weights(vision)
    found, chart, report, joint = find(images, clip_vision=vision, zero_shot_head=head)
    after = vision.encode_image(images)["image_embeds"]
    assert torch.equal(before, after) and all(torch.equal(v, state[k]) for k, v in vision.model.state_dict().items())
    assert found.path.shape == (5, DEPTH, 1) and found.neurons == MLP and found.labels == head.labels
    assert chart.shape[0] == 1 and chart.shape[2] == 960 and float(chart.std()) > 0.02
    assert "eyeglasses by clean-layer in CLIP vision, 3 x 96" in report and joint == pytest.approx(float(found.joint.mean()))
    probabilities, _ = zero_shot(before, head.embeddings)
    assert found.target == tuple(head.labels[int(i)] for i in probabilities.argmax(1))
    net = vision_of(None, vision, head)
    ours = logits_of(net, pixels_of(net, images)).softmax(-1)
    torch.testing.assert_close(ours, probabilities.float(), rtol=0, atol=2e-3)  # the host may keep its weights in 16 bits
    assert torch.allclose(found.contribution.sum((1, 2)), found.additive, rtol=1e-3, atol=1e-4)


def test_an_image_encoder_that_no_path_can_follow(weights: dict[str, Tensor], head: Any, images: Tensor, tmp_path: Path) -> None:
    patches = {k: v[1:] if k.endswith("vision_model.embeddings.position_embedding.weight") else v for k, v in weights.items()}
    for state, changed, said in (
        (patches, {"model_type": "siglip_vision_model", "projection_dim": None}, "no CLS token"),
        (weights, {"projection_dim": None}, "no projection"),
        ({**weights, "visual_projection.weight": torch.zeros(WIDTH, SEEN)}, {}, "is missing in this CLIP vision model's file"),
    ):
        with pytest.raises(ValueError, match=said):
            find(images, clip_vision=host_vision(state, tmp_path, **changed), zero_shot_head=head)
    with pytest.raises(ValueError, match="'Linear'.* is no CLIP"):
        find(images, clip_vision=type("Other", (), {"model": torch.nn.Linear(2, 2)})(), zero_shot_head=head)


def test_a_head_of_another_width(vision: Any, head: Any, images: Tensor) -> None:
    wide = replace(head, embeddings=torch.ones(3, 1280))
    with pytest.raises(ValueError, match=r"text embeddings of 1280 entries and this vision model projects to 64: .*bigG: 1280"):
        find(images, clip_vision=vision, zero_shot_head=wide)


def test_a_network_that_computes_something_else_is_refused(vision: Any, head: Any, images: Tensor) -> None:
    attention = vision.model.vision_model.encoder.layers[1].self_attn
    attention.heads = 4  # another network of the same weights
    with pytest.raises(ValueError, match="does not compute what a plain vision transformer"):
        find(images, clip_vision=vision, zero_shot_head=head)


def test_an_edited_model_is_refused(vision: Any, head: Any, images: Tensor) -> None:
    vision.patcher.add_object_patch("vision_model.encoder.layers.0.mlp.activation", torch.nn.functional.relu)
    with pytest.raises(ValueError, match="were edited.*connect the original"):
        find(images, clip_vision=vision, zero_shot_head=head)


# -- the head -----------------------------------------------------------------------------------------------------------------------------


def test_a_head_is_what_zero_shot_labels_compare(weights: dict[str, Tensor], vision: Any, prompt: Any) -> None:
    from equipoise.host.labels.clip_zero_shot import text_directions
    from equipoise.methods.labels.label_text import parse_classes

    clip = host_text(weights)
    head, report = make_head(clip, vision, scale=50.0)
    assert head.attribute == "eyeglasses" and head.labels == ("yes", "no", "hidden") and head.scale == 50
    directions, _ = text_directions(clip, parse_classes(CLASSES), ("a photo of {}", "{}"), None, vision)
    assert torch.equal(head.embeddings, directions["eyeglasses"])
    alone, _ = make_head(clip)
    assert torch.equal(alone.embeddings, head.embeddings)
    assert "embeddings of 64, scale 50" in report and "could not be traced" in report


def test_a_missing_text_projection_says_which_file_has_one(weights: dict[str, Tensor], vision: Any, prompt: Any) -> None:
    """As an SD1.5 checkpoint has none: the host leaves what stood in memory, here another matrix of the file."""
    folder = Path(prompt.base) / "models" / "text_encoders"
    folder.mkdir(parents=True, exist_ok=True)
    text = {k: v for k, v in weights.items() if k.startswith("text_model")}
    save_file(text, folder / "bare_neurons.safetensors")
    clip = host_text(weights, projection=False)
    matrix = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    graph = {
        "2": {"class_type": "CLIPLoader", "inputs": {"clip_name": "bare_neurons.safetensors", "type": "stable_diffusion"}},
        "9": {"class_type": "EquipoiseZeroShotAttributeHead", "inputs": {"clip": ["2", 0]}},
    }
    for left in (torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH), text["text_model.encoder.layers.0.self_attn.q_proj.weight"]):
        matrix.copy_(left)
        with pytest.raises(ValueError, match=r"text encoder's projection .* is missing \('bare_neurons\.safetensors' holds none\)"):
            make_head(clip, graph=graph)


def test_a_head_goes_through_its_file_and_comes_from_others(prompt: Any, weights: dict[str, Tensor]) -> None:
    folder = Path(prompt.base) / "models" / "equipoise" / "zero_shot_heads"
    head, report = make_head(host_text(weights), save_as="my head", overwrite=True)
    assert "saved: " in report and (folder / "my head.safetensors").is_file()
    again, _ = make_head(head_name="my head.safetensors")
    assert torch.equal(again.embeddings, head.embeddings) and again.labels == head.labels and again.info == head.info
    with pytest.raises(ValueError, match="there is another 'my head.safetensors'"):
        make_head(host_text(weights), classes="age: old, young", save_as="my head")
    rows = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    save_file({"yes": rows[0].clone(), "no": rows[1, 0].clone()}, folder / "hat.safetensors")
    other, _ = make_head(head_name="hat.safetensors", scale=7.0)
    assert other.attribute == "hat" and set(other.labels) == {"yes", "no"} and other.scale == 7
    mean = torch.nn.functional.normalize(torch.nn.functional.normalize(rows[0], dim=-1).mean(0), dim=0)
    torch.testing.assert_close(other.embeddings[other.labels.index("yes")], mean)
    save_file({"yes": rows[0].clone()}, folder / "one.safetensors")
    for given, said in (
        ({"head_name": "one.safetensors"}, "no file of text embeddings"),
        ({"head_name": "hat.safetensors", "clip": host_text(weights)}, "both are given"),
        ({}, "neither is given"),
        ({"clip": host_text(weights), "classes": "a: b, c\nd: e, f"}, "one attribute, and 2 are given"),
        ({"clip": host_text(weights), "classes": "a: b"}, "at least two"),
    ):
        with pytest.raises(ValueError, match=said):
            make_head(given.pop("clip", None), None, given.pop("classes", CLASSES), **given)


# -- classifiers --------------------------------------------------------------------------------------------------------------------------


def test_batches_give_the_paths_of_single_images(labeller: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.neuron_path import search as neuron_paths

    whole, *_ = find(images, classifier=labeller, attribute="hair", top_k=2)
    monkeypatch.setattr(neuron_paths, "images_per_search", lambda net, settings: 2)
    parts, *_ = find(images, classifier=labeller, attribute="hair", top_k=2)
    assert torch.equal(whole.path, parts.path) and torch.allclose(whole.joint, parts.joint, rtol=1e-4)
    random, *_ = baseline(images, classifier=labeller, attribute="hair")
    assert len(random.path.unique(dim=0)) == len(images), "the parts of the images drew the same random paths"


def baseline(images: Tensor, **given: Any) -> Any:
    from equipoise.nodes.neuron_path.baseline_paths import BaselinePaths

    return BaselinePaths.execute(images, **{**BASE, **given}).result


def test_a_target_is_the_predicted_class_one_for_all_or_one_for_each(labeller: Any, images: Tensor) -> None:
    predicted, *_ = find(images, classifier=labeller, attribute="hair")
    read = labeller.probabilities(images)["hair"].argmax(1)
    assert predicted.target == tuple(labeller.attributes["hair"][int(i)] for i in read)
    named, *_ = find(images, classifier=labeller, attribute="hair", target="long")
    each, *_ = find(images, classifier=labeller, attribute="hair", target="long, short, long,short,long")
    assert named.target == ("long",) * 5 and each.target == ("long", "short", "long", "short", "long")
    assert torch.equal(each.path[0], named.path[0])


def test_bad_input_is_answered_in_one_sentence(labeller: Any, vision: Any, head: Any, images: Tensor) -> None:
    from equipoise.host.labels.classifier import load_host_classifier

    judge = load_host_classifier("portraits_judge.safetensors")
    hair = {"classifier": labeller, "attribute": "hair"}
    for given, said in (
        ({}, "no model is connected"),
        ({"zero_shot_head": head}, "only a zero-shot head is connected"),
        ({"clip_vision": vision}, "knows no classes: connect a zero-shot head"),
        ({"classifier": labeller, "clip_vision": vision, "zero_shot_head": head}, "disconnect one of them"),
        ({"classifier": labeller}, "reads eyeglasses, hair, skin_tone, profession: name the attribute"),
        ({"classifier": labeller, "attribute": "age"}, "not 'age'"),
        ({"classifier": judge, "attribute": "hair"}, "is a 'cnn'"),
        ({"clip_vision": vision, "zero_shot_head": head, "attribute": "hair"}, "reads 'eyeglasses', not 'hair'"),
        ({**hair, "target": "bald"}, "no class 'bald': it has short, long"),
        ({**hair, "target": "long, short"}, "2 classes are named for 5 image"),
        ({**hair, "images": images[:0]}, "no images"),
        ({**hair, "images": images[0]}, "met \\[40, 32, 3\\]"),
        ({**hair, "top_k": 500}, "128 neurons"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            find(given.pop("images", images), **given)
        assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_an_interruption_ends_a_search(labeller: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    from equipoise.host.neuron_path import models as vision_neurons

    monkeypatch.setattr(vision_neurons, "logits_of", lambda net, pixels: torch.eye(5, 2))
    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", stop)
    with pytest.raises(Stopped):
        find(images, classifier=labeller, attribute="hair")


# -- class paths and files ----------------------------------------------------------------------------------------------------------------


def make_class(path: Any, rule: str = "mode", **given: Any) -> Any:
    from equipoise.nodes.neuron_path.class_path import ClassPath

    return ClassPath.execute(path, rule, 20, 0, **given).result


def test_a_class_path_with_and_without_its_images(labeller: Any, images: Tensor) -> None:
    found, *_ = find(images, classifier=labeller, attribute="hair", target="long, long, long, short, short")
    plain, _, told = make_class(found)
    assert plain.shared and plain.target == ("short", "long") and plain.path.shape[0] == 2
    assert bool(plain.joint.isnan().all()) and "were not measured" in told
    measured, chart, report = make_class(found, images=images, classifier=labeller)
    assert torch.equal(measured.path, plain.path) and bool(measured.joint.isfinite().all())
    assert torch.allclose(measured.contribution.sum((1, 2)), measured.additive, rtol=1e-3, atol=1e-4)
    assert "of two classes" in report and "similarity of long to: short" in report and chart.shape[2] == 960
    best, *_ = make_class(found, "mean score", images=images, classifier=labeller)
    shared, *_ = find(images[:3], classifier=labeller, attribute="hair", target="long", shared=True)
    assert torch.equal(best.path[1], shared.path[0])
    chance, *_ = baseline(images[:3], classifier=labeller, attribute="hair", target="long")
    searched, *_ = make_class(chance, "mean score", images=images[:3], classifier=labeller)
    assert chance.method == "random" and searched.method == "clean-layer" and torch.equal(searched.path, shared.path[:1])
    one, *_ = find(images, classifier=labeller, attribute="hair", target="long")
    assert "one class only" in make_class(one)[2] and "of random paths" in make_class(one)[2]


def test_class_paths_that_cannot_be(labeller: Any, vision: Any, head: Any, images: Tensor) -> None:
    found, *_ = find(images, classifier=labeller, attribute="hair")
    shared, *_ = find(images, classifier=labeller, attribute="hair", shared=True)
    glasses, *_ = find(images, classifier=labeller, attribute="eyeglasses")
    for path, given, said in (
        (found, {"rule": "mean score"}, "connect them and the model"),
        (found, {"classifier": labeller}, "no images to measure"),
        (found, {"classifier": labeller, "images": images[:3]}, "5 neuron path\\(s\\) and 3 image"),
        (shared, {}, "paths of classes already"),
        (glasses, {"clip_vision": vision, "zero_shot_head": head, "images": images}, "found in another model \\(portraits_labeller"),
    ):
        with pytest.raises(ValueError, match=said):
            make_class(path, **given)


def test_saved_and_loaded_paths_are_the_same(prompt: Any, labeller: Any, images: Tensor) -> None:
    from equipoise.nodes.neuron_path.load_neuron_path import LoadNeuronPath
    from equipoise.nodes.neuron_path.save_neuron_path import SaveNeuronPath

    found, *_ = find(images, classifier=labeller, attribute="hair", top_k=2)
    (path,) = SaveNeuronPath.execute(found, "test paths", True).result
    assert Path(path).parent == Path(prompt.base) / "models" / "equipoise" / "neuron_paths"
    SaveNeuronPath.execute(found, "test paths", False)  # the same again
    again, text = LoadNeuronPath.execute("test paths.safetensors").result
    assert torch.equal(again.path, found.path) and torch.equal(again.contribution, found.contribution) and again.target == found.target
    assert text == again.text() == found.text() and again.info == found.info
    other, *_ = find(images, classifier=labeller, attribute="hair", target="long")
    with pytest.raises(ValueError, match="there is another 'test paths.safetensors'"):
        SaveNeuronPath.execute(other, "test paths", False)


# -- ViT-L/14 -----------------------------------------------------------------------------------------------------------------------------


def test_vit_l_14_is_read_within_memory_and_left_as_it_was(prompt: Any, load_module: Callable[[Path, str], Any]) -> None:
    """The host's own loading of the file, one pass and its gradient. The time of a search is what ``bench clip-vision-path`` measures."""
    import comfy.clip_vision
    import psutil
    from equipoise.benchmarks.neuron_path.clip_vision_path import PROJECTED, vit_l_weights
    from equipoise.host.neuron_path.models import pixels_of, targets_of, vision_of
    from equipoise.methods.neuron_path.neuron_baselines import GRADIENT, baseline_path
    from equipoise.methods.neuron_path.path_settings import PathSettings
    from equipoise.models.zero_shot_head import ZeroShotHead

    if psutil.virtual_memory().available < 5e9:
        pytest.skip("ViT-L/14 needs 5 GB of free memory")
    vision = comfy.clip_vision.load_clipvision_from_sd(vit_l_weights())
    image = torch.rand(1, 224, 224, 3, generator=torch.Generator().manual_seed(0))
    before = vision.encode_image(image)["image_embeds"].clone()
    head = ZeroShotHead("hat", ("yes", "no"), torch.randn(2, PROJECTED, generator=torch.Generator().manual_seed(1)))
    net = vision_of(None, vision, head)
    assert (net.depth, net.neurons, net.width, net.tokens, net.activation) == (24, 4096, 1024, 257, "quick_gelu")
    pixels = pixels_of(net, image)
    path = baseline_path(net, pixels, targets_of(net, pixels), GRADIENT, PathSettings())
    assert path.shape == (1, 24, 1) and len(path.unique()) > 12
    assert torch.equal(vision.encode_image(image)["image_embeds"], before)
