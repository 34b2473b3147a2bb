"""Train both kinds of predictor on one set and compare their accuracy by level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from ...charts.core.curves import accuracy_by_log_snr
from ...charts.core.sheet import stacked
from ...factory.portraits import ATTRIBUTES
from ...methods.adp.figures import along, share_above
from ...methods.adp.train import train_adp
from ...methods.data.feature_set import open_feature_set
from ...methods.labels.labels import read_csv
from ...models.adp import KINDS
from ...shipped import weights
from ..core.stages import load_or_make

ATTRIBUTE = "eyeglasses"
"""Attribute of the figures ``accuracy_mid`` and ``by_log_snr``."""


def accuracy_of_kinds(folder: Path, recorded: Path, labels: Path) -> dict[str, Any]:
    """Train each kind on a labelled feature set; returns kind -> attribute -> figures."""
    features = open_feature_set(recorded)
    facts = {"images": len(features.entries), "first": features.entries[0].seed}
    kinds = {}
    for kind in KINDS:
        kinds[kind] = load_or_make(folder, f"accuracy-{kind}", facts, lambda kind=kind: _train(recorded, labels, kind))
    draw_accuracy(kinds, folder / "adp_kinds.png")
    return kinds


def _train(recorded: Path, labels: Path, kind: str) -> dict[str, Any]:
    file = train_adp(open_feature_set(recorded), read_csv(labels), kind)
    return {"attributes": {a: figures_of(file.info, a) for a in file.attributes}}


def figures_of(info: dict[str, Any], attribute: str) -> dict[str, Any]:
    """Collect accuracy by level, its mean, and calibration error for one attribute.

    ``share_above_90``: share of the recorded levels with an accuracy of 90% or more. ``mid``: accuracy in the middle of the window in which
    the shipped file moves the attribute; None if it does not move it.
    """
    curve, levels = info["accuracy_by_log_snr"][attribute], info["trained"][attribute]["way"]
    errors = along(info["calibration_error_by_log_snr"][attribute], levels)
    return {
        "by_log_snr": curve,
        "mean": float(along(curve, levels).mean()),
        "share_above_90": share_above(curve, levels),
        "calibration_error": float(errors.mean()),
        "mid": accuracy_mid(curve, attribute),
        "verdict": info["verdict"][attribute],
    }


def accuracy_mid(curve: list[list[float]], attribute: str) -> float | None:
    """Read a curve in the middle of the shipped move's window."""
    move = weights.adp().moves.get(attribute)
    if move is None:
        return None
    low, high = (min(max(v, curve[0][0]), curve[-1][0]) for v in move.window)
    return float(along(curve, [(low + high) / 2])[0])


def draw_accuracy(kinds: dict[str, Any], path: Path) -> None:
    """Draw the figure of the documents: one panel per kind."""
    panels = []
    for kind, figures in kinds.items():
        curves = {a: [(at, v) for at, v in f["by_log_snr"]] for a, f in figures["attributes"].items()}
        chance = {a: 1 / len(ATTRIBUTES[a]) for a in curves}
        panels.append(accuracy_by_log_snr(curves, f"kind '{kind}': held-out balanced accuracy", chance))
    partial = path.with_suffix(".partial")
    Image.fromarray(stacked(panels)).save(partial, format="PNG", optimize=True)
    partial.replace(path)
