"""Learn Feature Profiles: fit how far features are turned towards each class, through the decoder of a MODEL."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import comfy.model_management
from torch import Tensor

from ...methods.bias_features.decoder_effects import EffectSettings, decoder_effects
from ...methods.bias_features.extend_features import with_features, with_profile
from ...methods.bias_features.fit_profiles import ProfileHook, empty_profiles, finished_profiles, new_profile_fit
from ...methods.guidance.fit_moves import Diffusion, FitImages, FitSettings, SitePredictor, fit_moves
from ...methods.labels.labels import for_entries
from ...models.bias_features import BiasFeatures
from ...models.class_order import in_class_order, matched
from ...models.digests import tensors_digest
from ...models.sae import SparseAutoencoder
from ...models.sites import MIDDLE
from ..core.fit.differentiable import model_conditions
from ..core.fit.session import FitSession
from ..core.sites import check_fit
from ..guidance.learned_moves import host_diffusion
from ..guidance.learning_pictures import LearningInputs, learning_pictures
from ..labels.differentiable_labels import DifferentiableLabels
from .trials import SteerFiles

log = logging.getLogger("equipoise")
LR = 0.03
"""Learning rate of activations, whose size is about that of the normalised features."""


@dataclass(frozen=True)
class LearnedProfiles:
    """Profiles that a fit found."""

    file: BiasFeatures
    """Bias features, with a profile "learned" of every attribute."""
    lines: list[str]
    """Report."""
    curve: list[tuple[int, dict[str, float]]]
    """Steps and figures."""


@dataclass(frozen=True)
class _Networks:
    """Networks of a fit, without inference tensors."""

    diffusion: Diffusion
    """The denoiser."""
    sae: SparseAutoencoder
    """The autoencoder."""
    reads: SitePredictor
    """The predictor and its site."""


def learn_profiles(
    inputs: LearningInputs,
    files: SteerFiles,
    settings: FitSettings,
    name: str,
    attributes: Sequence[str] = (),
    extra_features: int = 128,
) -> LearnedProfiles:
    """Fit the profiles of these attributes together; without any, of all in the file.

    ``extra_features``: features to add to those of the file, the ones that change the labels most when they are turned
    (:mod:`...methods.bias_features.decoder_effects`). If the ADP reads an attribute, its profile depends on the reading. A fit that was
    interrupted resumes under the same ``name``. Raises ValueError if the inputs do not fit each other; the host's exception if the user
    interrupts.
    """
    session = FitSession("Learn Feature Profiles", name, settings.steps, settings.batch)
    model, sae, adp = inputs.model, files.sae, files.adp
    files.check(model)
    if adp is not None:
        check_fit(model, adp)
    wanted = tuple(attributes) or tuple(files.bias.attributes)
    classes = {a: files.bias.attribute(a).classes for a in wanted}
    tables = _labels(inputs, classes)
    inputs.check_conditioning()

    pictures = learning_pictures(inputs)
    latents, which = pictures.latents, pictures.conditioning_of
    tables = {a: t[pictures.entries] for a, t in tables.items()}
    others = {a: t[pictures.entries] for a, t in other_labels(inputs, wanted).items()} if settings.hold else {}
    conditions = model_conditions(model, pictures.conditionings, latents.shape[1:])
    judged = classes | {a: inputs.labels.attributes[a] for a in others}
    labeller = DifferentiableLabels(model, inputs.vae, inputs.classifier, judged)
    network = session.network(model, conditions, latents.shape[1:])
    session.lines.append(pictures.note)
    read_at = MIDDLE if adp is None else adp.site
    with session.gradients():
        predictor = None if adp is None or adp.predictor is None else adp.predictor.copied()
        reads = SitePredictor(predictor, read_at)
        images = FitImages(latents, tables, which, others)
        diffusion = host_diffusion(network, labeller.logits, (*wanted, *others))
        networks = _Networks(diffusion, sae.sae.copied().to(network.device), reads)
        file = files.bias
        if extra_features:
            file = _with_effective(files, networks, images, classes, settings, extra_features)
            session.lines += _added_lines(files.bias, file, wanted)
        start = empty_profiles({a: file.attribute(a) for a in wanted})
        fit = new_profile_fit(start, reads, settings, network.device)
        facts = {
            **pictures.facts(inputs, {**tables, **others}),
            "what": "feature profiles",
            "settings": asdict(settings),
            "sae": sae.digest,
            "features": {a: file.attribute(a).features.tolist() for a in wanted},
            "classes": classes,
            "reader": None if predictor is None else tensors_digest(predictor.state_dict()),
        }
        session.resume(fit, facts)
        chosen = {a: file.attribute(a).features for a in wanted}
        hook = ProfileHook(networks.sae, sae.site, chosen, fit.vectors, reads, network.device)
        fit_moves(diffusion, images, reads, hook.sites, settings, fit=fit, hook=hook)
        profiles = finished_profiles(fit)
    session.report_losses(fit)
    for a, profile in profiles.items():
        file = with_profile(file, a, profile)
        form = "depending on the reading" if profile.by_reading else "one profile per class"
        session.lines.append(f"{a}: {len(file.attribute(a).features)} features ({form})")
    session.report_duration("images")
    log.info("learned profiles of %s: %s", ", ".join(wanted), "; ".join(session.lines))
    return LearnedProfiles(file, session.lines, fit.curve())


def _added_lines(before: BiasFeatures, after: BiasFeatures, attributes: Sequence[str]) -> list[str]:
    added = {a: len(after.attribute(a).features) - len(before.attribute(a).features) for a in attributes}
    return [f"{a}: {count} features added for their effect" for a, count in added.items()]


def _labels(inputs: LearningInputs, classes: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Return the labels of the set in the class order of the bias features.

    Raises ValueError if classes differ.
    """
    classifier, source = inputs.classifier, "the bias features"
    remedy = "connect a classifier that does, or name other attributes"
    matched(classes, classifier.attributes, source, f"the classifier '{classifier.name}'", remedy)
    tables = for_entries(inputs.labels, inputs.features.entries, tuple(classes))
    remedy = "connect the labels that the features were found with"
    return in_class_order(tables, matched(classes, inputs.labels.attributes, source, "the label set", remedy))


