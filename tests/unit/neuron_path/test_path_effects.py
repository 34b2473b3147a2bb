"""What paths do, pruning, galleries and typed neurons, on a small random network."""

from __future__ import annotations

import pytest
import torch
from equipoise.methods.neuron_path.neuron_edits import KEEP, SCALE, NeuronEdit, edited_logits, union
from equipoise.methods.neuron_path.neuron_gallery import neuron_gallery
from equipoise.methods.neuron_path.neuron_text import listed, named_neurons, pairs
from equipoise.methods.neuron_path.path_effects import DOUBLING, REMOVAL, PathEffectSettings, effect_table, path_effects
from equipoise.methods.neuron_path.path_settings import MARGIN, PathSettings
from equipoise.methods.neuron_path.prune_curve import PruneSettings, prune_curve
from equipoise.methods.neuron_path.search import find_paths, score_paths
from equipoise.models.attribute_classifier import VisionTransformer, VitSizes
from equipoise.models.neuron_adapters import of_classifier
from equipoise.models.neuron_vit import PATCHES, NeuronVit, clean_pass

DEPTH, WIDTH, B = 3, 40, 24
PIXELS = torch.randn(B, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def net() -> NeuronVit:
    torch.manual_seed(0)
    model = VisionTransformer({"kind": tuple("abc")}, 16, VitSizes(4, 24, DEPTH, 3, WIDTH)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.25)
    made = of_classifier(model)
    head = model.heads["kind"]
    with torch.no_grad():  # all classes are to be read, none of them surely
        logits = edited_logits(made, PIXELS, [])
        scale = 2 / logits.std(0)
        head.weight *= scale[:, None]
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
    return of_classifier(model)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return PIXELS


@pytest.fixture(scope="module")
def read(net: NeuronVit, pixels: torch.Tensor) -> torch.Tensor:
    return edited_logits(net, pixels, []).argmax(1)


# -- effects ------------------------------------------------------------------------------------------------------------------------------


def test_effects_are_those_of_the_edits(net: NeuronVit, pixels: torch.Tensor, read: torch.Tensor) -> None:
    s = PathSettings(objective=MARGIN)
    path = find_paths(net, pixels, read, PathSettings(objective=MARGIN, top_k=3)).path
    found = path_effects(net, pixels, read, {"ours": path}, PathEffectSettings(s, control_draws=2))
    assert [(e.method, e.operation) for e in found] == [(m, o) for m in ("ours", "random") for o in (REMOVAL, DOUBLING)]
    removed, doubled, control, _ = found
    p = edited_logits(net, pixels, []).softmax(1).gather(1, read[:, None])[:, 0]
    for effect, edit in ((removed, NeuronEdit(path)), (doubled, NeuronEdit(path, SCALE))):
        q = edited_logits(net, pixels, [edit]).softmax(1)
        assert torch.allclose(effect.after, q.gather(1, read[:, None])[:, 0], atol=1e-5) and torch.allclose(effect.before, p, atol=1e-5)
        assert torch.equal(effect.flipped, (q.argmax(1) != read).float())
        assert torch.equal(effect.right_after, (q.argmax(1) == read).float()) and bool((effect.right_before == 1).all())
    scored = score_paths(net, pixels, read, path, s)
    assert torch.allclose(removed.joint, scored.joint, atol=1e-4) and torch.allclose(removed.additive, scored.additive, atol=1e-4)
    assert removed.change.mean() < control.change.mean(), "a path that speaks for a class takes more than a random one"
    assert torch.allclose(removed.ratio, removed.after / removed.before - 1)
    table = effect_table(found).splitlines()
    assert len(table) == 5 and table[1].startswith("ours, removal: ") and f"{float(removed.change.mean()):.3f}" in table[1]


def test_true_classes_make_the_accuracy(net: NeuronVit, pixels: torch.Tensor, read: torch.Tensor) -> None:
    truth = (read + (torch.arange(B) < 6)) % 3
    path = torch.zeros(B, DEPTH, 1, dtype=torch.long)
    found = path_effects(net, pixels, read, {"random": path}, PathEffectSettings(control_draws=9), truth)
    assert len(found) == 2 and float(found[0].right_before.mean()) == pytest.approx(0.75), "a method of that name is the control"
    with pytest.raises(ValueError, match="as many true classes"):
        path_effects(net, pixels, read, {"a": path}, truth=truth[:3])
    with pytest.raises(ValueError, match="no paths"):
        path_effects(net, pixels, read, {})


# -- pruning ------------------------------------------------------------------------------------------------------------------------------


def test_a_pruning_curve_keeps_the_union_of_class_paths(net: NeuronVit, pixels: torch.Tensor, read: torch.Tensor) -> None:
    s = PruneSettings((2, 40), (0.0, 1.0), PathSettings(objective=MARGIN), control_draws=2)
    found = prune_curve(net, pixels, None, s)
    assert [(p.kept, p.share) for p in found.points] == [(2, 0.0), (2, 1.0), (40, 0.0), (40, 1.0)]
    assert found.accuracy.mean == 1 and found.images == found.fitted == B // 2 and not found.known
    for i in (0, 2, 3):  # nothing is pruned, or nothing is left to prune
        p = found.points[i]
        assert p.accuracy.mean == p.control_accuracy.mean == 1 and p.probability.mean == pytest.approx(found.probability.mean)
    assert found.recommended in (2, 40) and found.paths.shape == (len(found.classes), DEPTH, 40)
    few = union(found.paths[:, :, :2])
    test, wanted = pixels[1::2], read[1::2]
    q = edited_logits(net, test, [NeuronEdit(few, KEEP, share=1.0)]).softmax(1)
    assert found.points[1].probability.mean == pytest.approx(float(q.gather(1, wanted[:, None]).mean()), abs=1e-5)
    assert found.points[1].neurons == pytest.approx(float((few >= 0).sum()) / DEPTH)
    text = "\n".join(found.lines(net))
    assert "agreement with the whole model" in text and "nothing is saved" in text and "recommended: keep" in text


def test_pruning_is_judged_on_images_that_chose_nothing(net: NeuronVit, pixels: torch.Tensor, read: torch.Tensor) -> None:
    s = PruneSettings((2,), (1.0,), PathSettings(objective=MARGIN), control_draws=1)
    whole = prune_curve(net, pixels, read, s)
    changed = pixels.clone()
    changed[1::2] = changed[1::2].flip(0)
    other = prune_curve(net, changed, read, s)
    assert whole.known and torch.equal(whole.paths, other.paths) and other.accuracy.mean < whole.accuracy.mean == 1
    one = prune_curve(net, pixels, read, PruneSettings((2,), (1.0,), PathSettings(objective=MARGIN), (2, 2), 1))
    assert one.points[0].probability.mean != whole.points[0].probability.mean, "only the last layer was to be pruned"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (PruneSettings((0, 5)), "choose 1 to 40"),
        (PruneSettings((41,)), "choose 1 to 40"),
        (PruneSettings((1,), (1.5,)), "0 to 1"),
        (PruneSettings((1,), ()), "0 to 1"),
    ],
)
def test_numbers_that_cannot_be_pruned(net: NeuronVit, pixels: torch.Tensor, settings: PruneSettings, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prune_curve(net, pixels, None, settings)
    with pytest.raises(ValueError, match="connect 8 or more"):
        prune_curve(net, pixels[:4])


# -- galleries ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["cls", PATCHES])
def test_a_gallery_shows_the_extremes_and_the_heat_of_the_same_unit(net: NeuronVit, pixels: torch.Tensor, rows: str) -> None:
    from dataclasses import replace

    net = replace(net, rows=rows)
    found = neuron_gallery(net, pixels, [(2, 7), (0, 3)], 4)
    hidden, logits = clean_pass(net, net.embed(pixels))
    for row, layer, j in zip(found, (2, 0), (7, 3), strict=True):
        values = hidden[layer][:, :, j].mean(1)
        assert torch.allclose(row.activation, values, atol=1e-5) and (row.layer, row.neuron) == (layer, j)
        assert list(row.top) == values.argsort(descending=True)[:4].tolist() and list(row.bottom) == values.argsort()[:4].tolist()
        assert row.heat_top.shape == (4, 4, 4) and float(row.heat_top.min()) >= 0
        label = logits.argmax(1)
        assert row.by_class == pytest.approx(
            {n: float(values[label == c].mean()) for c, n in enumerate("abc") if (label == c).any()}, abs=1e-5
        )
    if rows == PATCHES:
        whole = hidden[2][found[0].top[0], :, 7].clamp(min=0).view(4, 4)
        assert torch.allclose(found[0].heat_top[0], whole, atol=1e-5)
    with pytest.raises(ValueError, match="9:0 is none of them"):
        neuron_gallery(net, pixels, [(9, 0)])
    with pytest.raises(ValueError, match="at least one image"):
        neuron_gallery(net, pixels[:0], [(0, 0)])


# -- typed neurons ------------------------------------------------------------------------------------------------------------------------


def test_neurons_are_typed_and_told_alike() -> None:
    assert listed("0:17, 2 : 5;0:17\n1:0,", 3, 40) == [(0, 17), (2, 5), (1, 0)]
    named = named_neurons("0:17, 0:3, 2:5", 3, 40)
    assert named.tolist() == [[17, 3], [-1, -1], [5, -1]] and pairs(named) == "0:17, 0:3, 2:5"
    for text, said in (("0-17", "'0-17' is not"), ("3:1", "3:1 is none"), ("0:40", "0:40 is none"), ("", "no neurons are named")):
        with pytest.raises(ValueError, match=said):
            named_neurons(text, 3, 40)
