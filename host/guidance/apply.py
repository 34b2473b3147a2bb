"""Distribution guidance as a patch of a host MODEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...methods.guidance.run import GuidanceRun, GuidanceSettings
from ...models.adp import AdpFile
from ..core.managed_networks import managed_adp
from ..core.patch import patch_model
from ..core.sites import check_fit
from ..ledger.ledgers import LedgerHandle


def apply_guidance(
    model: Any,
    adp: AdpFile,
    settings: GuidanceSettings,
    on_finish: Callable[[GuidanceRun], None] | None = None,
    ledger: LedgerHandle | None = None,
) -> Any:
    """A clone of MODEL that is guided; the original is left as it was. ``on_finish`` gets the run's state when sampling ended well.
    ``ledger``: see :func:`.batch_patch.patch_model`.

    With strength 0 or an empty window the clone carries no patch at all. Raises ValueError where the ADP does not fit the model.
    """
    check_fit(model, adp)
    GuidanceRun(adp, settings)  # refuses a target that this ADP does not know now, not in the middle of a queue
    if settings.strength == 0 or settings.sigma_start < settings.sigma_end:
        return model.clone()
    used, networks = managed_adp(adp)
    return patch_model(model, lambda: GuidanceRun(used, settings), on_finish, networks, ledger)[0]
