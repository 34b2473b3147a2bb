"""What a report states for which inputs, on readings and features whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from equipoise.metrics.findings import AT_TARGET, ComparisonSettings, Embedding, Reader, cells_of, findings_of
from equipoise.metrics.frechet import frechet_distance
from equipoise.metrics.kernel import squared_mmd

CLASSES = {"glasses": ("yes", "no"), "hair": ("short", "long")}
HALF = (("glasses",), (0.5, 0.5))


def read(glasses: list[int], hair: list[int] | None = None) -> dict[str, np.ndarray]:
    return {"glasses": np.eye(2)[glasses], "hair": np.eye(2)[hair or [0] * len(glasses)]}


def reader(base: Any, steered: Any, reference: Any = None, name: str = "judge") -> Reader:
    return Reader(name, CLASSES, base, steered, reference)


def features(labels: list[int], seed: int, d: int = 6) -> np.ndarray:
    """Class 0 lies at 3, class 1 at 0."""
    return np.random.default_rng(seed).normal(size=(len(labels), d)) + 3 * (1 - np.asarray(labels))[:, None]


BEFORE, AFTER, REAL = [0] * 4 + [1] * 28, [0, 1] * 16, [0] * 20 + [1] * 80
JUDGE = reader(read(BEFORE), read(AFTER, [0] * 24 + [1] * 8), read(REAL))


def test_without_anything_but_a_judge() -> None:
    found = findings_of([reader(read(BEFORE), read(AFTER))], [None])
    assert [p.name for p in found.judged[0].panels] == ["glasses", "hair"] and found.quality == () and found.similarity == {}
    assert [d.attribute for d in found.judged[0].drift] == ["glasses", "hair"] and found.n == {"base": 32, "steered": 32}


def test_shares_and_drift() -> None:
    found = findings_of([JUDGE], [HALF], comparison=ComparisonSettings(batch=8))
    (panel,) = found.judged[0].panels
    assert panel.report.counts == (16, 16) and panel.baseline.counts == (4, 28) and found.fd == 0.0
    (hair,) = found.judged[0].drift
    assert hair.attribute == "hair" and hair.drift == 0.25 and hair.moved == 0.25
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["judged"][0]["drift"][0]["drift"] == 0.25


def test_quality_to_the_reference_to_it_at_the_targets_shares_and_within_classes() -> None:
    e = Embedding("net", features(BEFORE, 0), features(AFTER, 1), features(REAL, 2))
    found = findings_of([JUDGE], [HALF], [e])
    rows = {(q.what, q.to): q for q in found.quality}
    assert list(rows) == [
        ("base", "reference"),
        ("steered", "reference"),
        ("base", AT_TARGET),
        ("steered", AT_TARGET),
        ("steered, 'yes' only", "reference, 'yes' only"),
        ("base, 'no' only", "reference, 'no' only"),
        ("steered, 'no' only", "reference, 'no' only"),
    ]
    assert ("base, 'yes' only", "reference, 'yes' only") not in rows
    assert any("within 'yes' (base): they need 8" in u for u in found.unstated)
    to = rows["steered", "reference"]
    assert to.frechet.value == pytest.approx(frechet_distance(e.steered, e.reference))
    assert to.kernel.value == pytest.approx(squared_mmd(e.steered, e.reference))
    # balanced images are nearer to a balanced reference than to the skewed one; skewed images the other way round
    assert rows["steered", AT_TARGET].frechet.value < to.frechet.value
    assert rows["base", AT_TARGET].frechet.value > rows["base", "reference"].frechet.value
    assert rows["steered", AT_TARGET].kernel is None
    assert rows["steered, 'yes' only", "reference, 'yes' only"].frechet.n == 16


def test_it_can_be_stopped_between_distances() -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        findings_of([JUDGE], [HALF], [Embedding("net", features(BEFORE, 0), features(AFTER, 1), features(REAL, 2))], tick=stop)


def test_without_a_reference_steered_images_are_compared_with_base_ones() -> None:
    found = findings_of([reader(read(BEFORE), read(AFTER))], [HALF], [Embedding("net", features(BEFORE, 0), features(AFTER, 1), clip=True)])
    (row,) = found.quality
    assert (row.what, row.to) == ("steered", "base") and row.kernel.scale == 1000
    assert any("no reference images" in u for u in found.unstated) and list(found.similarity) == ["net"]


def test_a_reference_that_lacks_what_is_asked_for_is_said_to() -> None:
    judge = reader(read(BEFORE), read(AFTER), read([1] * 50))
    found = findings_of([judge], [HALF], [Embedding("net", features(BEFORE, 0), features(AFTER, 1), features([1] * 50, 2))])
    assert "the reference at the target's shares: it has no image of yes" in found.unstated
    assert not [q for q in found.quality if q.to == AT_TARGET]


def test_classes_that_are_not_asked_for_weigh_nothing() -> None:
    found = findings_of([JUDGE], [(("glasses",), (1.0, 0.0))], [Embedding("n", features(BEFORE, 0), features(AFTER, 1), features(REAL, 2))])
    row = next(q for q in found.quality if q.to == AT_TARGET and q.what == "steered")
    yes = features(REAL, 2)[:20]
    assert row.frechet.value == pytest.approx(frechet_distance(features(AFTER, 1), yes))


def test_one_image_is_counted_and_its_quality_left_unstated() -> None:
    found = findings_of([reader(read([0]), read([1]))], [HALF], [Embedding("net", np.ones((1, 3)), np.ones((1, 3)))])
    assert found.judged[0].panels[0].report.n == 1 and found.quality == () and found.similarity["net"].cosine == pytest.approx(1.0)
    assert "need at least two images in every set, and there are 1 base, 1 steered images" in found.unstated[0]
    json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_two_judges_and_a_labeller_in_another_class_order() -> None:
    turned = {a: t[:, ::-1] for a, t in read(AFTER).items()}
    labeller = Reader("labeller", {a: c[::-1] for a, c in CLASSES.items()}, {a: t[:, ::-1] for a, t in read(BEFORE).items()}, turned)
    second = reader(read(BEFORE), read([0] * 20 + [1] * 12), name="second")
    found = findings_of([reader(read(BEFORE), read(AFTER)), second], [HALF, HALF], others=[labeller])
    assert [j.name for j in found.judged] == ["judge", "second"] and found.fd == 0.0
    assert found.agreement["labeller", "steered", "glasses"].agreement == 1.0
    expected = np.mean(np.asarray(AFTER) == np.asarray([0] * 20 + [1] * 12))
    assert found.agreement["second", "steered", "glasses"].agreement == pytest.approx(expected)


def test_a_reader_with_other_classes_has_no_agreement_stated() -> None:
    other = Reader("other", {"glasses": ("yes", "no", "sun"), "age": ("young", "old")}, {}, {})
    assert findings_of([reader(read(BEFORE), read(AFTER))], [None], others=[other]).agreement == {}


def test_the_prompt() -> None:
    g = np.random.default_rng(0)
    text, before = g.normal(size=(1, 8)), g.normal(size=(32, 8))
    found = findings_of([reader(read(BEFORE), read(AFTER))], [None], prompt=(before, before + text, text))
    assert found.prompted.change[0] > 0 and found.prompted.change[1] > 0
    unpaired, prompt = ComparisonSettings(paired=False), (before, before + text, text)
    apart = findings_of([reader(read(BEFORE), read(AFTER))], [None], prompt=prompt, comparison=unpaired)
    assert apart.prompted.change is None and apart.similarity == {} and apart.judged[0].drift[0].moved is None


def test_other_numbers_of_images_need_other_seeds() -> None:
    with pytest.raises(ValueError, match="met 32 and 2: switch same_seeds off"):
        findings_of([reader(read(BEFORE), read([0, 1]))], [None])
    unpaired = ComparisonSettings(paired=False)
    assert findings_of([reader(read(BEFORE), read([0, 1]))], [None], comparison=unpaired).n == {"base": 32, "steered": 2}


def test_images_are_put_into_the_cells_they_are_counted_in() -> None:
    found = findings_of([JUDGE], [(("glasses", "hair"), (0.25,) * 4)])
    table = found.judged[0].panels[0]
    assert np.bincount(cells_of(JUDGE.steered, table), minlength=4).tolist() == list(table.report.counts)
