"""Charts of how the shipped models were made, from the logs that ship beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ..charts.core.curves import accuracy_by_log_snr, training_curves
from ..shipped import weights
from .portraits import ATTRIBUTES

EVIDENCE = Path(__file__).resolve().parent.parent / "docs" / "evidence"


def redraw(folder: Path = EVIDENCE) -> list[Path]:
    """Write the charts of every shipped training as PNG files.

    Loss curves, and the predictors' accuracy by noise level. Returns their paths.
    """
    trained = [weights.DIFFUSION, weights.DIFFUSION_PROFESSIONS, weights.TEXT, weights.LABELLER, weights.JUDGE]
    logs = {path.stem: _log(path)["log"] for path in trained if path.with_suffix(".log.json").is_file()}
    charts = {"training.png": training_curves(logs, "Loss of the shipped models while they were trained")}
    for path in (p for p in (weights.ADP, weights.ADP_PROFESSIONS, weights.ADP_TEXT) if p.is_file()):
        accuracy = _log(path)["accuracy_by_log_snr"]
        chance = {a: 1 / len(ATTRIBUTES[a]) for a in accuracy}
        charts[f"adp_{path.stem}.png"] = accuracy_by_log_snr(accuracy, f"What the predictor of {path.stem} reads, held out", chance)
    written = []
    for name, pixels in charts.items():
        written.append(folder / name)
        partial = written[-1].with_suffix(".partial")
        Image.fromarray(pixels).save(partial, format="PNG", optimize=True)
        partial.replace(written[-1])
    return written


def _log(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".log.json").read_text(encoding="utf-8"))
