"""Hooks: call a run at the sites of a MODEL, with h as [R, C, H, W].

The runs of a sampling live in a clone of the transformer options, each under the handle of the patch that made it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from uuid import UUID

import comfy.model_patcher
import torch
from torch import Tensor

from ...methods.core.run import Call, Run
from ...models.sites import block_site
from .types import Model, ModelOptions, Options

log = logging.getLogger("equipoise")

RUNS_KEY = "equipoise_runs"
"""In transformer options: the runs of this sampling by their handles, and the roles of its conditionings."""
ROLES_KEY = "roles"


class Handle:
    """Name the runs of one patch.

    The host may copy options deeply, and a handle stays itself.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> Handle:
        return self


def hook_sites(model: Model, handle: Handle, key: str = RUNS_KEY) -> None:
    """Call the runs of a handle at the sites of a MODEL.

    ``model`` is a clone of the caller's own, which is changed.
    """

    def patch(h: Tensor, skip: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        run, site = run_of(options, handle, key), block_site(options["block"])
        if run is None or site not in run.sites:
            return h, skip
        return edit_on_device(run, site, h, Call.read(options, options[key].get(ROLES_KEY), run.level_of)), skip

    model.set_model_output_block_patch(torch.compiler.disable(patch))
    # First in the list: later patches (FreeU) change h in place, and the readings belong to the network's own h.
    patches = model.model_options["transformer_options"]["patches"]["output_block_patch"]
    patches.insert(0, patches.pop())


def run_of(options: Options, handle: Handle, key: str = RUNS_KEY) -> Run | None:
    """Return the run of a handle in transformer options; None outside of its sampling."""
    return options.get(key, {}).get(handle)


def with_run(original: ModelOptions, handle: Handle, run: Run, roles: Mapping[UUID, str], key: str = RUNS_KEY) -> ModelOptions:
    """Return a clone of model options that holds a run."""
    cloned = comfy.model_patcher.create_model_options_clone(original)
    options = cloned.setdefault("transformer_options", {})
    options[key] = {**options.get(key, {}), handle: run, ROLES_KEY: roles}
    return cloned


def without_run(model_options: ModelOptions, handle: Handle) -> ModelOptions:
    """Return model options in which the runs of a handle do nothing.

    The original stays as it was.
    """
    options = model_options.get("transformer_options", {})
    runs = {k: v for k, v in options.get(RUNS_KEY, {}).items() if k is not handle}
    return {**model_options, "transformer_options": {**options, RUNS_KEY: runs}}


def edit_on_device(run: Run, site: str, h: Tensor, call: Call) -> Tensor:
    """Edit h on its device.

    Fall back to the CPU for operations that the device lacks, and warn once.
    Torch raises NotImplementedError for such an operation (MPS and other back ends have gaps, which differ by version). From then on all
    edits of the run are computed on the CPU. h itself is returned where nothing is edited.
    """
    if not run.on_cpu:
        try:
            return run.edit(site, h, call)
        except NotImplementedError as error:
            if h.device.type == "cpu":
                raise
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            log.warning("%s is computed on the CPU, which is slower: %s lacks an operation (%s).", run.what, h.device.type, reason)
            run.on_cpu = True
    on_cpu = h.cpu()
    edited = run.edit(site, on_cpu, call)
    return h if edited is on_cpu else edited.to(h.device)
