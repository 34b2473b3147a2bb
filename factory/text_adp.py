"""Make the predictor of the small text model, as a user would make one: every stage is a node's own function.

``dev.py train-portraits adp-text`` imports this module once it has booted the host with a base directory of its own, where feature set,
checkpoints and trials are kept, so that every stage goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..host.core.fit.session import AUTO
from ..host.core.sampling import SamplerSettings
from ..host.core.trials import SamplingInputs, TrialInputs
from ..host.data.record_samples import PromptConditions, record_samples
from ..host.guidance.calibrate import calibrate_adp, candidates_of
from ..host.guidance.contrast import contrast_directions
from ..host.guidance.learn_directions import learn_directions
from ..host.guidance.learn_from_prompts import learn_from_prompts
from ..host.guidance.learning_pictures import LearningInputs
from ..host.guidance.prompt_sampling import PromptSampling
from ..host.labels.classifier import HostClassifier
from ..host.labels.labelling import classifier_source, label_images
from ..host.small_models.adm_model import empty_latent
from ..host.small_models.pixel_vae import PixelVae
from ..host.small_models.text_model import load_text_model
from ..methods.adp.train import train_adp
from ..methods.data.feature_set import FeatureSet
from ..methods.data.recording import RecordingSettings
from ..methods.guidance.fit_moves import FitSettings
from ..methods.guidance.prompt_classes import PromptClasses
from ..methods.labels.labels import LabelSet
from ..methods.labels.regions import Region
from ..models.adp import AdpFile, Move, save_adp
from ..shipped import weights
from .captions import PHRASES
from .portraits import ATTRIBUTES

PROFESSIONS = ATTRIBUTES["profession"]
NEUTRAL = tuple(f"a photo of a {p}" for p in PROFESSIONS)
NEGATIVE = "a drawing"
"""The negative prompt of everything here: words that the model knows, and that say nothing of an attribute."""
MOVED = ("eyeglasses", "skin_tone")
COMPARED = "eyeglasses"
"""The attribute for which every kind of direction is found and calibrated; the other gets the learned one."""
IMAGES, BATCH, TRIAL_IMAGES = 1024, 16, 144
PROMPT_IMAGES = 128
FIRST_SEED, TRIAL_SEED, PROMPT_SEED = 51_000_000, 61_000_000, 62_000_000
STEPS, CFG, SAMPLER, SCHEDULER = 20, 4.0, "euler", "normal"
TRIAL_CFG = 1.0
"""Of the trials: edits of the cond rows weigh cfg-fold in the result, so what is enough at 1 is enough above it, and not the other way
round (a file calibrated at 4 reached 100% of doctors there and 89.8% at 1)."""


def prompt_classes(attribute: str) -> PromptClasses:
    """Return the prompts of an attribute's classes, for all four professions.

    Prompts that name a class, and those that do not.
    """
    classes = ATTRIBUTES[attribute]
    phrases = {c: (PHRASES[attribute][k][0],) for k, c in enumerate(classes)}
    return PromptClasses(attribute, classes, tuple(f"{prompt} {{}}" for prompt in NEUTRAL), phrases)


class Maker:
    """The stages, with the models loaded once. ``steps``: of each fit."""

    def __init__(self, steps: int, say: Callable[[str], None]) -> None:
        self.steps, self.say = steps, say
        self.model, self.clip = load_text_model(weights.TEXT)
        self.vae = PixelVae(2)
        self.labeller = HostClassifier(weights.classifier(), "portraits_labeller.safetensors")
        self.prompts = PromptConditions(self.clip, "\n".join(NEUTRAL), NEGATIVE)
        self.latent = empty_latent(self.model, 0, 0, BATCH)

    def sampler(self, seed: int, cfg: float = CFG) -> SamplerSettings:
        """Return the settings of the sampler."""
        return SamplerSettings(seed, STEPS, cfg, SAMPLER, SCHEDULER)

    def make(self) -> AdpFile:
        """Record, label, train, find directions of every kind, calibrate them."""
        recording = RecordingSettings()
        outcome = record_samples(
            self.model, self.vae, self.prompts, self.latent, "portraits-text", IMAGES, self.sampler(FIRST_SEED), recording
        )
        self.say(outcome.report)
        features = outcome.features
        labels, _ = label_images(features, classifier_source(self.labeller, tuple(ATTRIBUTES)), Region())
        adp = train_adp(features, labels)
        self.say("\n".join(adp.info["verdict"].values()))
        adp = self._learned(adp, features, labels)
        for attribute in MOVED:
            if attribute == COMPARED:
                adp = self._from_prompts(adp, attribute)
                moves = candidates_of(adp, features, labels, [attribute])
            else:
                moves = candidates_of(adp, None, None, [attribute])
            adp = self._calibrated(adp, moves, attribute, features.name)
        info = {**adp.info, "labels": "soft labels of portraits_labeller on the model's own samples", "licence": "GPL-3.0"}
        return replace(adp, info=info)

    def _learned(self, adp: AdpFile, features: FeatureSet, labels: LabelSet) -> AdpFile:
        inputs = LearningInputs(self.model, features, labels, self.vae, self.labeller, clip=self.clip)
        learned = learn_directions(inputs, adp, FitSettings(steps=self.steps), "portraits-text", MOVED)
        self.say("\n".join(learned.lines))
        return learned.file

    def _from_prompts(self, adp: AdpFile, attribute: str) -> AdpFile:
        """Make moves from pairs of prompts, without labels."""
        prompts, sampler = prompt_classes(attribute), self.sampler(PROMPT_SEED)
        sampling = PromptSampling(self.model, self.clip, self.latent, sampler, PROMPT_IMAGES, NEGATIVE)
        fitted = learn_from_prompts(sampling, prompts, FitSettings(steps=self.steps // 2), "portraits-text-prompts", adp)
        self.say("\n".join(fitted.lines))
        contrast = contrast_directions(replace(sampling, negative=""), prompts, site=AUTO, adp=fitted.file)
        self.say("\n".join(contrast.lines))
        return contrast.file

    def _calibrated(self, adp: AdpFile, moves: dict[str, list[Move]], attribute: str, features: str) -> AdpFile:
        positive, negative, _ = self.prompts.at(0)
        sampler = self.sampler(TRIAL_SEED, TRIAL_CFG)
        sampling = SamplingInputs(self.model, positive, negative, self.latent, sampler, self.prompts)
        trials = TrialInputs(sampling, TRIAL_IMAGES, f"portraits-text-{attribute}", self.vae, self.labeller)
        results = calibrate_adp(adp, moves, trials, features)
        self.say("\n".join(results[-1].lines))
        return results[-1].file


def make_text_adp(out: Path, steps: int, say: Callable[[str], None]) -> AdpFile:
    """Make the file ``out`` and return what it holds."""
    file = Maker(steps, say).make()
    save_adp(file, out)
    return file
