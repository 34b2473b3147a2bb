"""Which panels there are for which question, and which FD stands for all."""

from __future__ import annotations

import numpy as np
import pytest
from equipoise.methods.core.target_text import parse_target
from equipoise.metrics.panels import headline, make_panels

CLASSES = {"eyeglasses": ("yes", "no"), "hair": ("short", "long"), "skin_tone": ("light", "medium", "dark")}


def readings(eyeglasses: list[int], hair: list[int], skin_tone: list[int]) -> dict[str, np.ndarray]:
    return {a: np.eye(len(CLASSES[a]))[v] for a, v in (("eyeglasses", eyeglasses), ("hair", hair), ("skin_tone", skin_tone))}


READ = readings([0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 2])


def test_without_a_target_every_attribute_against_uniform() -> None:
    panels = make_panels(READ, CLASSES)
    assert [p.name for p in panels] == list(CLASSES) and not any(p.report.target_given for p in panels)
    assert headline(panels) == max(p.report.fd for p in panels)


def test_a_target_in_another_class_order_is_matched_by_name() -> None:
    target = parse_target("eyeglasses: no=0.2, yes=0.8", {"eyeglasses": ("no", "yes")}).reordered(CLASSES)
    (panel,) = make_panels(READ, CLASSES, (target.attributes, target.shares))
    assert panel.report.classes == ("yes", "no") and panel.report.target == pytest.approx((0.8, 0.2))
    assert headline([panel]) == pytest.approx(np.sqrt(2) * 0.05)


def test_a_joint_target_has_a_table_first_then_its_marginals() -> None:
    text = "hair x skin_tone: long/light=0.5, short/dark=0.3, long/dark=0.2"
    target = parse_target(text, CLASSES)
    panels = make_panels(READ, CLASSES, (target.attributes, target.shares))
    assert [p.name for p in panels] == ["hair x skin_tone", "hair", "skin_tone"]
    table, hair, skin = (p.report for p in panels)
    assert table.classes[2] == "short/dark" and table.target[2] == pytest.approx(0.3) and table.counts == (1, 0, 0, 1, 1, 1)
    assert hair.target == pytest.approx((0.3, 0.7)) and skin.target == pytest.approx((0.5, 0.0, 0.5))
    assert headline(panels) == table.fd


def test_chosen_attributes_keep_their_target_or_have_none() -> None:
    target = parse_target("eyeglasses x hair: uniform", CLASSES)
    panels = make_panels(READ, CLASSES, (target.attributes, target.shares), attributes=["skin_tone", "hair"])
    assert [(p.name, p.report.target_given) for p in panels] == [("skin_tone", False), ("hair", True)]
    assert headline(panels) == panels[1].report.fd
    both = make_panels(READ, CLASSES, (target.attributes, target.shares), attributes=["hair", "eyeglasses"])
    assert [p.name for p in both] == ["eyeglasses x hair", "hair", "eyeglasses"]


def test_baseline_may_have_another_number_of_images() -> None:
    (panel,) = make_panels(READ, CLASSES, attributes=["hair"], baseline=readings([0] * 9, [0] * 9, [0] * 9))
    assert panel.report.n == 4 and panel.baseline.n == 9 and panel.baseline.counts == (9, 0)
    assert panel.to_dict()["baseline"]["fd"] == pytest.approx(np.sqrt(0.5))


def test_an_unknown_attribute_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"does not read 'beard'; it reads: eyeglasses \(yes, no\); hair"):
        make_panels(READ, CLASSES, attributes=["beard"])
