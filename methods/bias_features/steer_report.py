"""Report what a steer is going to do."""

from __future__ import annotations

import math

from ...models.adp import AdpFile
from ...models.bias_features import AttributeFeatures, BiasFeatures
from ..core.batch_run import READING, SEEDED
from ..core.targets import TargetDistribution
from .run import PROFILE, SUPPRESS, FeatureEdit, SteerSettings, feature_edit

NAMED = 6
"""Largest number of features that are named per attribute."""


def steering_report(bias: BiasFeatures, settings: SteerSettings, adp: AdpFile | None = None, asyrp: bool = False) -> str:
    """Describe which features are changed, for which classes and levels.

    Raises ValueError, as :class:`.run.SteeringRun` does, for an attribute or a profile that the file does not have.
    """
    known = {a: bias.attribute(a).classes for a in settings.target.attributes}
    target = settings.target.reordered(known)
    if settings.strength == 0 or settings.sigma_start < settings.sigma_end:
        why = "strength 0" if settings.strength == 0 else "an empty window (start_percent is not below end_percent)"
        return f"off: {why}; the images are the same as without this node, bit for bit"
    wanted = [cell for cell, share in zip(target.names, target.shares, strict=True) if share > 0]
    goal = f"all images to {' x '.join(target.attributes)}: {wanted[0]}" if len(wanted) == 1 else f"target {target}"
    lines = [f"{goal}, strength {settings.strength:g}{_opposite(settings, known)}"]
    ways = {a: feature_edit(bias.site, bias.attribute(a), settings) for a in target.attributes}
    lines += [_turned(a, bias.attribute(a), edit, settings, _classes_used(settings, target, a)) for a, edit in ways.items()]
    readable = () if adp is None or adp.predictor is None else adp.predictor.attributes
    unread = [a for a in target.attributes if a not in readable]
    lines += _assignment(settings, ways, unread, len(wanted))
    lines += [
        f"the profile of '{a}' depends on the current reading of an image, and nothing reads it, so the profile is averaged over the "
        "classes: connect an ADP that reads this attribute"
        for a in unread
        if ways[a].profile is not None and (ways[a].profile.relative or ways[a].profile.by_reading)
    ]
    if asyrp:
        lines.append("rule 'asyrp': the clean image of the steered U-Net call, the noise of a second, plain call; two calls per step")
    return "\n".join([*lines, *target.notes])


def _opposite(settings: SteerSettings, known: dict[str, tuple[str, ...]]) -> str:
    if settings.strength > 0:
        return ""
    two = [a for a, classes in known.items() if len(classes) == 2]
    more = [a for a in known if a not in two]
    parts = []
    if two:
        parts.append(f"towards the other class of {', '.join(two)}")
    if more:
        parts.append(f"away from the class of {', '.join(more)}")
    return f" ({' and '.join(parts)})"


def _classes_used(settings: SteerSettings, target: TargetDistribution, attribute: str) -> list[int]:
    """Return the classes whose features are changed."""
    used = [k for k, share in enumerate(target.marginal(attribute).values()) if share > 0]
    return [1 - k for k in used] if settings.strength < 0 and len(target.marginal(attribute)) == 2 else used


def _turned(attribute: str, features: AttributeFeatures, edit: FeatureEdit, settings: SteerSettings, classes: list[int]) -> str:
    used = edit.turned[classes].any(0).nonzero().flatten().tolist()
    if not used:
        named = " or ".join(features.classes[k] for k in classes)
        return f"{attribute} at {edit.site}: no feature is changed, because none of the chosen ones speaks for {named}"
    latents = ", ".join(f"#{int(features.features[i])}" for i in used[:NAMED]) + (", ..." if len(used) > NAMED else "")
    if edit.profile is None:
        amount = "" if settings.mode == SUPPRESS else f" by {settings.amount:g}"
        how = f"{settings.mode}{amount} at all positions"
    else:
        low, high = edit.window
        calibrated = ", calibrated" if edit.profile.source == features.default else ", not calibrated"
        span = f"log-SNR {low:.1f} to {high:.1f}" if math.isfinite(low) and low < high else "no noise level"
        how = f"{PROFILE} '{edit.profile.source}'{calibrated}, over {span}"
    count = "1 feature" if len(used) == 1 else f"{len(used)} features"
    return f"{attribute} at {edit.site}: {count} ({latents}), {how}"


def _assignment(settings: SteerSettings, ways: dict[str, FeatureEdit], unread: list[str], cells: int) -> list[str]:
    if cells < 2:
        return []
    if unread:
        return [f"images get their classes at random from the seed, because nothing reads {', '.join(unread)} (an ADP would)"]
    seeded = settings.assign == SEEDED or (settings.assign != READING and any(w.assign == SEEDED for w in ways.values()))
    return ["images get their classes " + ("at random from the seed" if seeded else "by the ADP's reading, so that the least changes")]
