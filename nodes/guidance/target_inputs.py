"""Inputs and outputs of Target Distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...methods.core.target_text import PRESETS
from ...methods.core.targets import TargetDistribution
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ..core.sockets import Adp, BiasFeatures, Classifier, Target


def preset_input() -> io.Input:
    """Return the choice between weights and equal shares."""
    return io.Combo.Input(
        "preset",
        options=list(PRESETS),
        default="weights",
        tooltip="'weights' uses the weights below. 'uniform' gives every class the same share.",
    )


def adp_input() -> io.Input:
    """Return the socket for an ADP that knows the classes."""
    return Adp.Input(
        "adp",
        optional=True,
        tooltip="Checks the names against this ADP. You can then use 'uniform', or leave out classes, without naming the classes.",
    )


def classifier_input() -> io.Input:
    """Return the socket for a classifier that knows the classes."""
    return Classifier.Input("classifier", optional=True, tooltip="Checks the names against this classifier if no ADP is connected.")


def bias_features_input() -> io.Input:
    """Return the socket for bias features that know the classes."""
    return BiasFeatures.Input(
        "bias_features",
        optional=True,
        tooltip="Checks the names against these bias features if neither an ADP nor a classifier is connected.",
    )


def target_outputs() -> list[io.Output]:
    """List the target and its text."""
    return [
        Target.Output(
            "target",
            display_name="target",
            tooltip="The target, for the guidance nodes, Bias Feature Steer and Attribute Histogram.",
        ),
        io.String.Output("text", display_name="text", tooltip="The target as text, and how the weights were changed."),
    ]


def target_output(target: TargetDistribution) -> io.NodeOutput:
    """Return the target and its text with the notes on its weights."""
    return io.NodeOutput(target, "\n".join([str(target), *target.notes]))


def known_classes(
    adp: AdpFile | None, classifier: HostClassifier | None, bias_features: BiasFeaturesFile | None
) -> Mapping[str, Sequence[str]] | None:
    """Return attribute -> classes of the first source that is connected."""
    source = adp if adp is not None else classifier
    if source is not None:
        return source.attributes
    return None if bias_features is None else {a: features.classes for a, features in bias_features.attributes.items()}
