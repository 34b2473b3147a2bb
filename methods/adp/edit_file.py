"""Add moves to an ADP, whether it reads their attribute or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...models.adp import AdpFile, Move
from ...models.class_order import matched


def check_classes(file: AdpFile, attributes: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError if the file has one of these attributes with other classes.

    Their order does not matter.
    """
    known = {a: c for a, c in attributes.items() if a in file.attributes}
    matched(known, file.attributes, "the new moves", "this ADP", "use the same classes, or another name for the attribute")


def with_alternative(
    file: AdpFile | None, base_model: str, attribute: str, classes: Sequence[str], move: Move, record: Mapping[str, Any]
) -> AdpFile:
    """Add an uncalibrated move to the file, or to a new one without a predictor.

    ``classes``: in the order of the move's vectors. If the file has the attribute, its order of the classes stays. A move of the same
    source is replaced, and its calibration records are dropped. ``record`` goes to ``info["directions"]``. Raises ValueError if the file
    has the attribute with other classes.
    """
    file = file or AdpFile(None, {}, base_model)
    check_classes(file, {attribute: classes})
    order = file.attributes.get(attribute, tuple(classes))
    move = move.reordered([list(classes).index(c) for c in order])
    others = {s: m for s, m in file.sources().get(attribute, {}).items() if s != move.source}
    default = file.moves.get(attribute)
    moves = {a: m for a, m in file.moves.items() if a != attribute}
    if default is not None and default.source != move.source:
        moves[attribute] = others.pop(default.source)
    records = file.info.get("directions", {})
    info = {**file.info, "directions": {**records, attribute: {**records.get(attribute, {}), move.source: dict(record)}}}
    if attribute in info.get("calibration", {}):
        info["calibration"] = {**info["calibration"], attribute: _without_source(info["calibration"][attribute], move.source)}
    unread = file.unread if attribute in file.attributes else {**file.unread, attribute: order}
    return replace(
        file, moves=moves, alternatives={**file.alternatives, attribute: {**others, move.source: move}}, info=info, unread=unread
    )


def in_order(file: AdpFile, attributes: Mapping[str, Sequence[str]]) -> AdpFile:
    """Reorder the classes of these attributes in all their moves."""
    remedy = "use the same classes, or another name for the attribute"
    order = matched(attributes, file.attributes, "the new order", "this ADP", remedy)
    moves = {a: m.reordered(order[a]) if a in order else m for a, m in file.moves.items()}
    others = {a: {s: m.reordered(order[a]) if a in order else m for s, m in by.items()} for a, by in file.alternatives.items()}
    unread = {a: tuple(attributes.get(a, c)) for a, c in file.unread.items()}
    return replace(file, moves=moves, alternatives=others, unread=unread)


def _without_source(stages: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Remove the entries of one source from calibration records."""
    tables = ("hits", "by_class", "drift", "unsure", "sizes", "window")
    return {
        stage: {k: {s: v for s, v in t.items() if s != source} if k in tables and isinstance(t, Mapping) else t for k, t in r.items()}
        if isinstance(r, Mapping)
        else r
        for stage, r in stages.items()
    }
