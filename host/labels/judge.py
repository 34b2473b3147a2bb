"""Judge trials with a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...models.class_order import in_class_order, matched
from ..core.trials import ImageClassifier, Judge
from ..core.types import Vae


def classifier_judge(vae: Vae, classifier: ImageClassifier, classes: Mapping[str, Sequence[str]]) -> Judge:
    """Return a judge that decodes latents and classifies the images.

    It gives the classes of every attribute in the order of ``classes``.

    Raises ValueError if the classifier does not know an attribute with its classes.
    """
    remedy = "connect one that does, or none to let the ADP itself judge"
    order = matched(classes, classifier.attributes, "the connected file", f"the classifier '{classifier.name}'", remedy)

    def judge(samples: Tensor) -> dict[str, Tensor]:
        read = classifier.probabilities(vae.decode(samples))
        return {**read, **in_class_order(read, order)}

    return judge


def known_attributes(classifier: ImageClassifier) -> str:
    """List the attributes of a classifier with their classes, for messages."""
    return "; ".join(f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items())
