"""Patches of a host MODEL that attach a run: for editing, recording and listening.

The patch and the wrapper are closures over immutable settings. The state of a sampling is a run: it is made when sampling starts, lives in
a clone of the transformer options, and is released in ``finally``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...methods.core.rows import BY_NUMBER, CONDITIONAL, EXEMPT, UNCONDITIONAL
from ...methods.core.run import Run
from .hooks import RUNS_KEY, Handle, hook_sites, with_run
from .managed_networks import load_with
from .observer import Observer, report_steps, start_of
from .sites import level_of
from .types import ConditioningEntry, Executor, Guider, Model, Patcher

EXEMPT_KEY = "equipoise_exempt"
"""In a CONDITIONING entry's dict: its rows are left out of guidance."""


def patch_model(
    model: Model,
    make_run: Callable[[], Run],
    observers: Sequence[Observer] = (),
    networks: Sequence[Patcher] = (),
    key: str = RUNS_KEY,
) -> tuple[Model, Handle]:
    """Attach runs to a clone of MODEL; return it with their handle.

    ``make_run`` makes the run of one sampling. ``observers`` are told of its events, in their order. ``networks``: the host's patchers of
    the networks that runs compute with; they are loaded whenever MODEL is. ``key``: where the runs lie in the transformer options.
    """
    clone, handle = model.clone(), Handle()
    load_with(clone, networks)
    hook_sites(clone, handle, key)

    def outer_sample(executor: Executor, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        guider = executor.class_obj
        original = guider.model_options
        run = make_run()
        try:
            sigma_max = _prepare(run, guider, noise)
            start = start_of(handle, original.get("transformer_options", {}), noise, sigma_max, args, kwargs)
            for observer in observers:
                observer.started(run, start)
            guider.model_options = with_run(original, handle, run, conditioning_roles(guider), key)
            args, kwargs = report_steps(observers, run, args, kwargs)
            result = executor(noise, *args, **kwargs)
            run.finish()
            for observer in observers:
                observer.ended(run, result)
            return result
        except BaseException:
            for observer in observers:
                observer.failed(run)
            raise
        finally:
            guider.model_options = original
            run.release()

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, outer_sample)
    return clone, handle


def _prepare(run: Run, guider: Guider, noise: Tensor) -> float:
    """Set what a run needs to know of its sampling, and return the model's highest sigma."""
    run.exempt, run.images = wholly_exempt(guider), int(noise.shape[0])
    model_sampling = guider.model_patcher.get_model_object("model_sampling")
    run.level_of = lambda sigma: level_of(model_sampling, sigma)
    return float(model_sampling.sigma_max)


def conditioning_roles(guider: Guider) -> dict[UUID, str]:
    """Return the role of every conditioning by its uuid.

    Those that are on both sides are "by number".
    Conditionings with an area are on both sides too: the host copies them, uuid and all, to the other side
    (create_cond_with_same_area_if_none). An exempt conditioning is exempt on both sides.
    """
    roles: dict[UUID, str] = {}
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


def wholly_exempt(guider: Guider) -> bool:
    """Check whether all positives of a guider are exempt."""
    tags = [bool(cond.get(EXEMPT_KEY)) for role, cond in _conditionings(guider) if role == CONDITIONAL]
    return bool(tags) and all(tags)


def _conditionings(guider: Guider) -> Iterator[tuple[str, ConditioningEntry]]:
    """Yield role and dict of every conditioning of a guider."""
    for name, conds in (getattr(guider, "conds", None) or {}).items():
        for cond in (c for c in conds if isinstance(c, dict)):
            yield UNCONDITIONAL if "negative" in name else CONDITIONAL, cond


def window_sigmas(model: Model, start_percent: float, end_percent: float) -> tuple[float, float]:
    """Convert a window in shares of the sampling steps (0 to 1) to (sigma_start, sigma_end).

    Start is below end if it is empty.
    """
    if start_percent >= end_percent:
        return 0.0, float("inf")
    sampling = model.get_model_object("model_sampling")
    return float(sampling.percent_to_sigma(start_percent)), float(sampling.percent_to_sigma(end_percent))
