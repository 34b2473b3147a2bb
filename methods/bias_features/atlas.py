"""Which features an atlas shows, and what it says of each."""

from __future__ import annotations

import math

from ...models.bias_features import AttributeFeatures


def chosen_features(found: AttributeFeatures, class_name: str, count: int) -> list[int]:
    """Places in ``found.features`` of the features to show, best first; class_name "": the best of every class in turn.

    Raises ValueError for a class that is not there, and where no feature speaks for it.
    """
    names = [class_name] if class_name else list(found.classes)
    lists = [found.best(name).tolist() for name in names]
    turns = [row[i] for i in range(max(map(len, lists))) for row in lists if i < len(row)]
    chosen = list(dict.fromkeys(turns))[:count]
    if not chosen:
        raise ValueError(f"no feature speaks for {' or '.join(names)} in these bias features: name another class, or none.")
    return chosen


def feature_notes(found: AttributeFeatures, place: int) -> list[str]:
    """Short lines on one feature: its class, its stability, and its side effects and its effect alone where they were measured."""
    named = class_of(found, place)
    best = found.class_index(named)
    notes = [f"for {named}", f"stable {float(found.stability[best, place]):.0%}"]
    beside, alone = float(found.side_effect[place]), float(found.causal[best, place])
    if math.isfinite(beside):
        notes.append(f"beside x {beside:.1f}")
    if math.isfinite(alone):
        notes.append(f"alone {100 * alone:+.0f} pt")
    return notes


def note_legend(found: AttributeFeatures) -> list[str]:
    """What the words in the notes of :func:`feature_notes` mean, those that occur, a line each."""
    lines = ["stable: share of resamples in which it is among the best of its class"]
    if found.side_effect.isfinite().any():
        lines.append("beside: what it carries of other attributes, relative to this one")
    if found.causal.isfinite().any():
        lines.append("alone: change of the share of its class when it alone is turned")
    return lines


def class_scores(found: AttributeFeatures, place: int) -> dict[str, float]:
    """Class -> score of one feature."""
    return {name: float(found.scores[k, place]) for k, name in enumerate(found.classes)}


def class_of(found: AttributeFeatures, place: int) -> str:
    """The class that one feature speaks for most."""
    return found.classes[int(found.scores[:, place].argmax())]
