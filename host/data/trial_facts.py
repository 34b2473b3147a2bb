"""Describe what trials depend on, so that a log is used only for the same trials."""

from __future__ import annotations

from typing import Any

from ..core.sampling import SamplerSettings
from ..core.trials import TrialInputs
from .recording import conditioning_facts, weights_mark


def trial_facts(trials: TrialInputs) -> dict[str, Any]:
    """Return the settings that a log of trials stores."""
    sampling = trials.sampling
    start = sampling.start()
    prompts = {} if sampling.prompts is None else {"prompts": sampling.prompts.facts}
    return {
        "sampler": sampler_facts(sampling.sampler),
        "images": sampling.batches(trials.images) * start.shape[0],
        "batch": start.shape[0],
        "latent": list(start.shape[1:]),
        "model": weights_mark(sampling.model),
        "positive": conditioning_facts(sampling.positive),
        "negative": conditioning_facts(sampling.negative),
        **prompts,
    }


def sampler_facts(sampler: SamplerSettings) -> dict[str, Any]:
    """Return the sampler's settings as a record stores them."""
    return {k: getattr(sampler, k) for k in ("seed", "steps", "cfg", "sampler_name", "scheduler")}
