"""Calibrate ADP: trials judged by a classifier or, without one, by the ADP itself on the finished images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import comfy.samplers
import torch
from torch import Tensor

from ...methods.core.trials import TrialLog, TrialReadings, Trials
from ...methods.data.feature_set import FeatureSet
from ...methods.data.recording import Recording, RecordingSettings
from ...methods.guidance.calibrate import CalibratedMoves, MoveBench, directions_of, reading_levels, trials_needed
from ...methods.guidance.run import GuidanceSettings
from ...methods.labels.labels import LabelSet
from ...models.adp import AdpFile, Move
from ...models.class_order import in_class_order, matched
from ...models.digests import tensors_digest
from ..core.sites import check_fit, level_range
from ..core.trials import HostTrials, Judge, TrialInputs, log_path
from ..core.types import Conditioning, Model
from ..data.record_images import OncePerLevel, level_sigmas
from ..data.recording import apply_recording
from ..data.trial_facts import trial_facts
from ..labels.judge import classifier_judge
from .apply import apply_guidance

log = logging.getLogger("equipoise")


def candidates_of(adp: AdpFile, features: FeatureSet | None, labels: LabelSet | None, attributes: Sequence[str]) -> dict[str, list[Move]]:
    """Collect the moves to try, from labelled features and from the file.

    ``attributes``: which to calibrate; without any, all that have a move to try. Raises ValueError if there is none.
    """
    for attribute in attributes:
        if attribute not in adp.attributes:
            raise ValueError(f"this ADP does not know '{attribute}', only {', '.join(adp.attributes)}: train it, or correct the name.")
    candidates: dict[str, list[Move]] = {}
    for attribute in attributes or adp.attributes:
        moves = _moves_to_try(adp, features, labels, attribute)
        if moves:
            candidates[attribute] = moves
        elif attributes:
            raise ValueError(f"there is no direction to try for '{attribute}': connect features, and labels that have this attribute.")
    if not candidates:
        raise ValueError("there is no direction to try: connect features and the labels that the ADP was trained on.")
    return candidates


def _moves_to_try(adp: AdpFile, features: FeatureSet | None, labels: LabelSet | None, attribute: str) -> list[Move]:
    moves: list[Move] = []
    if features is not None and labels is not None and attribute in labels.attributes:
        moves += directions_of(features, _in_order(labels, attribute, adp), attribute)
    # With new directions, moves that were calibrated before are not calibrated again.
    known = {s for r in adp.info.get("calibration", {}).get(attribute, {}).values() for s in r.get("hits", {})} if moves else set()
    known |= {m.source for m in moves}
    return moves + [m for s, m in adp.sources().get(attribute, {}).items() if s not in known]


def calibrate_adp(adp: AdpFile, moves: Mapping[str, Sequence[Move]], trials: TrialInputs, features: str = "") -> list[CalibratedMoves]:
    """Calibrate attribute after attribute; the last result's file has them all.

    Trials in the log are not repeated.

    ``features``: name of the set that the directions come from. Without a classifier, the ADP itself reads finished images, under
    ``positive`` even if the trials use other prompts in turn. Raises ValueError if the ADP does not fit the model, the classifier does not
    know an attribute, or a trial has too few images; the host's exception if the user interrupts.
    """
    sampling = trials.sampling
    check_fit(sampling.model, adp)
    _check_trials(adp, moves, trials)
    if trials.classifier is None:
        judge, judged_by = _self_judge(sampling.model, adp, sampling.positive), "the ADP, on finished images"
    else:
        judge, judged_by = classifier_judge(trials.vae, trials.classifier, {a: adp.attributes[a] for a in moves}), trials.classifier.name
    host = HostTrials(sampling, trials.images, judge)
    host.expect(trials_needed(moves))
    settings = {
        "judge": judged_by,
        "features": features,
        **trial_facts(trials),
        "predictor": None if adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
        "classifier": None if trials.classifier is None else trials.classifier.fingerprint(),
    }
    record = TrialLog(log_path(trials.name), settings)
    if record.stale:
        log.info("calibration '%s': its earlier trials were made with other settings and are not used.", trials.name)

    def sample(tried: AdpFile | None, chosen: GuidanceSettings | None) -> TrialReadings:
        return host.run(None if tried is None else lambda keep: apply_guidance(sampling.model, tried, chosen, keep))

    bench: Trials[AdpFile, GuidanceSettings] = Trials(sample, host.images, record)
    results: list[CalibratedMoves] = []
    file = adp
    for attribute, candidates in moves.items():
        named = replace(bench, say=lambda text, a=attribute: log.info("%s: %s", a, text))
        results.append(MoveBench(file, named, sampling.sampler.seed).calibrate(attribute, candidates))
        file = results[-1].file
    host.finish()
    return results


def _check_trials(adp: AdpFile, moves: Mapping[str, Sequence[Move]], trials: TrialInputs) -> None:
    """Raise ValueError if a trial has too few images, or nothing can judge it."""
    most = max(len(adp.attributes[a]) for a in moves)
    if trials.images < 2 * most:
        raise ValueError(f"a trial of {trials.images} images cannot show {most} classes: use at least {2 * most} images, better 48.")
    if trials.classifier is not None and trials.vae is None:
        raise ValueError("a classifier reads decoded images: connect a VAE, or disconnect the classifier to let the ADP itself judge.")
    unread = [a for a in moves if a not in adp.read]
    if trials.classifier is None and unread:
        raise ValueError(
            f"this ADP does not read '{unread[0]}', so it cannot judge trials of it: connect a classifier and a VAE, or skip the "
            f"calibration and set direction '{moves[unread[0]][0].source}' and the strength in Distribution Guidance yourself."
        )


def _self_judge(model: Model, adp: AdpFile, positive: Conditioning) -> Judge:
    """Return a judge that reads finished images by one plain call.

    It reads them at the noise level where the ADP reads best.

    The call is not edited: it shows what the network makes of the image, not what guidance did to h.
    """
    at = reading_levels(adp, *level_range(model))
    levels = sorted(set(at.values()))
    recordings: list[Recording] = []
    patched = apply_recording(model, RecordingSettings(site=adp.site), recordings.append)

    def judge(samples: Tensor) -> dict[str, Tensor]:
        shape = (len(levels), *samples.shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        recordings.clear()
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(positive, positive)
        guider.set_cfg(1.0)
        still = torch.zeros_like(samples, dtype=torch.float32)
        guider.sample(still, samples, OncePerLevel(noise), level_sigmas(model, levels), seed=0)
        features, level = recordings[-1].features, recordings[-1].level
        read = {}
        for a in adp.read:
            i = int((level - at[a]).abs().argmin())
            logits = adp.predictor(features[:, i].float(), level[i].expand(len(features)))[a]
            read[a] = logits.softmax(-1)
        return read

    return judge


def _in_order(labels: LabelSet, attribute: str, adp: AdpFile) -> LabelSet:
    """Return one attribute's labels in the class order of an ADP."""
    wanted = {attribute: tuple(adp.attributes[attribute])}
    order = matched(wanted, labels.attributes, "the ADP", "the label set", "connect the labels that the ADP was trained on")
    return LabelSet(wanted, labels.files, in_class_order(labels.probabilities, order))
