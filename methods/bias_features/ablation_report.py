"""What ablation showed, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ...models.bias_features import BiasFeatures


def ablation_lines(file: BiasFeatures, attribute: str) -> list[str]:
    """What taking the features out does to the readout, a line per class."""
    found = file.info.get("attributes", {}).get(attribute, {}).get("ablation", {})
    return [
        f"{attribute} {name}: without its {r['features']} features the probability falls by {_interval(r['top'])}, without random features "
        f"of equal activation by {_interval(r['random'])} ({r['images']} images)"
        for name, r in found.items()
    ]


def _interval(values: Sequence[float]) -> str:
    mean, low, high = values
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
