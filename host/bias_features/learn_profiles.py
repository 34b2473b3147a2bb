"""Learn Feature Profiles: how far features are turned towards each class, fitted through the decoder of a MODEL."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...methods.bias_features.decoder_effects import EffectSettings, decoder_effects
from ...methods.bias_features.extend_features import with_features, with_profile
from ...methods.bias_features.fit_profiles import ProfileHook, empty_profiles, finished_profiles, new_profile_fit
from ...methods.data.feature_set import FeatureSet
from ...methods.guidance.fit_moves import FitImages, FitSettings, SitePredictor, fit_moves
from ...methods.labels.labels import LabelSet, for_entries
from ...models.adp import AdpFile
from ...models.bias_features import AttributeFeatures, BiasFeatures, check_sae
from ...models.digests import tensors_digest
from ...models.sae import SaeFile, SparseAutoencoder
from ...models.sites import MIDDLE
from ..core.fit.differentiable import model_conditions
from ..core.fit.differentiable_labels import DifferentiableLabels
from ..core.fit.learning_images import encoded_prompts, learning_latents
from ..core.fit.session import begin, diffusion_of, gradients, learning_path, loaded, module_mark, plain_predictor
from ..core.sites import check_fit
from ..data.recording import conditioning_facts, weights_mark
from ..labels.classifier import HostClassifier
from .apply import check_sae_fit

log = logging.getLogger("equipoise")
LR = 0.03
"""Of activations, whose size is about that of the normalised features."""


@dataclass(frozen=True)
class LearnedProfiles:
    """``file``: with a profile "learned" of every attribute; ``lines``: a report; ``curve``: (step, figure -> value)."""

    file: BiasFeatures
    lines: list[str]
    curve: list[tuple[int, dict[str, float]]]


def learn_profiles(
    model: Any,
    sae: SaeFile,
    bias: BiasFeatures,
    features: FeatureSet,
    labels: LabelSet,
    vae: Any,
    classifier: HostClassifier,
    settings: FitSettings,
    name: str,
    *,
    adp: AdpFile | None = None,
    attributes: Sequence[str] = (),
    more: int = 128,
    positive: Any = None,
    clip: Any = None,
) -> LearnedProfiles:
    """Fit profiles of these attributes (none: all of the file), several at once.

    ``more``: features that are turned beside those of the file, the ones whose turning changes the labels most
    (:mod:`..methods.decoder_effects`). ``adp``: where it reads an attribute, the profile depends on what an image is read as now. ``clip``:
    each picture is denoised under its own prompt, else ``positive`` holds for all. Goes on where it was cut off, under the same ``name``.
    Raises ValueError, in a sentence, where the parts do not fit each other; the host's exception where the user interrupts.
    """
    started = time.monotonic()
    learning_path(name)
    check_sae_fit(model, sae)
    check_sae(bias, sae)
    if adp is not None:
        check_fit(model, adp)
    wanted = tuple(attributes) or tuple(bias.attributes)
    classes = {a: bias.attribute(a).classes for a in wanted}
    for a, order in classes.items():
        if set(classifier.attributes.get(a, ())) != set(order):
            raise ValueError(
                f"the classifier '{classifier.name}' does not judge '{a}' as {', '.join(order)}: connect one that does, or name other "
                "attributes."
            )
    tables = for_entries(labels, features.entries, wanted)
    for a in wanted:
        if set(labels.attributes[a]) != set(classes[a]):
            raise ValueError(
                f"the bias features know '{a}' as {', '.join(classes[a])} and the labels as {', '.join(labels.attributes[a])}: connect "
                "the labels that they were found with."
            )
        tables[a] = tables[a][:, [labels.attributes[a].index(c) for c in classes[a]]]
    if clip is None and positive is None:
        raise ValueError("the model needs a conditioning to denoise under: connect positive, or clip for the prompts of the set.")

    latents, places, seen = learning_latents(model, vae, features)
    tables = {a: t[places] for a, t in tables.items()}
    beside = {a: t[places] for a, t in held_labels(labels, features, classifier, wanted).items()} if settings.hold else {}
    conditionings, which = [positive], torch.zeros(len(places), dtype=torch.long)
    if clip is not None:
        conditionings, which = encoded_prompts(clip, [features.entries[i].prompt for i in places])
    conditions = model_conditions(model, conditionings, latents.shape[1:])
    labeller = DifferentiableLabels(model, vae, classifier, classes | {a: labels.attributes[a] for a in beside})
    network = loaded(model, conditions, (settings.batch, *latents.shape[1:]))
    lines = [seen]
    read_at = MIDDLE if adp is None else adp.site
    with gradients(settings.batch):
        predictor = plain_predictor(None if adp is None else adp.predictor)
        reads = SitePredictor(predictor, read_at)
        images = FitImages(latents, tables, which, beside)
        diffusion = diffusion_of(network, labeller.logits, (*wanted, *beside))
        net = plain_sae(sae.sae).to(network.device)
        file = bias
        if more:
            sizes = {a: len(c) for a, c in classes.items()}
            measuring = EffectSettings(settings.label_range)
            effects = decoder_effects(diffusion, net, sae.site, images, sizes, reads, measuring, _interruptible)
            for a in wanted:
                found = with_features(file.attribute(a), effects[a].topk(min(more, len(effects[a]))).indices)
                lines.append(f"{a}: {len(found.features) - len(file.attribute(a).features)} features added for their effect")
                file = _replaced(file, a, found)
        start = empty_profiles({a: file.attribute(a) for a in wanted})
        fit = new_profile_fit(start, reads, settings, network.device)
        facts = {
            "what": "feature profiles",
            "settings": asdict(settings),
            "sae": sae.digest,
            "features": {a: file.attribute(a).features.tolist() for a in wanted},
            "classes": classes,
            "model": weights_mark(model),
            "reader": None if predictor is None else tensors_digest(predictor.state_dict()),
            "files": tensors_digest({"which": which, "places": torch.tensor(places), **tables, **beside}),
            "latents": list(latents.shape),
            "vae": module_mark(vae.first_stage_model),
            "classifier": classifier.fingerprint(),
            "conditions": [conditioning_facts(c) for c in conditionings],
        }
        message = begin(fit, name, facts)
        lines += [message] if message else []
        chosen = {a: file.attribute(a).features for a in wanted}
        hook = ProfileHook(net, sae.site, chosen, fit.vectors, reads, network.device)
        fit_moves(diffusion, images, reads, hook.sites, settings, fit=fit, hook=hook)
        profiles = finished_profiles(fit)
    curve = fit.curve()
    for column in fit.columns:
        values = [v[column] for _, v in curve if column in v]
        if values:
            lines.append(f"{column}: {values[0]:.4g} in the first steps, {values[-1]:.4g} in the last")
    for a, profile in profiles.items():
        file = with_profile(file, a, profile)
        told = "told by the reading" if profile.delta.shape[2] > 1 else "one profile per class"
        lines.append(f"{a}: {len(file.attribute(a).features)} features ({told})")
    lines.append(f"{settings.steps} steps of {settings.batch} images; {time.monotonic() - started:.0f} s")
    log.info("learned profiles of %s: %s", ", ".join(wanted), "; ".join(lines))
    return LearnedProfiles(file, lines, curve)


def held_labels(labels: LabelSet, features: FeatureSet, classifier: HostClassifier, wanted: Sequence[str]) -> dict[str, Tensor]:
    """Labels [N, K] of attributes that are not learned, but that the classifier reads and so can be seen to stay: those with the same
    classes, of which every image has one."""
    same = [a for a, classes in labels.attributes.items() if a not in wanted and set(classifier.attributes.get(a, ())) == set(classes)]
    found = {}
    for a in same:
        try:
            found |= for_entries(labels, features.entries, [a])
        except ValueError:
            log.info("'%s' is not labelled for every image, so it is not held.", a)
    return found


def plain_sae(sae: SparseAutoencoder) -> SparseAutoencoder:
    """A copy without inference tensors."""
    copied = SparseAutoencoder(sae.channels, sae.latents, sae.k, sae.knots.clone(), sae.activation)
    copied.load_state_dict({k: v.clone() for k, v in sae.state_dict().items()})
    return copied.eval().requires_grad_(False)


def _interruptible(done: int, total: int, figures: dict[str, float]) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def _replaced(file: BiasFeatures, attribute: str, found: AttributeFeatures) -> BiasFeatures:
    return replace(file, attributes={**file.attributes, attribute: found})
