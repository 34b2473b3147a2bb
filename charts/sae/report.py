"""How an autoencoder came out: what it leaves unexplained by noise level, and the loss while it was trained."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.curves import curves_by_log_snr, training_curves
from ..core.sheet import stacked
from ..core.style import Image


def sae_curves(fvu_by_log_snr: Sequence[Sequence[float]], loss: Sequence[Sequence[float]]) -> Image:
    """Draw FVU and loss, one below the other: uint8 [1048, 960, 3].

    Half of that height if one of them is empty.

    fvu_by_log_snr: [[log-SNR, unexplained share of the variance, ...], ...] of held-out images. loss: [[step, mean loss up to it], ...].
    Raises ValueError where there is nothing to draw.
    """
    parts = []
    if fvu_by_log_snr or not loss:
        curve = [(float(row[0]), float(row[1])) for row in fvu_by_log_snr]
        parts.append(curves_by_log_snr({"held-out": curve}, "unexplained share of the variance by noise level", "unexplained"))
    if loss:
        log = [{"step": float(step), "loss": float(value)} for step, value in loss]
        parts.append(training_curves({"training": log}, "loss while the autoencoder was trained"))
    return stacked(parts)
