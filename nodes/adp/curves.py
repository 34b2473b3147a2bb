"""Charts of an ADP that several nodes show."""

from __future__ import annotations

import numpy as np
import torch

from ...charts.adp.figures import adp_curves
from ...models.adp import AdpFile
from ..core.ui import as_image


def curves_of(adp: AdpFile) -> torch.Tensor:
    """Draw accuracy and loss by noise level: IMAGE [1, H, W, 3].

    As the file keeps them; a white image if it keeps none.
    """
    info = adp.info
    accuracy, loss = info.get("accuracy_by_log_snr") or {}, info.get("loss_by_log_snr") or {}
    if not any(accuracy.values()) and not any(loss.values()):
        return as_image(np.full((520, 960, 3), 255, dtype=np.uint8))
    moved = {a: m.window for a, m in adp.moves.items() if m.window[0] < m.window[1]}
    return as_image(adp_curves(accuracy, loss, {a: len(c) for a, c in adp.attributes.items()}, moved))
