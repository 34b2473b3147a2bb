"""Report what features do when each is turned alone."""

from __future__ import annotations

from ...models.bias_features import BiasFeatures

NAMED = 5
"""Largest number of features that a line names."""
SIDE_EFFECT = 0.05
"""Smallest change of another attribute's share that the report names."""


def causal_lines(file: BiasFeatures, attribute: str) -> list[str]:
    """List features by class in the order of their effect; empty if none were measured."""
    record = file.info.get("causal", {}).get(attribute)
    if record is None:
        return []
    features = file.attribute(attribute)
    index = {int(f): i for i, f in enumerate(features.features)}
    own = {f: int(features.scores[:, index[f]].argmax()) for f in record["features"]}
    effect = {f: float(features.causal[k, index[f]]) for f, k in own.items()}
    error = {f: record["error"][own[f]][j] for j, f in enumerate(record["features"])}
    plain = ", ".join(f"{c} {s:.0%}" for c, s in zip(features.classes, record["plain"], strict=True))
    lines = [
        f"{attribute}: {len(own)} features turned alone, up by {record['amount']:g} times their typical activation, and down to 0; "
        f"{record['images']} images per trial (plain images: {plain})"
    ]
    for k, name in enumerate(features.classes):
        mine = sorted((f for f in own if own[f] == k), key=lambda f: -effect[f])
        if mine:
            effects = [f"#{f} {100 * effect[f]:+.0f} +- {196 * error[f]:.0f}" for f in mine]
            lines.append(f"  '{name}', change of its share in points: {_named(effects)}")
    does, against = (sum(v > 0 for v in effect.values()), sum(v < 0 for v in effect.values()))
    neither = len(own) - does - against
    lines.append(f"  of {len(own)} features, {does} bring the class that they speak for, {against} take it away, {neither} do neither")
    most = {f: max(b.items(), key=lambda item: item[1], default=("", 0.0)) for f, b in zip(own, record["beside"], strict=True)}
    side = [f"#{f} {a} {100 * v:.0f}" for f, (a, v) in most.items() if v > max(SIDE_EFFECT, abs(effect[f]))]
    if side:
        lines.append(f"  {len(side)} change another attribute more than this one: {_named(side)}")
    return lines


def _named(items: list[str]) -> str:
    return ", ".join(items[:NAMED]) + (", ..." if len(items) > NAMED else "")
