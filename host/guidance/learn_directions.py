"""Learn Directions: moves fitted through the decoder of a MODEL, from a feature set's pictures and labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ...methods.data.feature_set import FeatureSet
from ...methods.guidance.fit_moves import FitSettings, fit_moves, fit_state
from ...methods.guidance.moves import LEARNED
from ...methods.labels.labels import LabelSet, for_entries
from ...models.adp import AdpFile
from ...models.digests import tensors_digest
from ..core.fit.differentiable import model_conditions
from ..core.fit.differentiable_labels import DifferentiableLabels
from ..core.fit.learning_images import encoded_prompts, learning_latents
from ..core.fit.session import (
    AUTO,
    Learned,
    begin,
    chosen_site,
    diffusion_of,
    finish,
    gradients,
    learning_path,
    loaded,
    module_mark,
    plain_predictor,
)
from ..core.sites import check_fit
from ..data.recording import conditioning_facts, weights_mark
from ..labels.classifier import HostClassifier


def learn_directions(
    model: Any,
    adp: AdpFile,
    features: FeatureSet,
    labels: LabelSet,
    vae: Any,
    classifier: HostClassifier | None,
    settings: FitSettings,
    name: str,
    *,
    attributes: Sequence[str] = (),
    site: str = AUTO,
    positive: Any = None,
    clip: Any = None,
) -> Learned:
    """Fit moves of these attributes (none: all that are labelled), several at once.

    ``clip``: each picture is denoised under the prompt that it was recorded with; else ``positive`` holds for all. Without a classifier
    denoising alone is asked for. Interrupted or killed, the same settings under the same ``name`` go on where they stopped, with the same
    result. Raises ValueError, in a sentence, where the parts do not fit each other or memory does not suffice; the host's exception where
    the user interrupts.
    """
    started = time.monotonic()
    learning_path(name)
    check_fit(model, adp)
    place = chosen_site(model, site)
    wanted = tuple(attributes) or tuple(labels.attributes)
    tables = for_entries(labels, features.entries, wanted)
    classes = {a: adp.attributes.get(a, labels.attributes[a]) for a in wanted}
    for a in wanted:
        tables[a] = tables[a][:, _columns(a, labels.attributes[a], classes[a])]
    judged = _judged(classifier, classes)
    if clip is None and positive is None:
        raise ValueError("the model needs a conditioning to denoise under: connect positive, or clip for the prompts of the set.")

    latents, places, seen = learning_latents(model, vae, features)
    tables = {a: t[places] for a, t in tables.items()}
    conditionings, which = [positive], torch.zeros(len(places), dtype=torch.long)
    if clip is not None:
        conditionings, which = encoded_prompts(clip, [features.entries[i].prompt for i in places])
    conditions = model_conditions(model, conditionings, latents.shape[1:])
    labeller = DifferentiableLabels(model, vae, classifier, {a: classes[a] for a in judged}) if judged else None
    network = loaded(model, conditions, (settings.batch, *latents.shape[1:]))
    facts = {
        "source": LEARNED,
        "settings": asdict(settings),
        "site": place[0],
        "classes": classes,
        "model": weights_mark(model),
        "predictor": None if adp.predictor is None else tensors_digest(adp.predictor.state_dict()),
        "features": features.name,
        "files": tensors_digest({"which": which, "places": torch.tensor(places), **tables}),
        "latents": list(latents.shape),
        "vae": module_mark(vae.first_stage_model),
        "classifier": classifier.fingerprint() if judged else None,
        "judged": judged,
        "conditions": [conditioning_facts(c) for c in conditionings],
    }
    sites = dict.fromkeys(wanted, place)
    lines = [seen]
    with gradients(settings.batch):
        predictor = plain_predictor(adp.predictor)
        state = fit_state({a: len(c) for a, c in classes.items()}, predictor, sites, settings, network.device)
        checkpoint, said = begin(state, name, facts)
        diffusion = diffusion_of(network, labeller.logits if labeller else None, judged)
        fit_moves(diffusion, latents, tables, predictor, sites, settings, which, None, checkpoint, state, adp.site)
    lines += [said] if said else []
    lines.append(f"judged by '{classifier.name}': {', '.join(judged)}" if judged else "no classifier: fitted by denoising alone")
    unjudged = [a for a in wanted if judged and a not in judged]
    if unjudged:
        lines.append(f"the classifier does not know {', '.join(unjudged)}: fitted by denoising alone")
    lines.append(f"{settings.steps} steps of {settings.batch} images; {time.monotonic() - started:.0f} s")
    return finish(state, sites, LEARNED, adp, model, classes, settings, lines)


def _columns(attribute: str, labelled: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Columns of the labels in the ADP's class order."""
    if set(labelled) != set(wanted):
        raise ValueError(
            f"the ADP's classes of '{attribute}' are {', '.join(wanted)}, and the labels have {', '.join(labelled)}: connect the labels "
            "that it was trained on."
        )
    return [list(labelled).index(c) for c in wanted]


def _judged(classifier: HostClassifier | None, classes: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Attributes that a classifier judges. Raises ValueError where it knows none of them, or one of them with other classes."""
    if classifier is None:
        return ()
    known = "; ".join(f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items())
    for a, c in classes.items():
        if a in classifier.attributes and set(classifier.attributes[a]) != set(c):
            raise ValueError(
                f"the classifier '{classifier.name}' cannot judge '{a}' with the classes {', '.join(c)}; it knows {known}: connect one "
                "that does, or none to learn by denoising alone."
            )
    found = tuple(a for a in classes if a in classifier.attributes)
    if not found:
        raise ValueError(
            f"the classifier '{classifier.name}' knows {known}, and none of {', '.join(classes)}: connect one that does, or none to learn "
            "by denoising alone."
        )
    return found
