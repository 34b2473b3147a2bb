"""Edits of h as patches of a host MODEL: what distribution guidance and bias-feature steering have in common.

The patch and the wrapper are closures over immutable settings; what a run needs is made when sampling starts, lives in a clone of the
transformer options, and is dropped in ``finally``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...benchmarks.bias_features.splice import SpliceRun
from ...methods.core.batch_run import BatchRun
from ...methods.core.rows import BY_NUMBER, CONDITIONAL, EXEMPT, UNCONDITIONAL
from ...models.sites import block_site
from ..ledger.ledgers import LedgerHandle, LedgerRun, running_node
from .devices import edit_where_possible
from .live import Live
from .managed_networks import load_beside
from .passes.shared_batch import together

KEY = "equipoise_runs"
EXEMPT_KEY = "equipoise_exempt"
"""In a CONDITIONING entry's dict: its rows are left out of guidance."""

Run = TypeVar("Run", bound=BatchRun | SpliceRun)


class Handle:
    """Names one node's run; the host may copy options deeply, and a handle stays itself."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Handle:
        return self


def patch_model(
    model: Any,
    make_run: Callable[[], Run],
    on_finish: Callable[[Run], None] | None = None,
    networks: Sequence[Any] = (),
    ledger: LedgerHandle | None = None,
) -> tuple[Any, Handle]:
    """A clone of MODEL whose sampling runs are edited, and the handle of its runs; the original is left as it was. ``on_finish`` gets a
    run's state when sampling ended well. ``networks``: the host's handles of what the runs compute with, loaded whenever MODEL is.
    ``ledger``: quotas come from what it has counted when a run decides, and are counted there. Runs of a node of a prompt are told to its
    front end (:mod:`.live`)."""
    clone, handle, maker = model.clone(), Handle(), running_node()
    live = None if maker is None else Live(maker.node)
    load_beside(clone, networks)

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        run = options.get(KEY, {}).get(handle)
        site = block_site(options["block"])
        if run is None or site not in run.sites:
            return h, skip
        return edit_where_possible(run, site, h, options, options[KEY].get("roles")), skip

    def outer_sample(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        original = guider.model_options
        run = make_run()
        run.exempt, run.images = wholly_exempt(guider), int(noise.shape[0])
        batch = together(original.get("transformer_options", {})) if isinstance(run, BatchRun) else None
        counted = None if ledger is None else ledger_run(ledger, run, noise, *args, **kwargs)
        if batch is not None:
            batch.join(handle, run, counted)
            counted = None  # the batch answers for it, since several runs draw it
        try:
            guider.model_options = comfy.model_patcher.create_model_options_clone(original)
            options = guider.model_options.setdefault("transformer_options", {})
            options[KEY] = {**options.get(KEY, {}), handle: run, "roles": conditioning_roles(guider)}
            if live is not None and isinstance(run, BatchRun):
                args, kwargs = live.watch(run, args, kwargs)
            result = executor(noise, *args, **kwargs)
            if counted is not None:
                counted.finish(run.cells)
            if on_finish:
                on_finish(run)
            return result
        finally:
            guider.model_options = original
            if counted is not None:
                counted.release()
            run.release()

    clone.set_model_output_block_patch(torch.compiler.disable(patch))
    # First in the list: later patches (FreeU) change h in place, and the readings belong to the network's own h.
    patches = clone.model_options["transformer_options"]["patches"]["output_block_patch"]
    patches.insert(0, patches.pop())
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return clone, handle


def ledger_run(ledger: LedgerHandle, run: BatchRun, noise: Tensor, latent: Tensor | None = None, *rest: Any, **named: Any) -> LedgerRun:
    """The part of a run in a ledger, with what the host's sampling is called with: (noise, latent_image, ..., seed)."""
    seed = named.get("seed", rest[5] if len(rest) > 5 else None)
    counted = LedgerRun(ledger, seed or 0, again=latent is not None and bool(torch.count_nonzero(latent)))
    run.ask_quotas = counted.quotas
    return counted


def without_run(model_options: dict[str, Any], handle: Handle) -> dict[str, Any]:
    """Model options in which the runs of a handle do nothing; those given stay as they are."""
    options = model_options.get("transformer_options", {})
    runs = {k: v for k, v in options.get(KEY, {}).items() if k is not handle}
    return {**model_options, "transformer_options": {**options, KEY: runs}}


def conditioning_roles(guider: Any) -> dict[Any, str]:
    """Role of every conditioning by its uuid, as guiders name them; of those that stand on both sides, "by number".

    So are those with an area: the host copies them, uuid and all, to the other side (create_cond_with_same_area_if_none). Those that are
    exempt are so on both sides.
    """
    roles: dict[Any, str] = {}
    twice, exempt = set(), set()
    for role, cond in _conditionings(guider):
        uuid = cond.get("uuid")
        if uuid is None:
            continue
        if cond.get(EXEMPT_KEY):
            exempt.add(uuid)
        elif "area" in cond or roles.setdefault(uuid, role) != role:
            twice.add(uuid)
    return {**roles, **dict.fromkeys(twice, BY_NUMBER), **dict.fromkeys(exempt, EXEMPT)}


def wholly_exempt(guider: Any) -> bool:
    """Whether all that a run is to draw is exempt, so that nothing in it is to be read or edited."""
    tags = [bool(cond.get(EXEMPT_KEY)) for role, cond in _conditionings(guider) if role == CONDITIONAL]
    return bool(tags) and all(tags)


def _conditionings(guider: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Role and dict of every conditioning that a guider holds."""
    for name, conds in (getattr(guider, "conds", None) or {}).items():
        for cond in (c for c in conds if isinstance(c, dict)):
            yield UNCONDITIONAL if "negative" in name else CONDITIONAL, cond


def window_sigmas(model: Any, start_percent: float, end_percent: float) -> tuple[float, float]:
    """(sigma_start, sigma_end) of a window given as shares of the sampling steps, 0 to 1. Empty (start below end) where it is empty."""
    if start_percent >= end_percent:
        return 0.0, float("inf")
    sampling = model.get_model_object("model_sampling")
    return float(sampling.percent_to_sigma(start_percent)), float(sampling.percent_to_sigma(end_percent))
