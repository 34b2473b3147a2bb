"""Distribution guidance as a patch of a host MODEL."""

from __future__ import annotations

from collections.abc import Callable

from ...methods.guidance.run import GuidanceRun, GuidanceSettings, resolve_guidance
from ...models.adp import AdpFile
from ..core.managed_networks import managed_adp
from ..core.passes.batch_observers import batch_observers
from ..core.patch import patch_model
from ..core.sites import check_fit
from ..core.types import Model
from ..ledger.ledgers import LedgerHandle
from ..ledger.observer import ledger_observer


def apply_guidance(
    model: Model,
    adp: AdpFile,
    settings: GuidanceSettings,
    on_finish: Callable[[GuidanceRun], None] | None = None,
    ledger: LedgerHandle | None = None,
) -> Model:
    """Return a clone of MODEL that is guided; the original stays as it was.

    ``on_finish`` gets every run that ended well. ``ledger``: its counts decide the quotas, and images are counted there. With strength 0 or
    an empty window the clone has no patch at all. Raises ValueError where the ADP does not fit the model or the settings.
    """
    check_fit(model, adp)
    resolve_guidance(adp, settings)  # raises now, not in the middle of a queue
    if settings.strength == 0 or settings.sigma_start < settings.sigma_end:
        return model.clone()
    used, networks = managed_adp(adp)
    observers = batch_observers(ledger_observer(ledger), on_finish)
    return patch_model(model, lambda: GuidanceRun(used, settings), observers, networks)[0]
