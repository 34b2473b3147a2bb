"""Calibrate Bias Features: trials through the host's sampler, judged by a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ...methods.bias_features.calibrate_profile import DOUBTS, WANTED_SHARE, CalibratedProfiles, ProfileBench
from ...methods.bias_features.run import SteerSettings
from ...methods.core.trials import TrialLog, TrialReadings, Trials
from ...models.bias_features import BiasFeatures
from ...models.digests import tensors_digest
from ..core.trials import log_path
from .apply import apply_steering
from .trials import SteerTrials

log = logging.getLogger("equipoise")


def calibrate_steering(
    trials: SteerTrials, attributes: Sequence[str] = (), wanted_share: float = WANTED_SHARE, doubts: Sequence[float] = DOUBTS
) -> list[CalibratedProfiles]:
    """Calibrate attribute after attribute (without any, all of the file).

    The last result's file has them all.

    ``wanted_share``: share of the images sent to a class that must show it. ``doubts``: doubts of readings to compare. Trials in the log
    are not repeated. Raises ValueError if the inputs do not fit each other; the host's exception if the user interrupts.
    """
    files, sampling = trials.files, trials.inputs.sampling
    adp, name = files.adp, trials.inputs.name
    wanted = list(attributes) or list(files.bias.attributes)
    per_class = 6 * len(doubts) + 6
    features = [files.bias.attribute(a) for a in wanted]
    host = trials.host(wanted)
    host.expect(1 + sum(per_class * len(f.classes) * len(f.profiles) for f in features))
    predictor = None if adp is None or adp.predictor is None else tensors_digest(adp.predictor.state_dict())
    record = TrialLog(log_path(name), {**trials.facts(), "reader": predictor})
    if record.stale:
        log.info("calibration '%s': its earlier trials were made with other settings and are not used.", name)

    def sample(bias: BiasFeatures | None, steer: SteerSettings | None) -> TrialReadings:
        if bias is None or steer is None:
            return host.run(None)
        settings = replace(steer, seed=sampling.sampler.seed)
        return host.run(lambda keep: apply_steering(sampling.model, files.sae, bias, settings, adp, on_finish=keep))

    bench: Trials[BiasFeatures, SteerSettings] = Trials(sample, host.images, record)
    results: list[CalibratedProfiles] = []
    file = files.bias
    for attribute in wanted:
        named = replace(bench, say=lambda text, a=attribute: log.info("%s: %s", a, text))
        results.append(ProfileBench(file, attribute, named, wanted_share, doubts).calibrate(trials.note()))
        file = results[-1].file
    host.finish()
    return results
