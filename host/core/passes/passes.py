"""One batch sampled in passes of a few images, with the same result as if it were sampled at once.

Image i gets the noise that it has in the whole batch: at the start, and from samplers that add noise at every step. Quotas are those of
the whole batch. If classes are assigned by readings, every pass is first sampled up to its reading. When all are read, the classes are
assigned, and the passes are sampled again with them. Progress and previews are those of the whole batch.
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
from ..sampling import StepCallback
from ..types import Conditioning, Executor, Latent, Model, Sampler
from .batch_slices import conditioning_rows, latent_rows
from .pass_cache import PassCache
from .shared_batch import BATCH_KEY, SharedBatch

BROWNIAN = re.compile(r"sample_dpmpp_(sde|2m_sde|3m_sde)")
"""Samplers whose own noise is a Brownian tree. All others draw new noise at every step."""

MOST_ROUNDS = 32
"""Limit of rounds over all passes: one reading for every patch that assigns by readings, then sampling."""

Sample = Callable[[Model, Conditioning, Conditioning, Latent], Tensor]
"""(MODEL, positive, negative, LATENT) -> samples."""


@dataclass(frozen=True)
class PassSettings:
    """Say which images are sampled, and in which passes."""

    image_index: Sequence[int]
    """Images of the LATENT that are sampled."""
    size: int
    """Number of images per pass; 0 for all at once."""
    seed: int
    """Seed of the sampler."""
    cache: PassCache | None = None
    """Where finished passes lie until all are sampled; None to cache nothing."""


@dataclass
class Steps:
    """Count the progress over all passes."""

    passes: int
    """Number of passes."""
    done: int = 0
    """Number of finished passes."""
    spent: int = 0
    """Steps of the readings so far."""
    ahead: int = 0
    """Steps of the readings that are still to come in this round."""
    last: int = 0
    """Steps of the current pass so far."""

    def done_and_total(self, step: int, steps: int, waits: bool, number: tuple[int, int]) -> tuple[int, int]:
        """Return (steps done, steps of all) at a step of a pass.

        ``number``: index of the pass, and how many are left.
        While the first pass is read, it is not known how far the readings go. They are taken to go as far as it has come, in all passes but
        the last, which continues from its reading.
        """
        index, left = number
        ahead = self.ahead
        if waits and index < left - 1:
            ahead = (step + 1) * (left - 1) if index == 0 else max(self.ahead, step + 1)
        return self.done * steps + self.spent + step, self.passes * steps + self.spent + ahead

    def read(self, index: int, left: int) -> None:
        """Note that pass ``index`` of the ``left`` ones stopped at its reading."""
        self.spent += self.last
        self.ahead = self.last * max(0, left - index - 2)


def draw_in_passes(
    model: Model,
    sample: Sample,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    batch: SharedBatch,
    passes: PassSettings,
) -> Tensor:
    """Sample images of a LATENT in passes.

    The noise is that of a batch of just these images, sampled at once. ``batch`` is made for the whole LATENT; what was decided in one call
    holds in the next.
    """
    image_index = list(passes.image_index)
    size = passes.size if 0 < passes.size < len(image_index) else len(image_index)
    parts = [range(start, min(start + size, len(image_index))) for start in range(0, len(image_index), size)]
    cache, images = passes.cache, latent["samples"].shape[0]
    drawn: dict[int, Tensor] = {} if cache is None else cache.passes(len(parts))
    steps, resumed, rounds = Steps(len(parts), len(drawn)), list(drawn), 0
    frame = _Frame(len(image_index), passes.seed, "batch_index" not in latent)
    while len(drawn) < len(parts):
        rounds += 1
        if rounds > MOST_ROUNDS:
            raise RuntimeError(
                "no classes could be assigned, because the readings of the passes changed in every round: set images_per_pass to 0."
            )
        waiting, left = 0, [number for number in range(len(parts)) if number not in drawn]
        for index, number in enumerate(left):
            comfy.model_management.throw_exception_if_processing_interrupted()
            chosen = [image_index[i] for i in parts[number]]
            batch.start(chosen)
            try:
                drawn[number] = sample(
                    _one_pass(model, parts[number], frame, batch, steps, (index, len(left))),
                    conditioning_rows(positive, chosen, images),
                    conditioning_rows(negative, chosen, images),
                    latent_rows(latent, chosen),
                )
            except WaitsForOthers:
                waiting += 1
                steps.read(index, len(left))
                continue
            finally:
                batch.finish()
            steps.done += 1
            if cache is not None and len(drawn) < len(parts):
                cache.write(number, drawn[number], batch.decided)
        steps.ahead = 0
        if waiting and resumed:  # the cached passes lack their classes: all are read and sampled again
            drawn, resumed, steps.done = {}, [], 0
    if cache is not None:
        cache.clear()
    first = drawn[0]
    return first if len(parts) == 1 else torch.cat([drawn[number].to(first) for number in range(len(parts))])


@dataclass(frozen=True)
class _Frame:
    """Describe the batch to which the passes belong."""

    images: int
    """Number of images over all passes."""
    seed: int
    """Seed of the sampler."""
    makes_noise: bool
    """Whether the noise of the start is made for the batch here, because the LATENT has no noise indices."""


def _one_pass(model: Model, part: range, frame: _Frame, batch: SharedBatch, steps: Steps, number: tuple[int, int]) -> Model:
    """Return a clone of MODEL that samples the images ``part`` of a batch.

    ``number``: index of the pass, and how many are left.
    """
    clone = model.clone()
    clone.model_options.setdefault("transformer_options", {})[BATCH_KEY] = batch

    def outer_sample(
        executor: Executor,
        noise: Tensor,
        latent: Tensor,
        sampler: Sampler,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: StepCallback | None = None,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        steps.last = 0

        def progress(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            steps.last = step + 1
            done, of = steps.done_and_total(step, total, batch.waits, number)
            callback(done, x0, x, of)

        if len(part) < frame.images:
            if frame.makes_noise:
                like_all = noise.new_empty(frame.images, *noise.shape[1:])
                noise = comfy.sample.prepare_noise(like_all, frame.seed)[part.start : part.stop]
            sampler = _with_noise_of_all(sampler, part, frame.images)
        reports = callback if callback is None or steps.passes == 1 else progress
        return executor(noise, latent, sampler, sigmas, denoise_mask, reports, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, BATCH_KEY, outer_sample)
    return clone


def _with_noise_of_all(sampler: Sampler, part: range, images: int) -> Sampler:
    """Return a sampler that adds the noise these images would get in the whole batch.

    Return the sampler itself if it adds no noise, or makes its noise by other means.
    """
    function, options = getattr(sampler, "sampler_function", None), getattr(sampler, "extra_options", {})
    if function is None or "noise_sampler" in options or "noise_sampler" not in inspect.signature(function).parameters:
        return sampler

    @functools.wraps(function)
    def in_part(model: Model, x: Tensor, sigmas: Tensor, **options_of_call: Any) -> Tensor:
        if len(sigmas) > 1:
            like_all, seed = x.new_zeros(images, *x.shape[1:]), (options_of_call.get("extra_args") or {}).get("seed")
            name = getattr(function, "__name__", "")
            if BROWNIAN.match(name):
                ends = sigmas[sigmas > 0].min(), sigmas.max()
                cpu = not name.endswith("_gpu")
                noise = comfy.k_diffusion.sampling.BrownianTreeNoiseSampler(like_all, *ends, seed=seed, cpu=cpu)
            else:
                noise = comfy.k_diffusion.sampling.default_noise_sampler(like_all, seed=seed)
            options_of_call["noise_sampler"] = lambda *at: noise(*at)[part.start : part.stop]
        return function(model, x, sigmas, **options_of_call)

    return type(sampler)(in_part, options, getattr(sampler, "inpaint_options", {}))
