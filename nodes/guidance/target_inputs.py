"""Inputs and outputs that both target nodes share."""

from __future__ import annotations

from typing import Any

PRESET_TIP = "'weights' uses the weights below. 'uniform' gives every class the same share."
ADP_TIP = "Checks the names against this ADP. You can then use 'uniform', or leave out classes, without naming the classes."
CLASSIFIER_TIP = "Checks the names against this classifier if no ADP is connected."
FEATURES_TIP = "Checks the names against these bias features if neither an ADP nor a classifier is connected."


def known_classes(adp: Any, classifier: Any, bias_features: Any) -> Any:
    """Attribute -> classes, by the first that is connected."""
    source = adp if adp is not None else classifier
    if source is not None:
        return source.attributes
    return None if bias_features is None else {a: found.classes for a, found in bias_features.attributes.items()}
