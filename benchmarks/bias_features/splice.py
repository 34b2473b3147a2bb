"""h replaced by an autoencoder's reconstruction of it, to judge the autoencoder by the images that come out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.noise_level import log_snr
from ...models.sae import SaeFile


class SpliceRun:
    """One sampling run in which the whole of h at the autoencoder's site is what the autoencoder makes of it, in all rows."""

    exempt = False
    images: int | None = None
    on_cpu = False
    what = "the reconstruction"

    def __init__(self, sae: SaeFile) -> None:
        self.sites = {sae.site}
        self._sae: Any = sae.sae

    def edit(self, site: str, h: Tensor, options: dict[str, Any], roles: dict[Any, str] | None = None) -> Tensor:
        """h [R, C, H, W] -> its reconstruction, in h's dtype."""
        self._sae = self._sae.on(h.device)
        level = torch.full((h.shape[0],), float(log_snr(float(options["sigmas"].max()))), device=h.device)
        return self._sae(h, level).to(h.dtype)

    def release(self) -> None:
        """Drop the copy; the run ends here."""
        self._sae = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SpliceRun:
        # The host may copy its options deeply; a run is one thing, with one state.
        return self
