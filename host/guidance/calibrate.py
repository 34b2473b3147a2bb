"""Calibrate ADP: trials through the host's sampler, judged by a classifier or, without one, by the ADP itself on the finished images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...methods.core.trials import TrialLog, TrialReadings
from ...methods.data.feature_set import FeatureSet
from ...methods.data.recording import Recording, RecordingSettings
from ...methods.guidance.calibrate import CalibratedMoves, MoveBench, directions_of, reading_levels, trials_needed
from ...methods.guidance.run import GuidanceSettings
from ...methods.labels.labels import LabelSet
from ...models.adp import AdpFile, Move
from ...models.digests import tensors_digest
from ...models.noise_level import log_snr
from ..core.sampling import SamplerSettings
from ..core.sites import check_fit
from ..core.trials import HostTrials, Judge, classifier_judge, log_path
from ..core.versions import fitting_latent
from ..data.record_images import OncePerLevel, level_sigmas
from ..data.record_samples import GivenConditions, PromptConditions
from ..data.recording import apply_recording, conditioning_facts, weights_mark
from ..labels.classifier import HostClassifier
from .apply import apply_guidance

log = logging.getLogger("equipoise")


def candidates_of(adp: AdpFile, features: FeatureSet | None, labels: LabelSet | None, attributes: Sequence[str]) -> dict[str, list[Move]]:
    """The moves to try: those read off features for attributes that are labelled, and those of other origin that the file holds.

    attributes: which to calibrate; none means all for which there is something to try. Raises ValueError where there is nothing.
    """
    for attribute in attributes:
        if attribute not in adp.attributes:
            raise ValueError(f"this ADP does not know '{attribute}', only {', '.join(adp.attributes)}: train it, or correct the name.")
    found: dict[str, list[Move]] = {}
    for attribute in attributes or adp.attributes:
        moves: list[Move] = []
        if features is not None and labels is not None and attribute in labels.attributes:
            order = adp.attributes[attribute]
            if set(order) != set(labels.attributes[attribute]):
                raise ValueError(
                    f"the ADP's classes of '{attribute}' are {', '.join(order)}, and the labels have "
                    f"{', '.join(labels.attributes[attribute])}: connect the labels that it was trained on."
                )
            moves += directions_of(features, _in_order(labels, attribute, order), attribute)
        # What the file has calibrated already is not done again beside others.
        known = {s for r in adp.info.get("calibration", {}).get(attribute, {}).values() for s in r.get("hits", {})} if moves else set()
        known |= {m.source for m in moves}
        moves += [m for s, m in adp.sources().get(attribute, {}).items() if s not in known]
        if moves:
            found[attribute] = moves
        elif attributes:
            raise ValueError(f"there is no direction to try for '{attribute}': connect features, and labels that have this attribute.")
    if not found:
        raise ValueError("there is no direction to try: connect features and the labels that the ADP was trained on.")
    return found


def calibrate_adp(
    model: Any,
    adp: AdpFile,
    moves: Mapping[str, Sequence[Move]],
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    sampler: SamplerSettings,
    images: int,
    name: str,
    vae: Any = None,
    classifier: HostClassifier | None = None,
    features: str = "",
    prompts: PromptConditions | None = None,
) -> list[CalibratedMoves]:
    """Calibrate attribute after attribute; the last result's file has them all. Trials that ``name`` has done already are not repeated.

    ``images``: per trial, rounded up to whole batches of the latent. ``prompts``: drawn in turn, batch by batch, in place of ``positive``
    and ``negative``, which still say what the ADP reads finished images under. Raises ValueError where the ADP does not fit the model, the
    classifier does not know an attribute, or the images cannot hold two of every class; the host's exception where the user interrupts.
    """
    check_fit(model, adp)
    most = max(len(adp.attributes[a]) for a in moves)
    if images < 2 * most:
        raise ValueError(f"a trial of {images} images cannot show {most} classes: ask for at least {2 * most}, better 48 or more.")
    if classifier is not None and vae is None:
        raise ValueError("a classifier sees decoded images: connect a VAE, or disconnect the classifier to let the ADP itself judge.")
    unread = [a for a in moves if a not in adp.read]
    if classifier is None and unread:
        raise ValueError(
            f"this ADP does not read '{unread[0]}', so it cannot judge trials of it: connect a classifier and a VAE, or calibrate nothing "
            f"and give the size yourself, with direction '{moves[unread[0]][0].source}' and strength in Distribution Guidance."
        )
    trials = trials_needed(moves)
    batches = -(-images // fitting_latent(model, latent).shape[0])
    conditions = prompts or GivenConditions(model, positive, negative)
    host = HostTrials(model, conditions, latent, sampler, batches, trials)
    if classifier is None:
        host.judge, judge = _self_judge(model, adp, positive), "the ADP, on finished images"
    else:
        host.judge, judge = classifier_judge(vae, classifier, {a: adp.attributes[a] for a in moves}), classifier.name
    settings = {
        "judge": judge,
        "features": features,
        "sampler": {k: getattr(sampler, k) for k in ("seed", "steps", "cfg", "sampler_name", "scheduler")},
        "images": host.images,
        "batch": host.start.shape[0],
        "latent": list(host.start.shape[1:]),
        "model": weights_mark(model),
        "positive": conditioning_facts(positive),
        "negative": conditioning_facts(negative),
        **({"prompts": prompts.facts} if prompts else {}),
        "predictor": None if adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
        "classifier": None if classifier is None else classifier.fingerprint(),
    }
    record = TrialLog(log_path(name), settings)
    if record.stale:
        log.info("calibration '%s': its earlier trials were made with other settings and are not used.", name)
    results: list[CalibratedMoves] = []
    file = adp

    def sample(tried: AdpFile | None, chosen: GuidanceSettings | None) -> TrialReadings:
        return host.run(None if tried is None else lambda keep: apply_guidance(model, tried, chosen, keep))

    for attribute, candidates in moves.items():
        bench = MoveBench(file, sample, host.images, sampler.seed, record, lambda text, a=attribute: log.info("%s: %s", a, text))
        results.append(bench.calibrate(attribute, candidates))
        file = results[-1].file
    host.finish()
    return results


def _self_judge(model: Any, adp: AdpFile, positive: Any) -> Judge:
    """Reads finished images through one plain U-Net pass at the noise level at which the ADP read held-out images best.

    The pass is not edited: what it reads is what the network makes of the image, not what guidance did to h.
    """
    sampling = model.get_model_object("model_sampling")
    low, high = float(log_snr(float(sampling.sigma_max))), float(log_snr(float(sampling.sigma_min)))
    at = reading_levels(adp, low, high)
    levels = sorted(set(at.values()))
    kept: list[Recording] = []
    patched = apply_recording(model, RecordingSettings(site=adp.site), kept.append)

    def judge(samples: Tensor) -> dict[str, Tensor]:
        shape = (len(levels), *samples.shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        kept.clear()
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(positive, positive)
        guider.set_cfg(1.0)
        still = torch.zeros_like(samples, dtype=torch.float32)
        guider.sample(still, samples, OncePerLevel(noise), level_sigmas(model, levels), seed=0)
        found, level = kept[-1].features, kept[-1].level
        read = {}
        for a in adp.read:
            i = int((level - at[a]).abs().argmin())
            logits = adp.predictor(found[:, i].float(), level[i].expand(len(found)))[a]
            read[a] = logits.softmax(-1)
        return read

    return judge


def _in_order(labels: LabelSet, attribute: str, order: Sequence[str]) -> LabelSet:
    columns = [labels.attributes[attribute].index(c) for c in order]
    return LabelSet({attribute: tuple(order)}, labels.files, {attribute: labels.probabilities[attribute][:, columns]})
