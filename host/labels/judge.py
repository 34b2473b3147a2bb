"""Judge trials with a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..core.trials import ImageClassifier, Judge


def classifier_judge(vae: Any, classifier: ImageClassifier, classes: Mapping[str, Sequence[str]]) -> Judge:
    """Return a judge that decodes latents and classifies the images.

    It gives the classes of every attribute in the order of ``classes``.

    Raises ValueError if the classifier does not know an attribute with its classes.
    """
    for attribute, wanted in classes.items():
        if set(classifier.attributes.get(attribute, ())) != set(wanted):
            raise ValueError(
                f"the classifier '{classifier.name}' cannot judge '{attribute}' with the classes {', '.join(wanted)}; it knows "
                f"{known_attributes(classifier)}: connect one that does, or none to let the ADP itself judge."
            )

    def judge(samples: Tensor) -> dict[str, Tensor]:
        read = classifier.probabilities(vae.decode(samples))
        for a, order in classes.items():
            read[a] = read[a][:, [classifier.attributes[a].index(c) for c in order]]
        return read

    return judge


def known_attributes(classifier: ImageClassifier) -> str:
    """List the attributes of a classifier with their classes, for messages."""
    return "; ".join(f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items())
