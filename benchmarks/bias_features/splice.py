"""Replace h by an autoencoder's reconstruction, to see what that does to images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...host.bias_features.apply import check_sae_fit
from ...host.core.managed_networks import managed_sae
from ...host.core.patch import patch_model
from ...host.core.types import Model
from ...methods.core.run import Call, Run
from ...models.sae import SaeFile


class SpliceRun(Run):
    """Replace all of h at the autoencoder's site, in all rows of one run."""

    what = "the reconstruction"

    def __init__(self, sae: SaeFile) -> None:
        super().__init__([sae.site])
        self._sae: Any = sae.sae

    def edit(self, site: str, h: Tensor, call: Call) -> Tensor:
        """Return the reconstruction of h [R, C, H, W], in its dtype."""
        self._sae = self._sae.on(h.device)
        return self._sae(h, torch.full((h.shape[0],), call.level, device=h.device)).to(h.dtype)

    def release(self) -> None:
        """Drop the autoencoder; the run ends here."""
        super().release()
        self._sae = None


def apply_splice(model: Model, sae: SaeFile) -> Any:
    """Return a clone of MODEL that samples with reconstructed h.

    Raises ValueError where the two do not fit.
    """
    check_sae_fit(model, sae)
    used, networks = managed_sae(sae)
    return patch_model(model, lambda: SpliceRun(used), networks=networks)[0]
