"""Classes of two sources, matched by name."""

from __future__ import annotations

import pytest
import torch
from equipoise.models.class_order import in_class_order, matched


def test_columns_follow_the_classes_that_are_wanted() -> None:
    given = {"hair": ("short", "long"), "hat": ("yes", "no")}
    order = matched({"hair": ("long", "short")}, given, "the ADP", "the label set", "do this")
    assert order == {"hair": [1, 0]}
    tables = in_class_order({"hair": torch.tensor([[0.9, 0.1]]), "hat": torch.zeros(1, 2)}, order)
    assert list(tables) == ["hair"] and torch.equal(tables["hair"], torch.tensor([[0.1, 0.9]]))


@pytest.mark.parametrize("wanted", [{"hair": ("long", "curly")}, {"hair": ("long",)}, {"skin": ("light", "dark")}])
def test_other_classes_are_refused(wanted: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="set does not know '.*' with the classes .* of the ADP; it knows hair: short, long: do this"):
        matched(wanted, {"hair": ("short", "long")}, "the ADP", "the label set", "do this")
