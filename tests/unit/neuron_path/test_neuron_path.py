"""Neuron paths: those of the published implementation, of the naive algorithm, and what must not change them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.neuron_path.naive_path import NaiveRule, naive_path
from equipoise.methods.neuron_path.path_settings import (
    CLEAN_LAYER,
    GAUSS_4,
    LEFT_20,
    NODES,
    OBJECTIVES,
    PAPER,
    SEARCHES,
    SHORTLIST,
    PathSettings,
    integration_nodes,
    objective,
)
from equipoise.methods.neuron_path.search import find_paths, score_paths
from equipoise.models.attribute_classifier import VisionTransformer, VitSizes
from equipoise.models.neuron_adapters import canonical, of_classifier
from equipoise.models.neuron_vit import CLS, NeuronVit
from equipoise.models.transformers_classifier import TransformersClassifier
from safetensors.torch import load_file
from torch import Tensor

REFERENCE = Path(__file__).resolve().parents[2] / "data" / "neuron_path" / "six_layers"
K = 5


def ours(seed: int = 0, depth: int = 3) -> tuple[VisionTransformer, NeuronVit]:
    torch.manual_seed(seed)
    model = VisionTransformer({"kind": tuple("abcde")}, 16, VitSizes(4, 24, depth, 3, 40)).double().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.25)
    return model, replace(of_classifier(model.float()).to(torch.float64), labels=tuple("abcde"))


def images(count: int = 3, size: int = 16, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64), torch.randint(0, K, (count,), generator=generator)


def family(name: str) -> tuple[NeuronVit, list[torch.nn.Module], Any]:
    """A random network as ours, the modules that its neurons go into, and the network itself."""
    torch.manual_seed(3)
    if name == "ours":
        model, net = ours()
        model = model.double()
        return net, [b.mlp_out for b in model.blocks], lambda x: model(x)["kind"]
    transformers = pytest.importorskip("transformers")
    shape = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "image_size": 16,
        "patch_size": 4,
    }
    if name == "vit":
        network = transformers.ViTForImageClassification(transformers.ViTConfig(**shape, num_labels=K)).eval()
    else:
        config = transformers.CLIPConfig(vision_config=shape, num_labels=K)
        network = transformers.CLIPForImageClassification(config).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.25)
    net = of_classifier(TransformersClassifier(network, "kind", tuple("abcde"), {})).to(torch.float64)
    network = network.double()
    inner = [m for n, m in network.named_modules() if n.endswith(("mlp.fc2", "output.dense")) and "attention" not in n]
    return net, inner, lambda x: network(pixel_values=x).logits


# -- the published implementation ---------------------------------------------------------------------------------------------------------


def test_paths_and_scores_of_the_published_implementation() -> None:
    given = json.loads((REFERENCE / "results.json").read_text(encoding="utf-8"))
    data, c = load_file(REFERENCE / "images_and_scores.safetensors"), given["config"]
    weights = canonical(load_file(REFERENCE / "weights.safetensors"), torch.float64)
    labels = tuple(map(str, range(c["num_labels"])))
    net = NeuronVit(weights, c["num_hidden_layers"], c["num_attention_heads"], c["hidden_act"], c["layer_norm_eps"], 8, labels, lambda x: x)
    results = given["results"]
    targets = torch.tensor([r["label"] for r in results])
    found = find_paths(net, data["images"].double(), targets, PathSettings(PAPER, LEFT_20), keep_scores=True)
    assert found.path[:, :, 0].tolist() == [r["path"] for r in results]
    wanted = data["candidate_scores"]
    assert float(((found.scores - wanted).abs().amax((1, 2)) / wanted.abs().amax((1, 2))).max()) < 1e-9
    # These were written down in single precision.
    assert torch.allclose(found.joint, torch.tensor([r["joint_score"] for r in results]).double(), rtol=1e-6)
    assert torch.allclose(found.objective, torch.tensor([r["probability"] for r in results]).double(), rtol=1e-6)
    active = torch.tensor([r["activation_path"] for r in results])[:, :, None]
    scores = score_paths(net, data["images"].double(), targets, active, PathSettings(PAPER, LEFT_20)).joint
    assert torch.allclose(scores, torch.tensor([r["activation_joint_score"] for r in results]).double(), rtol=1e-6)


# -- the naive algorithm ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ours", "vit", "clip"])
@pytest.mark.parametrize("what", OBJECTIVES)
@pytest.mark.parametrize("search", [PAPER, CLEAN_LAYER])
@pytest.mark.parametrize("top_k", [1, 3])
def test_same_as_the_naive_algorithm(name: str, what: str, search: str, top_k: int) -> None:
    net, modules, logits = family(name)
    pixels, targets = images()
    settings = PathSettings(search, GAUSS_4, what, top_k)
    found = find_paths(net, pixels, targets, settings, keep_scores=True)
    points, weights = integration_nodes(GAUSS_4)
    single = find_paths(net.to(torch.float32), pixels.float(), targets, settings)
    for i in range(len(pixels)):
        rule = NaiveRule(search == PAPER, top_k, net.rows == CLS)
        image, integral = pixels[i : i + 1], (points, weights)
        path, scores, joint, additive = naive_path(modules, logits, image, int(targets[i]), integral, objective(what), rule)
        assert found.path[i].tolist() == path
        assert single.path[i].tolist() == path
        wanted = torch.stack(scores)
        assert float((found.scores[i] - wanted).abs().max() / wanted.abs().max()) < 1e-10
        assert float(found.joint[i]) == pytest.approx(joint, rel=1e-9, abs=1e-13)
        assert float(found.additive[i]) == pytest.approx(additive, rel=1e-9, abs=1e-13)


def test_exact_scores_of_the_shortlist_are_those_of_the_path_with_the_candidate() -> None:
    """With all neurons on the list, the pick of the last layer is the best of all paths that differ in it."""
    _, net = ours(depth=2)
    pixels, targets = images(2)
    found = find_paths(net, pixels, targets, PathSettings(SHORTLIST, GAUSS_4, shortlist=net.neurons))
    tried = []
    for j in range(net.neurons):
        path = found.path.clone()
        path[:, -1] = j
        tried.append(score_paths(net, pixels, targets, path).joint)
    assert torch.equal(torch.stack(tried).argmax(0), found.path[:, -1, 0])
    assert torch.allclose(torch.stack(tried).amax(0), found.joint)


# -- what must not change it --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", ["ours", "clip"])
def test_batches_of_mixed_targets_and_chunks_change_nothing(search: str, name: str) -> None:
    net, _, _ = family(name)
    pixels, targets = images(4)
    settings = PathSettings(search, LEFT_20, shortlist=3)
    whole = find_paths(net, pixels, targets, settings)
    chunked = find_paths(net, pixels, targets, replace(settings, memory_mb=0))
    assert torch.equal(whole.path, chunked.path)
    assert torch.allclose(whole.joint, chunked.joint, rtol=1e-10)
    for i in range(4):
        one = find_paths(net, pixels[i : i + 1], targets[i : i + 1], settings)
        assert torch.equal(one.path[0], whole.path[i])
        assert float(one.joint) == pytest.approx(float(whole.joint[i]), rel=1e-10)


@pytest.mark.parametrize("search", SEARCHES)
def test_permuting_the_neurons_permutes_the_path(search: str) -> None:
    _, net = ours()
    pixels, targets = images()
    order = [torch.randperm(net.neurons, generator=torch.Generator().manual_seed(i)) for i in range(net.depth)]
    weights = dict(net.weights)
    for i, p in enumerate(order):
        weights[f"layers.{i}.fc1.weight"], weights[f"layers.{i}.fc1.bias"] = (weights[f"layers.{i}.fc1.{k}"][p] for k in ("weight", "bias"))
        weights[f"layers.{i}.fc2.weight"] = weights[f"layers.{i}.fc2.weight"][:, p]
    settings = PathSettings(search, shortlist=4)
    plain, moved = (find_paths(n, pixels, targets, settings) for n in (net, replace(net, weights=weights)))
    back = torch.stack([order[i][moved.path[:, i]] for i in range(net.depth)], 1)
    assert torch.equal(back, plain.path)
    assert torch.allclose(moved.joint, plain.joint)


def test_a_neuron_alone_scores_what_zeroing_it_takes() -> None:
    """n = 1: the joint score is the integrated gradient, F(clean) - F(zeroed), by the fundamental theorem."""
    _, net = ours(depth=1)
    pixels, targets = images()
    found = find_paths(net, pixels, targets, PathSettings(nodes=GAUSS_4, objective="margin"))
    assert torch.allclose(found.joint, found.additive, rtol=1e-6)


def test_a_shared_path_is_the_best_by_mean() -> None:
    _, net = ours(depth=1)
    pixels, targets = images(5)
    scores = find_paths(net, pixels, targets, PathSettings(), keep_scores=True).scores
    shared = find_paths(net, pixels, targets, PathSettings(shared=True)).path
    assert (shared == scores[:, 0].mean(0).argmax()).all()


def test_it_runs_in_inference_mode_and_leaves_the_model_alone() -> None:
    model = VisionTransformer({"kind": tuple("abcde")}, 16, VitSizes(4, 24, 3, 3, 40)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pixels, targets = images()
    with torch.inference_mode():
        found = find_paths(of_classifier(model), pixels.float(), targets)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    outside = find_paths(of_classifier(model), pixels.float(), targets)
    assert torch.equal(found.path, outside.path)


def test_progress_can_interrupt() -> None:
    _, net = ours()

    def stop(done: int, total: int, figures: dict[str, float]) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_paths(net, *images(), progress=stop)


# -- bad input ----------------------------------------------------------------------------------------------------------------------------


def test_bad_input_is_answered_in_words() -> None:
    _, net = ours()
    pixels, targets = images()
    for call, said in (
        (lambda: find_paths(net, pixels[:0], targets[:0]), "no images"),
        (lambda: find_paths(net, pixels, targets[:1]), "as many targets"),
        (lambda: find_paths(net, pixels, targets * 0 + 9), "classes 0 to 4"),
        (lambda: find_paths(net, pixels, targets, PathSettings("best")), "search"),
        (lambda: find_paths(net, pixels, targets, PathSettings(nodes="simpson")), "nodes"),
        (lambda: find_paths(net, pixels, targets, PathSettings(top_k=41)), "40 neurons"),
        (lambda: score_paths(net, pixels, targets, torch.zeros(3, 2, 1, dtype=torch.long)), "has 3 layers"),
        (lambda: score_paths(net, pixels, targets, torch.full((3, 3, 1), 40)), "neurons 0 to 39"),
        (lambda: find_paths(net, pixels[..., :8], targets), "16 patches"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_all_rules_integrate_polynomials_that_they_should() -> None:
    for rule in NODES:
        points, weights = integration_nodes(rule)
        assert float(weights.sum()) == pytest.approx(1)
    points, weights = integration_nodes(GAUSS_4)
    for power in range(8):
        assert float((weights * points**power).sum()) == pytest.approx(1 / (power + 1), rel=1e-12)
