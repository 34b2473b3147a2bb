"""Match the classes of attributes between two sources, such as an ADP and labels, whose orders may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

Classes = Mapping[str, Sequence[str]]
"""Attribute -> class names, in the order of one source."""


def matched(wanted: Classes, offered: Classes, wanted_by: str, offered_by: str, remedy: str) -> dict[str, list[int]]:
    """Return the columns of ``offered`` in the class order of ``wanted``, by attribute of ``wanted``.

    ``wanted_by`` and ``offered_by`` name the two sources in the message ("the ADP", "the label set"), ``remedy`` says what to do.
    Raises ValueError where ``offered`` lacks an attribute, or has it with other classes.
    """
    for attribute, classes in wanted.items():
        if set(offered.get(attribute, ())) != set(classes):
            known = "; ".join(f"{a}: {', '.join(c)}" for a, c in offered.items()) or "no attribute"
            raise ValueError(
                f"{offered_by} does not know '{attribute}' with the classes {', '.join(classes)} of {wanted_by}; it knows {known}: "
                f"{remedy}."
            )
    return {attribute: [list(offered[attribute]).index(c) for c in classes] for attribute, classes in wanted.items()}


def in_class_order(tables: Mapping[str, Tensor], order: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Put the columns of tables [N, K] in another order.

    Attributes without an order are left out.
    """
    return {attribute: tables[attribute][:, list(columns)] for attribute, columns in order.items()}
