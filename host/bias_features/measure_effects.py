"""Measure Feature Effects: turn each feature of the shortlists alone, sample, and let a classifier read the images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ...methods.bias_features.causal_scores import PER_CLASS, CausalBench, CausalScores
from ...methods.bias_features.run import SteerSettings
from ...methods.bias_features.turn_alone import AMOUNT, Turn
from ...methods.bias_features.typical_activations import ActivationRun, ActivationSums
from ...methods.core.trials import TrialLog, TrialReadings, Trials
from ...models.bias_features import BiasFeatures
from ..core.managed_networks import managed_sae
from ..core.observer import WhenEnded
from ..core.patch import patch_model
from ..core.trials import log_path
from .apply import apply_steering
from .trials import SteerTrials

log = logging.getLogger("equipoise")


def effects_log(name: str) -> str:
    """Return the name of a measurement's log, which differs from that of a calibration.

    Raises ValueError for a bad name.
    """
    log_path(name)
    return f"{name.strip()} effects"


def measure_effects(
    trials: SteerTrials, attributes: Sequence[str] = (), per_class: int = PER_CLASS, amount: float = AMOUNT
) -> CausalScores:
    """Measure the best features of every class of these attributes.

    Without attributes, all of the file are measured.

    ``per_class``: features of every class. ``amount``: typical activations that are added (:mod:`...methods.bias_features.turn_alone`).
    Every feature needs two trials; plain images are sampled once. Trials in the log are not repeated. Raises ValueError if the inputs do
    not fit each other; the host's exception if the user interrupts.
    """
    files, sampling = trials.files, trials.inputs.sampling
    wanted = list(attributes) or list(files.bias.attributes)
    orders = {a: list(f.classes) for a, f in files.bias.attributes.items()}
    record = TrialLog(log_path(effects_log(trials.inputs.name)), {**trials.facts(), "classes": orders})
    if record.stale:
        log.info("effects '%s': the earlier trials were made with other settings and are not used.", trials.inputs.name)
    host = trials.host(wanted)

    def listen(turns: Sequence[Turn]) -> tuple[TrialReadings, list[float | None]]:
        sums, (used, networks) = ActivationSums.of(turns), managed_sae(files.sae)
        readings = host.run(
            lambda keep: patch_model(sampling.model, lambda: ActivationRun(used, turns, sums), [WhenEnded(keep)], networks)[0]
        )
        return readings, sums.typical()

    def sample(bias: BiasFeatures | None, steer: SteerSettings | None) -> TrialReadings:
        settings = replace(steer, seed=sampling.sampler.seed)
        return host.run(lambda keep: apply_steering(sampling.model, files.sae, bias, settings, on_finish=keep))

    bench: Trials[BiasFeatures, SteerSettings] = Trials(sample, host.images, record, lambda text: log.info("turned alone: %s", text))
    causal = CausalBench(files.bias, wanted, bench, per_class, amount)
    host.expect(causal.pending)
    result = causal.measure(listen, trials.note())
    host.finish()
    return result
