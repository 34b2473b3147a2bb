"""Measure Feature Effects: each feature of the shortlists turned alone, through the host's sampler, and the images read by a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...methods.bias_features.causal_scores import PER_CLASS, CausalBench, CausalScores
from ...methods.bias_features.run import SteerSettings
from ...methods.bias_features.turn_alone import AMOUNT, Turn
from ...methods.bias_features.typical_activations import ActivationRun, ActivationSums
from ...methods.core.trials import TrialLog, TrialReadings
from ...models.bias_features import BiasFeatures
from ...models.sae import SaeFile
from ..core.managed_networks import managed_sae
from ..core.patch import patch_model
from ..core.sampling import SamplerSettings
from ..core.trials import log_path
from ..data.record_samples import PromptConditions
from ..labels.classifier import HostClassifier
from .apply import apply_steering
from .trials import SteerTrials

log = logging.getLogger("equipoise")


def effects_log(name: str) -> str:
    """Name of the log of a measurement: not that of a calibration, whose trials are others. Raises ValueError for a name that is a path."""
    log_path(name)
    return f"{name.strip()} effects"


def measure_effects(
    model: Any,
    sae: SaeFile,
    bias: BiasFeatures,
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    sampler: SamplerSettings,
    images: int,
    name: str,
    vae: Any,
    classifier: HostClassifier,
    *,
    attributes: Sequence[str] = (),
    prompts: PromptConditions | None = None,
    per_class: int = PER_CLASS,
    amount: float = AMOUNT,
) -> CausalScores:
    """Causal scores of the ``per_class`` best features of every class of these attributes (none: all of the file).

    Two trials of ``images`` (rounded up to whole batches of the latent) for every feature, and one of plain images. ``amount``: typical
    activations that are added (:mod:`..methods.turn_alone`). Trials that ``name`` has done already are not repeated. Raises ValueError, in
    a sentence, where the parts do not fit each other; the host's exception where the user interrupts.
    """
    parts = SteerTrials(model, sae, bias, positive, negative, latent, sampler, images, vae, classifier, prompts)
    wanted = list(attributes) or list(bias.attributes)
    orders = {a: list(f.classes) for a, f in bias.attributes.items()}
    record = TrialLog(log_path(effects_log(name)), {**parts.facts(), "classes": orders})
    if record.stale:
        log.info("effects '%s': the earlier trials were made with other settings and are not used.", name)
    bench = CausalBench(bias, wanted, record, per_class, amount, lambda text: log.info("turned alone: %s", text))
    host = parts.host(bench.pending, wanted)

    def listen(turns: Sequence[Turn]) -> tuple[TrialReadings, list[float | None]]:
        sums, (used, networks) = ActivationSums.of(turns), managed_sae(sae)
        seen = host.run(lambda keep: patch_model(model, lambda: ActivationRun(used, turns, sums), keep, networks)[0])
        return seen, sums.typical()

    def sample(file: BiasFeatures, steer: SteerSettings) -> TrialReadings:
        chosen = replace(steer, seed=sampler.seed)
        return host.run(lambda keep: apply_steering(model, sae, file, chosen, on_finish=keep))

    result = bench.measure(listen, sample, {"judge": classifier.name, "sampler": parts.sampling})
    host.finish()
    return result