def _with_effective(
    files: SteerFiles,
    networks: _Networks,
    images: FitImages,
    classes: Mapping[str, tuple[str, ...]],
    settings: FitSettings,
    extra_features: int,
) -> BiasFeatures:
    """Add the features that change the labels most when they are turned."""
    sizes = {a: len(c) for a, c in classes.items()}
    measuring = EffectSettings(settings.label_range)
    effects = decoder_effects(
        networks.diffusion, networks.sae, files.sae.site, images, sizes, networks.reads, measuring, _interruptible
    )
    file = files.bias
    for a in classes:
        features = with_features(file.attribute(a), effects[a].topk(min(extra_features, len(effects[a]))).indices)
        file = replace(file, attributes={**file.attributes, a: features})
    return file


def other_labels(inputs: LearningInputs, wanted: Sequence[str]) -> dict[str, Tensor]:
    """Return the labels [N, K] of attributes that the fit can preserve.

    The classifier must read them with the same classes, and every image must have a label.
    """
    labels, known = inputs.labels, inputs.classifier.attributes
    same = [a for a, classes in labels.attributes.items() if a not in wanted and set(known.get(a, ())) == set(classes)]
    tables: dict[str, Tensor] = {}
    for a in same:
        try:
            tables |= for_entries(labels, inputs.features.entries, [a])
        except ValueError:
            log.info("'%s' is not labelled for every image, so the fit does not keep it as it is.", a)
    return tables


def _interruptible(done: int, total: int, figures: dict[str, float]) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
