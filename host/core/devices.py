"""What a device cannot do is done on the CPU, and said once."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

log = logging.getLogger("equipoise")


def edit_where_possible(run: Any, site: str, h: Tensor, options: dict[str, Any], roles: dict[Any, str] | None) -> Tensor:
    """``run.edit`` on h's device; from the first operation that the device lacks on, the run's edits are made on the CPU.

    Torch raises NotImplementedError for such an operation (MPS and other back ends have gaps, which differ by version). h itself comes back
    where nothing is edited.
    """
    if not run.on_cpu:
        try:
            return run.edit(site, h, options, roles)
        except NotImplementedError as error:
            if h.device.type == "cpu":
                raise
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            log.warning("%s is computed on the CPU, which is slower: %s lacks an operation (%s).", run.what, h.device.type, reason)
            run.on_cpu = True
    here = h.cpu()
    out = run.edit(site, here, options, roles)
    return h if out is here else out.to(h.device)
