"""Replace h by an autoencoder's reconstruction, to see what that does to images."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ...models.noise_level import log_snr
from ...models.sae import SaeFile


class SpliceRun:
    """Replace all of h at the autoencoder's site, in all rows of one run."""

    exempt = False
    images: int | None = None
    on_cpu = False
    what = "the reconstruction"

    def __init__(self, sae: SaeFile) -> None:
        self.sites = {sae.site}
        self._sae: Any = sae.sae

    def edit(self, site: str, h: Tensor, options: dict[str, Any], roles: dict[Any, str] | None = None) -> Tensor:
        """Reconstruct h [R, C, H, W], in h's dtype."""
        if self._sae.knots.device != h.device:
            self._sae = copy.deepcopy(self._sae).to(h.device)
        level = torch.full((h.shape[0],), float(log_snr(float(options["sigmas"].max()))), device=h.device)
        return self._sae(h, level).to(h.dtype)

    def release(self) -> None:
        """Drop the autoencoder's copy when the run ends."""
        self._sae = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SpliceRun:
        # The host may copy its options deeply; a run is one thing, with one state.
        return self
