"""Calibrate Bias Features: trials through the host's sampler, judged by a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...methods.bias_features.calibrate_profile import DOUBTS, CalibratedProfiles, ProfileBench
from ...methods.bias_features.run import SteerSettings
from ...methods.core.trials import TrialLog, TrialReadings
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures
from ...models.digests import tensors_digest
from ...models.sae import SaeFile
from ..core.sampling import SamplerSettings
from ..core.trials import log_path
from ..data.record_samples import PromptConditions
from ..labels.classifier import HostClassifier
from .apply import apply_steering
from .trials import SteerTrials

log = logging.getLogger("equipoise")


def calibrate_steering(
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
    adp: AdpFile | None = None,
    attributes: Sequence[str] = (),
    prompts: PromptConditions | None = None,
    enough: float = 0.97,
    doubts: Sequence[float] = DOUBTS,
) -> list[CalibratedProfiles]:
    """Calibrate attribute after attribute (none: all of the file); the last result's file has them all.

    ``images``: per trial, rounded up to whole batches of the latent; ``enough``: share of them that is to be read as the class that all
    are sent to; ``doubts``: of readings, to be compared. Trials that ``name`` has done already are not repeated. Raises ValueError, in a
    sentence, where the parts do not fit each other; the host's exception where the user interrupts.
    """
    parts = SteerTrials(model, sae, bias, positive, negative, latent, sampler, images, vae, classifier, prompts)
    wanted = list(attributes) or list(bias.attributes)
    per_class = 6 * len(doubts) + 6
    trials = 1 + sum(per_class * len(f.classes) * len(f.profiles) for f in map(bias.attribute, wanted))
    host = parts.host(trials, wanted)
    settings = {**parts.facts(), "reader": None if adp is None or adp.predictor is None else tensors_digest(adp.predictor.state_dict())}
    record = TrialLog(log_path(name), settings)
    if record.stale:
        log.info("calibration '%s': its earlier trials were made with other settings and are not used.", name)

    def sample(file: BiasFeatures | None, steer: SteerSettings | None) -> TrialReadings:
        if file is None or steer is None:
            return host.run(None)
        chosen = replace(steer, seed=sampler.seed)
        return host.run(lambda keep: apply_steering(model, sae, file, chosen, adp, on_finish=keep))

    results: list[CalibratedProfiles] = []
    file = bias
    note = {"judge": classifier.name, "sampler": parts.sampling}
    for attribute in wanted:
        bench = ProfileBench(
            file, attribute, sample, host.images, record, enough, lambda text, a=attribute: log.info("%s: %s", a, text), doubts
        )
        results.append(bench.calibrate(note))
        file = results[-1].file
    host.finish()
    return results
