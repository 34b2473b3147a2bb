"""The audit of leakage: a leak whose neuron is known is found, named and taken away, and what is clean is not flagged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from equipoise.methods.neuron_path.image_estimates import estimate, random_like, readings
from equipoise.methods.neuron_path.leakage_audit import AuditSettings, LeakageAudit, audit_leakage, gap, leak_carriers
from equipoise.methods.neuron_path.neuron_edits import KEEP, NeuronEdit
from equipoise.methods.neuron_path.path_settings import MARGIN, PathSettings
from equipoise.models.attribute_classifier import AttributeClassifier, VisionTransformer, VitSizes
from equipoise.models.neuron_adapters import of_classifier
from equipoise.models.neuron_vit import NeuronVit
from equipoise.tests.equipoise_planted_leak import LAYER, NEURON, drawings, planted

SETTINGS = AuditSettings(PathSettings(objective=MARGIN, top_k=2), control_draws=2)


@pytest.fixture(scope="module")
def leaky() -> AttributeClassifier:
    return planted()


@pytest.fixture(scope="module")
def nets(leaky: AttributeClassifier) -> dict[str, NeuronVit]:
    return {a: of_classifier(leaky, a) for a in ("hair", "eyeglasses")}


@pytest.fixture(scope="module")
def pixels(leaky: AttributeClassifier) -> torch.Tensor:
    return leaky.preprocess(drawings(40, 7)[0])


@pytest.fixture(scope="module")
def audit(nets: dict[str, NeuronVit], pixels: torch.Tensor) -> LeakageAudit:
    return audit_leakage(nets, pixels, SETTINGS)


def test_a_planted_leak_is_flagged_in_its_direction_alone(audit: LeakageAudit) -> None:
    assert [(x.source, x.target) for x in audit.flagged] == [("hair", "eyeglasses")]
    leak = audit.leak("hair", "eyeglasses")
    assert leak.flips.mean > 0.1 and leak.excess_flips.low > 0 and leak.control_flips < 0.05
    (warning,) = audit.warnings()
    assert "labels of eyeglasses lean on what decides hair" in warning and f"{leak.flips.mean:.1%}" in warning
    assert (audit.paths["hair"][:, LAYER] == NEURON).any(1).float().mean() > 0.2, "the neuron that was planted is on hair's paths"
    assert audit.table("flips")[0, 1] == pytest.approx(leak.flips.mean) and torch.allclose(audit.table("cosine").diag(), torch.ones(2))
    assert audit.level == pytest.approx(0.975)


def test_a_labeller_without_the_leak_is_not_flagged(pixels: torch.Tensor) -> None:
    from equipoise.shipped import weights

    clean = weights.classifier()
    found = audit_leakage({a: of_classifier(clean, a) for a in ("hair", "eyeglasses")}, pixels[:24], SETTINGS)
    assert not found.flagged and not found.warnings()
    assert found.leak("hair", "eyeglasses").cosine > 0.1, "paths of a clean labeller overlap as well"


def test_carriers_name_the_neuron_and_their_removal_mends(
    leaky: AttributeClassifier, nets: dict[str, NeuronVit], audit: LeakageAudit, pixels: torch.Tensor
) -> None:
    found = leak_carriers(nets["eyeglasses"], pixels, audit.read["hair"], "hair", "eyeglasses")
    assert int(found.neurons[LAYER, 0]) == NEURON and found.scores[LAYER, 0] == found.scores.max()
    assert found.after.mean < 0.6 * found.before.mean
    assert found.classes == (1, 0) and found.label == 0, "long hair is what raises 'yes'"
    images, labels = drawings(64, 11)
    edit = NeuronEdit(found.neurons)
    before, after = (readings(nets["eyeglasses"], leaky.preprocess(images), e).argmax(1) for e in (None, edit))
    truth = labels["eyeglasses"]
    assert (after == truth).float().mean() > (before == truth).float().mean() + 0.1
    suffered = (labels["hair"] == 1) & (truth == 1)
    assert (after == truth)[suffered].float().mean() > 0.9 > 0.5 > (before == truth)[suffered].float().mean()
    file = found.file(nets["eyeglasses"], "labeller")
    assert file.shared and file.target == ("yes",) and torch.equal(file.path[0], found.neurons) and file.info["source"] == "hair"


def test_the_gap_is_the_distance_of_mean_readings() -> None:
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 4 + [[0.0, 1.0]] * 3)
    groups = torch.tensor([0] * 4 + [1] * 4 + [2] * 3)
    assert gap(p, groups) == pytest.approx(0.7), "a class that fewer than 4 images show is left out"
    assert gap(p[:4], groups[:4]) != gap(p[:4], groups[:4])  # NaN


def test_random_neurons_are_as_many_in_the_same_layers() -> None:
    named = torch.tensor([[3, -1, -1], [1, 2, 5]])
    drawn = random_like(named, 40, 0)
    assert torch.equal(drawn < 0, named < 0) and len(drawn[1].unique()) == 3 and int(drawn.max()) < 40
    assert not torch.equal(drawn, random_like(named, 40, 1))


def test_an_interval_holds_the_mean_and_narrows() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    wide, narrow = estimate(values[:40]), estimate(values)
    assert narrow.mean == pytest.approx(float(values.mean()), abs=1e-6) and narrow.low < narrow.mean < narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert narrow.high - narrow.low == pytest.approx(4 * float(values.std()) / 20, rel=0.15)
    assert estimate(values[:1]).low != estimate(values[:1]).low and estimate(values, 0.99).low < narrow.low


def test_readings_are_the_same_in_any_number_of_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.methods.neuron_path import image_estimates

    torch.manual_seed(0)
    model = VisionTransformer({"kind": tuple("abc")}, 16, VitSizes(4, 24, 3, 3, 40)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.25)
    net, images = of_classifier(model), torch.randn(7, 3, 16, 16)
    path = torch.randint(0, 40, (7, 3, 2))
    for edit in (None, NeuronEdit(path), NeuronEdit(path[:1, :, :1])):
        whole = readings(net, images, edit)
        monkeypatch.setattr(image_estimates, "ROWS", 3)
        seen: list[int] = []
        assert torch.allclose(readings(net, images, edit, lambda i, n, f, seen=seen: seen.append(i)), whole, atol=1e-6) and seen == [
            3,
            6,
            7,
        ]
        monkeypatch.undo()
    pruned = NeuronEdit(path[0], KEEP, share=0.5)
    monkeypatch.setattr(image_estimates, "ROWS", 1)
    same = readings(net, images[:1].repeat(4, 1, 1, 1), pruned)
    assert len(same.unique(dim=0)) == 4, "every image draws what is pruned anew"


def test_what_cannot_be_audited_is_said_in_a_sentence(nets: dict[str, NeuronVit], pixels: torch.Tensor) -> None:
    other = replace(nets["hair"], weights={k: v + (k == "cls") for k, v in nets["hair"].weights.items()})
    for given, images, said in (
        ({"hair": nets["hair"]}, pixels, "name at least two"),
        ({"hair": other, "eyeglasses": nets["eyeglasses"]}, pixels, "different networks"),
        (nets, pixels[:5], "connect at least 8"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            audit_leakage(given, images)
        assert str(error.value).endswith(".")
    with pytest.raises(ValueError, match="8 of each are needed"):
        leak_carriers(nets["eyeglasses"], pixels[:12], torch.tensor([0] * 9 + [1] * 3), "hair", "eyeglasses")


def test_an_audit_can_be_interrupted(nets: dict[str, NeuronVit], pixels: torch.Tensor) -> None:
    def stop(done: int, total: int, figures: dict[str, float]) -> None:
        assert 0 <= done <= total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_leakage(nets, pixels[:8], SETTINGS, stop)
