"""Trials of bias features: the files and inputs that they are made of, what they depend on, and who judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures, check_sae
from ...models.sae import SaeFile
from ..core.trials import HostTrials, TrialInputs
from ..core.types import Model
from ..data.trial_facts import sampler_facts, trial_facts
from ..labels.judge import classifier_judge
from .apply import check_sae_fit


@dataclass(frozen=True)
class SteerFiles:
    """The files that steering reads."""

    sae: SaeFile
    """Autoencoder of the model."""
    bias: BiasFeatures
    """Bias features of the autoencoder."""
    adp: AdpFile | None = None
    """ADP that reads the images, for profiles that depend on the reading."""

    def check(self, model: Model) -> None:
        """Raise ValueError if autoencoder, bias features and model do not belong together."""
        check_sae_fit(model, self.sae)
        check_sae(self.bias, self.sae)


@dataclass(frozen=True)
class SteerTrials:
    """Trials of bias features. Raises ValueError if files and model do not belong together."""

    files: SteerFiles
    """What is tried."""
    inputs: TrialInputs
    """What the trials are made of; a classifier and a VAE are needed."""

    def __post_init__(self) -> None:
        self.files.check(self.inputs.sampling.model)

    def host(self, attributes: Sequence[str]) -> HostTrials:
        """Make the sampler of the trials.

        The classifier judges these attributes, and those of the file that it knows.
        """
        bias, classifier = self.files.bias, self.inputs.classifier
        classes = {a: bias.attribute(a).classes for a in attributes}
        others = {a: f.classes for a, f in bias.attributes.items() if set(classifier.attributes.get(a, ())) == set(f.classes)}
        judge = classifier_judge(self.inputs.vae, classifier, {**classes, **others})
        return HostTrials(self.inputs.sampling, self.inputs.images, judge)

    def facts(self) -> dict[str, Any]:
        """Return what the trials depend on, for their log."""
        return {"classifier": self.inputs.classifier.fingerprint(), **trial_facts(self.inputs), "sae": self.files.sae.digest}

    def note(self) -> dict[str, Any]:
        """Return what the file's info says of judge and sampler."""
        return {"judge": self.inputs.classifier.name, "sampler": sampler_facts(self.inputs.sampling.sampler)}
