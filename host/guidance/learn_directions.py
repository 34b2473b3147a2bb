"""Learn Directions: fit moves through the decoder of a MODEL, from a feature set's pictures and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ...methods.guidance.fit_moves import FitImages, FitSettings, SitePredictor, fit_moves, new_fit
from ...methods.guidance.moves import LEARNED
from ...methods.labels.labels import for_entries
from ...models.adp import AdpFile
from ...models.class_order import in_class_order, matched
from ...models.digests import tensors_digest
from ..core.fit.differentiable import model_conditions
from ..core.fit.session import AUTO, FitSession, chosen_site
from ..core.sites import check_fit
from ..labels.classifier import HostClassifier
from ..labels.differentiable_labels import DifferentiableLabels
from .learned_moves import LearnedMoves, host_diffusion, learned_moves
from .learning_pictures import LearningInputs, learning_pictures


def learn_directions(
    inputs: LearningInputs, adp: AdpFile, settings: FitSettings, name: str, attributes: Sequence[str] = (), site: str = AUTO
) -> LearnedMoves:
    """Fit the moves of these attributes together; without any, of all that are labelled.

    A fit that was interrupted resumes if the same settings come under the same ``name``, and ends with the same result. Raises ValueError
    if the inputs do not fit each other or memory does not suffice; the host's exception if the user interrupts.
    """
    session = FitSession("Learn Directions", name, settings.steps, settings.batch)
    model, features, labels, classifier = inputs.model, inputs.features, inputs.labels, inputs.classifier
    check_fit(model, adp)
    chosen = chosen_site(model, site)
    wanted = tuple(attributes) or tuple(labels.attributes)
    tables = for_entries(labels, features.entries, wanted)
    classes = {a: adp.attributes.get(a, labels.attributes[a]) for a in wanted}
    order = matched(classes, labels.attributes, "the ADP", "the label set", "connect the labels that the ADP was trained on")
    tables = in_class_order(tables, order)
    judged = _judged(classifier, classes)
    inputs.check_conditioning()

    pictures = learning_pictures(inputs)
    latents = pictures.latents
    tables = {a: t[pictures.entries] for a, t in tables.items()}
    conditions = model_conditions(model, pictures.conditionings, latents.shape[1:])
    labeller = DifferentiableLabels(model, inputs.vae, classifier, {a: classes[a] for a in judged}) if judged else None
    network = session.network(model, conditions, latents.shape[1:])
    facts = {
        **pictures.facts(inputs, tables),
        "source": LEARNED,
        "settings": asdict(settings),
        "site": chosen[0],
        "classes": classes,
        "predictor": None if adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
        "features": features.name,
        "judged": judged,
    }
    sites = dict.fromkeys(wanted, chosen)
    session.lines.append(pictures.note)
    with session.gradients():
        reads = SitePredictor(None if adp.predictor is None else adp.predictor.copied(), adp.site)
        fit = new_fit({a: len(c) for a, c in classes.items()}, reads, sites, settings, network.device)
        session.resume(fit, facts)
        diffusion = host_diffusion(network, labeller.logits if labeller else None, judged)
        fit_moves(diffusion, FitImages(latents, tables, pictures.conditioning_of), reads, sites, settings, fit=fit)
    session.lines.append(f"judged by '{classifier.name}': {', '.join(judged)}" if judged else "no classifier: learned by denoising alone")
    unjudged = [a for a in wanted if judged and a not in judged]
    if unjudged:
        session.lines.append(f"the classifier does not know {', '.join(unjudged)}: learned by denoising alone")
    session.report_duration("images")
    return learned_moves(session, fit, sites, LEARNED, adp, classes, settings)


def _judged(classifier: HostClassifier | None, classes: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the attributes that a classifier judges.

    Raises ValueError if it knows none, or one with other classes.
    """
    if classifier is None:
        return ()
    remedy = "connect one that does, or none to learn by denoising alone"
    known = {a: c for a, c in classes.items() if a in classifier.attributes}
    matched(known or classes, classifier.attributes, "the ADP", f"the classifier '{classifier.name}'", remedy)
    return tuple(known)
