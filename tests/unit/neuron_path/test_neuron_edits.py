"""Interventions on neurons and the paths that other methods choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from equipoise.methods.neuron_path.neuron_baselines import BASELINES, KNOWLEDGE, RANDOM, baseline_path, contributions, total_gradients
from equipoise.methods.neuron_path.neuron_edits import KEEP, MEAN, SCALE, NeuronEdit, edited_logits, mean_values, union
from equipoise.methods.neuron_path.path_settings import PAPER, PathSettings, objective
from equipoise.methods.neuron_path.search import find_paths, score_paths
from equipoise.models.attribute_classifier import VisionTransformer, VitSizes
from equipoise.models.neuron_adapters import of_classifier
from equipoise.models.neuron_vit import PATCHES, NeuronVit, clean_pass
from torch import Tensor

DEPTH, WIDTH = 3, 40


@pytest.fixture(scope="module")
def net() -> NeuronVit:
    torch.manual_seed(0)
    model = VisionTransformer({"kind": tuple("abc")}, 16, VitSizes(4, 24, DEPTH, 3, WIDTH)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.25)
    return of_classifier(model).to(torch.float64)


@pytest.fixture(scope="module")
def patches(net: NeuronVit) -> NeuronVit:
    return replace(net, rows=PATCHES)


PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2, 0])
PATH = torch.randint(0, WIDTH, (4, DEPTH, 2), generator=torch.Generator().manual_seed(2))


def hidden_of(net: NeuronVit, edit: NeuronEdit) -> list[Tensor]:
    seen = []

    def watch(layer: int, hidden: Tensor) -> Tensor:
        seen.append(edit.applied(layer, hidden))
        return seen[-1]

    net.run(0, net.embed(PIXELS), watch)
    return seen


def test_zero_silences_each_images_own_neurons_and_no_others(net: NeuronVit) -> None:
    first = hidden_of(net, NeuronEdit(PATH))[0]
    clean = clean_pass(net, net.embed(PIXELS))[0][0]
    for i in range(4):
        changed = set((first[i, 0] != clean[i, 0]).nonzero().flatten().tolist())
        assert changed == set(PATH[i, 0].tolist())
        assert not first[i, 0, PATH[i, 0]].any()


def test_no_edit_and_an_edit_of_nothing_are_the_model(net: NeuronVit) -> None:
    plain = edited_logits(net, PIXELS, [])
    assert torch.equal(plain, net.run(0, net.embed(PIXELS)))
    nothing = torch.full((DEPTH, 1), -1)
    assert torch.equal(plain, edited_logits(net, PIXELS, [NeuronEdit(nothing)]))
    assert torch.equal(plain, edited_logits(net, PIXELS, [NeuronEdit(PATH, SCALE, 1.0)]))
    assert torch.equal(plain, edited_logits(net, PIXELS, [NeuronEdit(PATH, KEEP, share=0.0)]))
    assert not torch.equal(plain, edited_logits(net, PIXELS, [NeuronEdit(PATH)]))


def test_mean_and_layer_range(net: NeuronVit) -> None:
    means = mean_values(net, PIXELS, batch=3)
    clean = clean_pass(net, net.embed(PIXELS))[0]
    assert torch.allclose(means, torch.stack([h.mean((0, 1)) for h in clean]))
    seen = hidden_of(net, NeuronEdit(PATH[0], MEAN, means=means, layers=(1, 1)))
    assert torch.equal(seen[0], clean[0])
    assert torch.allclose(seen[1][:, 0, PATH[0, 1]], means[1, PATH[0, 1]].expand(4, -1))


def test_keep_only_keeps_the_path_and_prunes_the_stated_share(net: NeuronVit) -> None:
    whole = hidden_of(net, NeuronEdit(PATH, KEEP, share=1.0))[0]
    assert ((whole != 0).sum(-1) <= 2).all()
    half = hidden_of(net, NeuronEdit(PATH, KEEP, share=0.5, seed=1))[0]
    assert 0.35 < float((half == 0).double().mean()) < 0.65
    assert (half.gather(2, PATH[:, 0][:, None]) != 0).all()
    again = hidden_of(net, NeuronEdit(PATH, KEEP, share=0.5, seed=1))[0]
    other = hidden_of(net, NeuronEdit(PATH, KEEP, share=0.5, seed=2))[0]
    assert torch.equal(half, again) and not torch.equal(half, other)


def test_union_of_paths() -> None:
    paths = torch.tensor([[[0], [5]], [[0], [7]], [[0], [5]]])
    assert union(paths).tolist() == [[0, -1], [5, 7]]


@pytest.mark.parametrize("kind", BASELINES)
def test_baselines_do_not_depend_on_the_batch_and_may_be_shared(net: NeuronVit, kind: str) -> None:
    path = baseline_path(net, PIXELS, TARGETS, kind, PathSettings(top_k=2))
    assert path.shape == (4, DEPTH, 2)
    if kind != RANDOM:
        alone = torch.cat([baseline_path(net, PIXELS[i : i + 1], TARGETS[i : i + 1], kind, PathSettings(top_k=2)) for i in range(4)])
        assert torch.equal(path, alone)
    shared = baseline_path(net, PIXELS, TARGETS, kind, PathSettings(shared=True))
    assert (shared == shared[:1]).all()


def test_the_first_knowledge_neuron_is_the_first_of_the_path(net: NeuronVit) -> None:
    """The published search scores its first layer so."""
    path = find_paths(net, PIXELS, TARGETS, PathSettings(PAPER)).path
    assert torch.equal(baseline_path(net, PIXELS, TARGETS, KNOWLEDGE)[:, 0], path[:, 0])


def test_total_gradients_are_those_of_finite_differences(net: NeuronVit) -> None:
    gradients, values = total_gradients(net, PIXELS, TARGETS, PathSettings())
    f = objective("probability")
    layer, j, step = 1, 7, 1e-6

    def moved(by: float) -> Tensor:
        def edit(at: int, hidden: Tensor) -> Tensor:
            change = torch.zeros_like(hidden)
            change[:, 0, j] = by if at == layer else 0.0
            return hidden + change

        return f(net.run(0, net.embed(PIXELS), edit), TARGETS)

    assert torch.allclose((moved(step) - moved(-step)) / (2 * step), gradients[layer][:, 0, j], atol=1e-8)
    assert torch.equal(values[layer], clean_pass(net, net.embed(PIXELS))[0][layer])


@pytest.mark.parametrize("rows", ["cls", "patches"])
def test_contributions_sum_to_the_additive_part(net: NeuronVit, patches: NeuronVit, rows: str) -> None:
    model, settings = (patches if rows == "patches" else net), PathSettings(objective="log-probability", memory_mb=0)
    each = contributions(model, PIXELS, TARGETS, PATH, settings)
    whole = score_paths(model, PIXELS, TARGETS, PATH, settings).additive
    assert torch.allclose(each.sum((1, 2)), whole, rtol=1e-4, atol=1e-7)


def test_bad_edits_are_answered_in_words(net: NeuronVit) -> None:
    for make, said in (
        (lambda: NeuronEdit(PATH, "flip"), "not 'flip'"),
        (lambda: NeuronEdit(PATH, MEAN), "images"),
        (lambda: NeuronEdit(PATH, KEEP, share=2.0), "0 to 1"),
        (lambda: baseline_path(net, PIXELS, TARGETS, "guess"), "not 'guess'"),
    ):
        with pytest.raises(ValueError, match=said):
            make()
