"""One batch drawn in passes of a few images, as if it were drawn at once.

Image i gets the noise that it has in the whole batch: that of the start, and that of samplers that add noise at every step. Quotas are
those of the whole batch. Where classes are given by what images are read as, every pass is first drawn up to that reading and no further;
when all are read, the classes are given, and the passes are drawn again with them. Progress and previews are those of the whole.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.sample
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....methods.core.batch_run import WaitsForOthers
from .batch_slices import conditioning_rows, latent_rows
from .pass_cache import Unfinished
from .shared_batch import KEY, Together

BROWNIAN = re.compile(r"sample_dpmpp_(sde|2m_sde|3m_sde)")
"""Samplers whose own noise is a Brownian tree; all others draw it anew at every step."""

MOST_ROUNDS = 32
"""Readings of all passes, one for every patch that gives classes by them, and drawing: far more than anyone stacks."""

Sample = Callable[[Any, Any, Any, dict[str, Any]], Tensor]
"""(MODEL, positive, negative, LATENT) -> samples."""


@dataclass
class Steps:
    """Progress over all passes. ``spent``: steps of the readings so far; ``ahead``: of those that are still to come in this round."""

    passes: int
    done: int = 0
    spent: int = 0
    ahead: int = 0
    last: int = 0

    def place(self, step: int, steps: int, waits: bool, index: int, left: int) -> tuple[int, int]:
        """(steps done, steps of all) at a step of pass ``index`` of the ``left`` ones. While the first is read it is not known how far the
        readings go: as far as it has come, in all passes but the last, which goes on from its reading."""
        ahead = self.ahead
        if waits and index < left - 1:
            ahead = (step + 1) * (left - 1) if index == 0 else max(self.ahead, step + 1)
        return self.done * steps + self.spent + step, self.passes * steps + self.spent + ahead

    def read(self, index: int, left: int) -> None:
        """Pass ``index`` was read, and left there."""
        self.spent += self.last
        self.ahead = self.last * max(0, left - index - 2)


def draw_in_passes(
    model: Any,
    sample: Sample,
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    rows: Sequence[int],
    size: int,
    seed: int,
    batch: Together,
    unfinished: Unfinished | None = None,
) -> Tensor:
    """Samples of the images ``rows`` of a LATENT, in passes of ``size`` (0: all at once). ``seed``: that of ``sample``.

    The noise is that of a batch of just these images, drawn at once. ``batch``: made for the whole LATENT; what was decided in one call
    holds in the next. ``unfinished``: where finished passes are kept until all are drawn.
    """
    rows, size = list(rows), size if 0 < size < len(rows) else len(rows)
    parts = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    drawn: dict[int, Tensor] = {} if unfinished is None else unfinished.passes(len(parts))
    steps, images = Steps(len(parts), len(drawn)), latent["samples"].shape[0]
    begun, rounds = list(drawn), 0
    while len(drawn) < len(parts):
        rounds += 1
        if rounds > MOST_ROUNDS:
            raise RuntimeError(
                "passes of one batch were read differently each time, so no classes could be given: set images_per_pass to 0."
            )
        waiting, left = 0, [number for number in range(len(parts)) if number not in drawn]
        for index, number in enumerate(left):
            comfy.model_management.throw_exception_if_processing_interrupted()
            part = parts[number]
            here = [rows[i] for i in part]
            batch.start(here)
            given = (conditioning_rows(c, here, images) for c in (positive, negative))
            try:
                drawn[number] = sample(
                    _one_pass(model, part, len(rows), seed, "batch_index" not in latent, batch, steps, (index, len(left))),
                    *given,
                    latent_rows(latent, here),
                )
            except WaitsForOthers:
                waiting += 1
                steps.read(index, len(left))
                continue
            finally:
                batch.finish()
            steps.done += 1
            if unfinished is not None and len(drawn) < len(parts):
                unfinished.keep(number, drawn[number], batch.decided)
        steps.ahead = 0
        if waiting and begun:  # what was kept of an earlier run lacks its classes: all are read, and drawn anew
            drawn, begun, steps.done = {}, [], 0
    if unfinished is not None:
        unfinished.clear()
    first = drawn[0]
    return first if len(parts) == 1 else torch.cat([drawn[number].to(first) for number in range(len(parts))])


def _one_pass(
    model: Any, part: range, images: int, seed: int, own_noise: bool, batch: Together, steps: Steps, place: tuple[int, int]
) -> Any:
    """A clone of MODEL that draws the images ``part`` of a batch of ``images``. ``place``: which pass of how many it is."""
    clone = model.clone()
    clone.model_options.setdefault("transformer_options", {})[KEY] = batch

    def outer_sample(
        executor: Any,
        noise: Tensor,
        latent: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        steps.last = 0

        def progress(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            steps.last = step + 1
            done, of = steps.place(step, total, batch.waits, *place)
            callback(done, x0, x, of)

        if len(part) < images:
            if own_noise:
                noise = comfy.sample.prepare_noise(noise.new_empty(images, *noise.shape[1:]), seed)[part.start : part.stop]
            sampler = _with_noise_of_all(sampler, part, images)
        told = callback if callback is None or steps.passes == 1 else progress
        return executor(noise, latent, sampler, sigmas, denoise_mask, told, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return clone


def _with_noise_of_all(sampler: Any, part: range, images: int) -> Any:
    """A sampler whose noise on the way is, for these images, what it would be in the whole batch; the sampler itself where it adds none,
    or makes its noise in a way of its own."""
    function, options = getattr(sampler, "sampler_function", None), getattr(sampler, "extra_options", {})
    if function is None or "noise_sampler" in options or "noise_sampler" not in inspect.signature(function).parameters:
        return sampler

    @functools.wraps(function)
    def in_part(model: Any, x: Tensor, sigmas: Tensor, **given: Any) -> Tensor:
        if len(sigmas) > 1:
            whole, seed = x.new_zeros(images, *x.shape[1:]), (given.get("extra_args") or {}).get("seed")
            name = getattr(function, "__name__", "")
            if BROWNIAN.match(name):
                ends = sigmas[sigmas > 0].min(), sigmas.max()
                cpu = not name.endswith("_gpu")
                noise = comfy.k_diffusion.sampling.BrownianTreeNoiseSampler(whole, *ends, seed=seed, cpu=cpu)
            else:
                noise = comfy.k_diffusion.sampling.default_noise_sampler(whole, seed=seed)
            given["noise_sampler"] = lambda *at: noise(*at)[part.start : part.stop]
        return function(model, x, sigmas, **given)

    return type(sampler)(in_part, options, getattr(sampler, "inpaint_options", {}))
