"""Paths of a class, and how far images and classes agree: against counts made by hand, and against chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from equipoise.charts.neuron_path.class_similarity import class_similarity_chart
from equipoise.charts.neuron_path.paths import MOST_PANELS, PathPanel, neuron_path_chart
from equipoise.methods.neuron_path.class_path import (
    agreement,
    class_paths,
    frequency,
    jaccard,
    layer_entropy,
    likeness,
    mode_path,
    path_similarity,
    path_stability,
)
from equipoise.methods.neuron_path.neuron_baselines import contributions
from equipoise.methods.neuron_path.path_settings import PathSettings
from equipoise.models.attribute_classifier import VisionTransformer, VitSizes
from equipoise.models.files import write_safetensors
from equipoise.models.neuron_adapters import of_classifier
from equipoise.models.neuron_path import NeuronPathFile, check_network, load_neuron_path, save_neuron_path
from torch import Tensor

NEURONS = 50


def file(path: Tensor, target: tuple[str, ...], labels: tuple[str, ...] = ("yes", "no"), shared: bool = False) -> NeuronPathFile:
    b = len(path)
    values = torch.arange(path.numel(), dtype=torch.float32).view(path.shape)
    figures = (values, values / 10, torch.arange(b) * 1.0, torch.arange(b) * 0.5, torch.full((b,), 0.9))
    return NeuronPathFile("paper", "eyeglasses", labels, target, path, *figures, NEURONS, "abc", shared, {"model": "m", "seconds": 1.0})


def planted(images: int, noise: float, neurons: Tensor, seed: int = 0) -> Tensor:
    """Paths that follow neurons [L, K], each place replaced by chance with a probability."""
    generator = torch.Generator().manual_seed(seed)
    path = neurons.expand(images, -1, -1).clone()
    other = torch.rand(path.shape, generator=generator) < noise
    path[other] = torch.randint(20, NEURONS, (int(other.sum()),), generator=generator)
    return path


# -- one path for a class -----------------------------------------------------------------------------------------------------------------


def test_the_mode_is_the_most_frequent_of_each_slot_and_no_neuron_twice() -> None:
    path = torch.tensor([[[1, 2]], [[1, 2]], [[3, 1]], [[1, 4]]])
    assert mode_path(path).tolist() == [[1, 2]]
    # The second slot's most frequent neuron is taken by the first: the next of its own slot follows.
    path = torch.tensor([[[1, 7]], [[1, 1]], [[1, 1]], [[2, 7]], [[1, 1]]])
    assert mode_path(path).tolist() == [[1, 7]]
    assert mode_path(torch.tensor([[[5]], [[4]]])).tolist() == [[4]]
    swapped = torch.tensor([[[1, 2]], [[1, 2]], [[2, 1]], [[2, 1]], [[2, 1]]])
    assert sorted(mode_path(swapped)[0].tolist()) == [1, 2]


def test_counts_agreement_and_entropy() -> None:
    path = torch.tensor([[[0], [3]], [[0], [4]], [[0], [5]], [[1], [6]]])
    f = frequency(path, 8)
    assert f.shape == (2, 8) and f[0, :2].tolist() == [0.75, 0.25] and torch.allclose(f.sum(1), torch.ones(2))
    assert agreement(path).tolist() == [0.75, 0.25]
    assert layer_entropy(path).tolist() == pytest.approx([0.75 * np.log2(4 / 3) + 0.25 * 2, 2.0], abs=1e-6)
    assert layer_entropy(path[:1]).tolist() == [0.0, 0.0]


def test_jaccard_of_paths() -> None:
    path = torch.tensor([[[0, 1], [2, 3]], [[1, 0], [2, 9]], [[5, 6], [7, 8]]])
    assert torch.allclose(jaccard(path), torch.tensor([[1, 3 / 5, 0], [3 / 5, 1, 0], [0, 0, 1]]))


def test_a_class_path_holds_means_over_the_images_that_chose_its_neurons() -> None:
    path = torch.tensor([[[1], [2]], [[1], [3]], [[4], [2]], [[9], [9]]])
    given = file(path, ("yes", "yes", "yes", "no"))
    made = class_paths(given, {c: mode_path(given.of_class(c).path) for c in given.classes})
    assert made.shared and made.target == ("yes", "no") and made.path[:, :, 0].tolist() == [[1, 2], [9, 9]]
    assert made.activation[0, :, 0].tolist() == [(0 + 2) / 2, (1 + 5) / 2] and made.activation[1, :, 0].tolist() == [6, 7]
    assert torch.allclose(made.contribution, made.activation / 10)
    assert bool(made.joint.isnan().all()) and "were not measured" in made.text()


# -- chance -------------------------------------------------------------------------------------------------------------------------------


def test_classes_that_differ_are_told_from_those_that_do_not() -> None:
    one, two = torch.arange(6)[:, None], torch.arange(6)[:, None] + 6
    target = ("yes",) * 12 + ("no",) * 12
    apart = torch.cat([planted(12, 0.4, one, 1), planted(12, 0.4, two, 2)])
    same = torch.cat([planted(12, 0.4, one, 1), planted(12, 0.4, one, 2)])
    told, not_told = (likeness(p, target, NEURONS, draws=200) for p in (apart, same))
    assert told is not None and told.p < 0.01 and told.within > told.control + 0.1 and told.against == "of two classes"
    assert not_told is not None and not_told.p > 0.1
    table = path_similarity(file(apart, target))
    assert table[0, 1] < 0.3 and torch.allclose(table.diagonal(), torch.ones(2))
    assert path_similarity(file(same, target))[0, 1] > 0.8


def test_one_class_is_compared_with_random_paths() -> None:
    path = planted(10, 0.5, torch.arange(5)[:, None])
    alike = likeness(path, ("yes",) * 10, NEURONS)
    chance = likeness(torch.randint(0, NEURONS, (10, 5, 1), generator=torch.Generator().manual_seed(3)), ("yes",) * 10, NEURONS)
    assert alike is not None and alike.p == pytest.approx(0.01) and "of random paths" in alike.text()
    assert chance is not None and chance.p > 0.05
    assert likeness(path[:2], ("yes", "no"), NEURONS) is None


def test_stability_is_high_where_images_agree() -> None:
    sure = planted(20, 0.1, torch.arange(4)[:, None])
    assert float(path_stability(sure, mode_path(sure)).min()) > 0.95
    unsure = torch.randint(0, NEURONS, (20, 4, 1), generator=torch.Generator().manual_seed(0))
    assert float(path_stability(unsure, mode_path(unsure)).max()) < 0.9
    assert torch.equal(path_stability(sure, mode_path(sure), seed=3), path_stability(sure, mode_path(sure), seed=3))


def test_what_neurons_add_is_the_same_in_chunks() -> None:
    torch.manual_seed(0)
    net = of_classifier(VisionTransformer({"kind": ("a", "b")}, 16, VitSizes(8, 16, 3, 2, NEURONS))).to(torch.float64)
    pixels, targets = torch.randn(5, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])
    path = torch.randint(0, NEURONS, (5, 3, 2))
    for nodes in ("gauss-4", "left-20"):
        whole, chunked = (contributions(net, pixels, targets, path, PathSettings(nodes=nodes, memory_mb=mb)) for mb in (1024, 0))
        assert torch.allclose(whole, chunked, rtol=1e-12) and float(whole.abs().max()) > 1e-4


# -- files --------------------------------------------------------------------------------------------------------------------------------


def test_a_file_is_what_was_saved(tmp_path: Path) -> None:
    given = file(planted(4, 0.5, torch.arange(12).view(6, 2)), ("yes", "no", "no", "yes"))
    save_neuron_path(given, tmp_path / "a.safetensors")
    again = load_neuron_path(tmp_path / "a.safetensors")
    for name in ("path", "activation", "contribution", "joint", "additive", "objective"):
        assert torch.equal(getattr(again, name), getattr(given, name))
    facts = ("method", "attribute", "labels", "target", "neurons", "fingerprint", "shared", "info")
    assert all(getattr(again, f) == getattr(given, f) for f in facts)
    assert again.targets().tolist() == [0, 1, 1, 0] and again.of_class("no").target == ("no", "no")


def test_files_of_other_kinds_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "equipoise-adp"})
    with pytest.raises(ValueError, match="'other.safetensors' holds no neuron paths: .*'equipoise-adp'"):
        load_neuron_path(tmp_path / "other.safetensors")
    meta = {"format": "equipoise-neuron-path", "format_version": "1", "labels": '["yes", "no"]', "target": '["yes"]'}
    write_safetensors(tmp_path / "short.safetensors", {"path": torch.zeros(1, 2, 1, dtype=torch.long)}, meta)
    with pytest.raises(ValueError, match="'short.safetensors' does not fit its own metadata .*find the path again"):
        load_neuron_path(tmp_path / "short.safetensors")


def test_parts_that_do_not_belong_together_are_refused() -> None:
    good = file(planted(3, 0.5, torch.arange(4)[:, None]), ("yes", "no", "no"))
    for changed, said in (
        ({"path": good.path[:, :, 0]}, "images x layers x neurons"),
        ({"path": good.path.float()}, "whole numbers"),
        ({"path": good.path[:0], "target": ()}, "whole numbers"),
        ({"joint": good.joint[:1]}, "joint of 3 neuron path"),
        ({"contribution": good.contribution[:, :2]}, "contribution of 3"),
        ({"target": ("yes", "no")}, "as many classes"),
        ({"target": ("yes", "no", "maybe")}, "as many classes out of yes, no"),
        ({"neurons": 3}, "numbers from 0 to 2"),
        ({"shared": True}, "the same for all images of a class"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(good, **changed)
    with pytest.raises(ValueError, match="no path of the class 'maybe'.*there are: yes, no"):
        good.of_class("maybe")


def test_paths_for_other_images_are_those_of_their_classes() -> None:
    each = file(planted(3, 0.5, torch.arange(4)[:, None]), ("yes", "no", "no"))
    assert torch.equal(each.for_images(("no", "no", "yes")), each.path)
    with pytest.raises(ValueError, match="3 neuron path.*2 image"):
        each.for_images(("yes", "no"))
    rows = torch.stack([torch.full((4, 1), 1), torch.full((4, 1), 2)])
    classes = file(rows, ("yes", "no"), labels=("yes", "no", "hidden"), shared=True)
    assert classes.for_images(("no", "no", "yes"))[:, 0, 0].tolist() == [2, 2, 1]
    with pytest.raises(ValueError, match="no path of the class 'hidden'"):
        classes.for_images(("yes", "hidden"))
    assert classes.rows([0]).for_images(("hidden", "no"))[:, 0, 0].tolist() == [1, 1]


def test_a_path_made_for_another_model_is_refused() -> None:
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(of_classifier(VisionTransformer({"kind": ("a", "b")}, 16, VitSizes(8, 16, 2, 2, NEURONS))))
    path = file(torch.zeros(1, 2, 1, dtype=torch.long), ("yes",))
    check_network(replace(path, fingerprint=nets[0].fingerprint()), nets[0])
    with pytest.raises(ValueError, match=r"found in another model \(m with 2 layers of 50 neurons.*connect the model that it was found in"):
        check_network(replace(path, fingerprint=nets[0].fingerprint()), nets[1])


# -- pictures -----------------------------------------------------------------------------------------------------------------------------


def panel(name: str = "yes", images: int = 6, depth: int = 5, top_k: int = 2) -> PathPanel:
    path = planted(images, 0.4, torch.arange(depth * top_k).view(depth, top_k))
    added = torch.randn(path.shape, generator=torch.Generator().manual_seed(0)) / 10
    return PathPanel(name, path.numpy(), added.numpy(), mode_path(path).numpy(), agreement(path).numpy(), "joint score 1")


@pytest.mark.parametrize(("images", "depth", "top_k"), [(1, 2, 1), (6, 5, 2), (210, 24, 3)])
def test_the_picture_of_paths_shows_every_class(images: int, depth: int, top_k: int) -> None:
    one = neuron_path_chart("paths", NEURONS, [panel("yes", images, depth, top_k)])
    two = neuron_path_chart("paths", NEURONS, [panel("yes", images, depth, top_k), panel("no", images, depth, top_k)])
    assert one.dtype == np.uint8 and one.shape[1:] == (960, 3) and two.shape[0] > one.shape[0] + 300
    assert one.std() > 10


def test_the_picture_follows_what_it_is_given() -> None:
    plain = panel()
    base = neuron_path_chart("paths", NEURONS, [plain])
    for changed in ({"contribution": -plain.contribution}, {"agreement": plain.agreement * 0.5}, {"bold": plain.bold + 30}):
        assert not np.array_equal(base, neuron_path_chart("paths", NEURONS, [replace(plain, **changed)]))
    many = neuron_path_chart("paths", NEURONS, [panel(f"class {i}") for i in range(MOST_PANELS + 2)])
    assert many.shape[0] == neuron_path_chart("paths", NEURONS, [panel(str(i)) for i in range(MOST_PANELS)]).shape[0]


def test_pictures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="met none"):
        neuron_path_chart("paths", NEURONS, [])
    with pytest.raises(ValueError, match="agreement \\[2\\]"):
        neuron_path_chart("paths", NEURONS, [replace(panel(), agreement=np.ones(2, dtype=np.float32))])
    with pytest.raises(ValueError, match="two or more classes"):
        class_similarity_chart(["yes"], np.ones((1, 1), dtype=np.float32))


@pytest.mark.parametrize("count", [2, 5, 30])
def test_the_map_of_similarity_is_readable_for_few_and_many_classes(count: int) -> None:
    table = np.eye(count, dtype=np.float32)
    drawn = class_similarity_chart([f"class number {i}" for i in range(count)], table)
    assert drawn.shape[1:] == (960, 3) and drawn.shape[0] < 1200
    assert not np.array_equal(drawn, class_similarity_chart([f"class number {i}" for i in range(count)], 1 - table))
