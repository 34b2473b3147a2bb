"""What trials of bias features have in common: the parts, what they depend on, and who judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...models.bias_features import BiasFeatures, check_sae
from ...models.sae import SaeFile
from ..core.sampling import SamplerSettings
from ..core.trials import HostTrials, classifier_judge
from ..core.versions import fitting_latent
from ..data.record_samples import GivenConditions, PromptConditions
from ..data.recording import conditioning_facts, weights_mark
from ..labels.classifier import HostClassifier
from .apply import check_sae_fit


@dataclass(frozen=True)
class SteerTrials:
    """The parts of trials through the host's sampler. ``asked``: images per trial, rounded up to whole batches of the latent; ``prompts``:
    in place of ``positive`` and ``negative``. Raises ValueError, in a sentence, where the parts do not fit each other."""

    model: Any
    sae: SaeFile
    bias: BiasFeatures
    positive: Any
    negative: Any
    latent: dict[str, Any]
    sampler: SamplerSettings
    asked: int
    vae: Any
    classifier: HostClassifier
    prompts: PromptConditions | None = None

    def __post_init__(self) -> None:
        check_sae_fit(self.model, self.sae)
        check_sae(self.bias, self.sae)

    def host(self, trials: int, attributes: Sequence[str]) -> HostTrials:
        """So many trials, in which the classifier judges these attributes and whichever others of the file it knows."""
        classes = {a: self.bias.attribute(a).classes for a in attributes}
        known = self.classifier.attributes
        beside = {a: f.classes for a, f in self.bias.attributes.items() if set(known.get(a, ())) == set(f.classes)}
        conditions = self.prompts or GivenConditions(self.model, self.positive, self.negative)
        batches = -(-self.asked // fitting_latent(self.model, self.latent).shape[0])
        host = HostTrials(self.model, conditions, self.latent, self.sampler, batches, trials)
        host.judge = classifier_judge(self.vae, self.classifier, {**classes, **beside})
        return host

    def facts(self) -> dict[str, Any]:
        """What trials depend on."""
        start = fitting_latent(self.model, self.latent)
        return {
            "classifier": self.classifier.fingerprint(),
            "sampler": self.sampling,
            "images": -(-self.asked // start.shape[0]) * start.shape[0],
            "batch": start.shape[0],
            "latent": list(start.shape[1:]),
            "model": weights_mark(self.model),
            "positive": conditioning_facts(self.positive),
            "negative": conditioning_facts(self.negative),
            **({"prompts": self.prompts.facts} if self.prompts else {}),
            "sae": self.sae.digest,
        }

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampler's settings, as they are written down."""
        return {k: getattr(self.sampler, k) for k in ("seed", "steps", "cfg", "sampler_name", "scheduler")}
