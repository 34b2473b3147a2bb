"""Calibrate Bias Features: trials through the host's sampler, judged by a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..methods.calibrate_profile import CalibratedProfiles, ProfileBench
from ..methods.steering import SteerSettings
from ..methods.train_adp import tensors_digest
from ..methods.trials import Seen, TrialLog
from ..models.adp import AdpFile
from ..models.bias_features import BiasFeatures, check_sae
from ..models.sae import SaeFile
from .classifier import HostClassifier, classifier_fingerprint
from .host_trials import HostTrials, classifier_judge, log_path
from .record_samples import GivenConditions, PromptConditions, fitting_latent
from .recording import conditioning_facts, weights_mark
from .sampling import SamplerSettings
from .steering import apply_steering, check_sae_fit

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
) -> list[CalibratedProfiles]:
    """Calibrate attribute after attribute (none: all of the file); the last result's file has them all.

    ``images``: per trial, rounded up to whole batches of the latent; ``enough``: share of them that is to be read as the class that all
    are sent to. Trials that ``name`` has done already are not repeated. Raises ValueError, in a sentence, where the parts do not fit each
    other; the host's exception where the user interrupts.
    """
    check_sae_fit(model, sae)
    check_sae(bias, sae)
    wanted = list(attributes) or list(bias.attributes)
    classes = {a: bias.attribute(a).classes for a in wanted}
    beside = {a: f.classes for a, f in bias.attributes.items() if set(classifier.attributes.get(a, ())) == set(f.classes)}
    batches = -(-images // fitting_latent(model, latent).shape[0])
    per_profile = 12
    trials = 1 + sum(per_profile * len(c) * len(bias.attribute(a).profiles) for a, c in classes.items())
    host = HostTrials(model, prompts or GivenConditions(model, positive, negative), latent, sampler, batches, trials)
    host.judge = classifier_judge(vae, classifier, {**classes, **beside})
    settings = {
        "classifier": classifier_fingerprint(classifier.name),
        "sampler": {k: getattr(sampler, k) for k in ("seed", "steps", "cfg", "sampler_name", "scheduler")},
        "images": host.images,
        "batch": host.start.shape[0],
        "latent": list(host.start.shape[1:]),
        "model": weights_mark(model),
        "positive": conditioning_facts(positive),
        "negative": conditioning_facts(negative),
        **({"prompts": prompts.facts} if prompts else {}),
        "sae": sae.digest,
        "reader": None if adp is None or adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
    }
    record = TrialLog(log_path(name), settings)
    if record.stale:
        log.info("calibration '%s': its earlier trials were made with other settings and are not used.", name)

    def sample(file: BiasFeatures | None, steer: SteerSettings | None) -> Seen:
        if file is None or steer is None:
            return host.run(None)
        chosen = replace(steer, seed=sampler.seed)
        return host.run(lambda keep: apply_steering(model, sae, file, chosen, adp, on_finish=keep))

    results: list[CalibratedProfiles] = []
    file = bias
    note = {"judge": classifier.name, "sampler": settings["sampler"]}
    for attribute in wanted:
        bench = ProfileBench(
            file, attribute, sample, host.images, record, enough, lambda text, a=attribute: log.info("%s: %s", a, text)
        )
        results.append(bench.calibrate(note))
        file = results[-1].file
    host.finish()
    return results
