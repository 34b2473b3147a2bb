"""What features do when each is turned alone, in words."""

from __future__ import annotations

from ...models.bias_features import BiasFeatures

NAMED = 5
"""Features that are named in a line."""
ASIDE = 0.05
"""A change of another attribute's share from which on it is named."""


def causal_lines(file: BiasFeatures, attribute: str) -> list[str]:
    """Features by class in the order of their effect, and how many do as they are read; nothing where none were measured."""
    record = file.info.get("causal", {}).get(attribute)
    if record is None:
        return []
    found = file.attribute(attribute)
    place = {int(f): i for i, f in enumerate(found.features)}
    own = {f: int(found.scores[:, place[f]].argmax()) for f in record["features"]}
    effect = {f: float(found.causal[k, place[f]]) for f, k in own.items()}
    error = {f: record["error"][own[f]][j] for j, f in enumerate(record["features"])}
    plain = ", ".join(f"{c} {s:.0%}" for c, s in zip(found.classes, record["plain"], strict=True))
    lines = [
        f"{attribute}: {len(own)} features turned alone, up by {record['amount']:g} times their typical activation and down to nothing; "
        f"{record['images']} images ({plain} when nothing is turned)"
    ]
    for k, name in enumerate(found.classes):
        mine = sorted((f for f in own if own[f] == k), key=lambda f: -effect[f])
        if mine:
            lines.append(f"  points of '{name}': " + _named([f"#{f} {100 * effect[f]:+.0f} +- {196 * error[f]:.0f}" for f in mine]))
    does, against = (sum(v > 0 for v in effect.values()), sum(v < 0 for v in effect.values()))
    neither = len(own) - does - against
    lines.append(f"  {does} of {len(own)} bring the class that they are read as, {against} take it away, {neither} do neither")
    most = {f: max(b.items(), key=lambda item: item[1], default=("", 0.0)) for f, b in zip(own, record["beside"], strict=True)}
    more = [f"#{f} {a} {100 * v:.0f}" for f, (a, v) in most.items() if v > max(ASIDE, abs(effect[f]))]
    if more:
        lines.append(f"  {len(more)} change another attribute more than this one: {_named(more)}")
    return lines


def _named(items: list[str]) -> str:
    return ", ".join(items[:NAMED]) + (", ..." if len(items) > NAMED else "")
