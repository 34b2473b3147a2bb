"""Make the autoencoder and the bias features that ship with the pack, as a user would make them: every stage is a node's own function.

``dev.py train-portraits steering`` and ``steering-text`` import this module once they have booted the host with a base directory of its
own, where feature sets, checkpoints and trials are kept, so that every stage goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..host.bias_features.calibrate_steering import calibrate_steering
from ..host.bias_features.learn_profiles import LR, learn_profiles
from ..host.bias_features.measure_effects import measure_effects
from ..host.bias_features.trials import SteerFiles, SteerTrials
from ..host.core.sampling import SamplerSettings
from ..host.core.trials import SamplingInputs, TrialInputs
from ..host.core.types import Clip, Conditioning, Model
from ..host.data.record_samples import GivenConditions, PromptConditions, record_samples
from ..host.guidance.learning_pictures import LearningInputs
from ..host.labels.classifier import HostClassifier
from ..host.labels.labelling import classifier_source, label_images
from ..host.small_models.adm_info import conditioning
from ..host.small_models.adm_model import empty_latent, info_of, load_adm
from ..host.small_models.pixel_vae import PixelVae
from ..host.small_models.text_model import load_text_model
from ..methods.adp.train import train_adp
from ..methods.bias_features.calibrate_profile import DOUBTS
from ..methods.bias_features.extend_features import only_profile
from ..methods.bias_features.find import find_bias_features
from ..methods.data.feature_set import FeatureSet
from ..methods.data.recording import RecordingSettings
from ..methods.guidance.fit_moves import FitSettings, move_knots
from ..methods.labels.labels import LabelSet
from ..methods.labels.regions import Region
from ..methods.sae.train import checkpoint_path, train_sae
from ..methods.sae.training import SaeSettings
from ..models.bias_features import LEARNED, BiasFeatures, load_bias_features, save_bias_features
from ..models.sae import SaeFile, load_sae, save_sae
from ..shipped import weights
from .portraits import ATTRIBUTES
from .text_adp import NEGATIVE, NEUTRAL, TRIAL_CFG

SITE = "output.1"
"""Where the learned moves of the shipped ADPs act, too: the middle block carries little of these attributes here."""
STEERED = ("eyeglasses", "hair", "skin_tone")
BATCH, TRIAL_IMAGES, ALONE_IMAGES, EFFECTIVE = 16, 128, 48, 192
FIRST_SEED, TRIAL_SEED = 53_000_000, 63_000_000
HOLD = 1.0
"""Before the fit's noise was dropped, it lowered how far professions moved with eyeglasses from 10.7 to 3.4 points, and skin tones with
hair from 9.3 to 7.5 (1,024 images)."""
LATENTS = 1536


@dataclass(frozen=True)
class Bed:
    """Hold a model of the test bed and how it is sampled."""

    name: str
    """Name of its files."""
    model: Model
    """The host's MODEL."""
    conditions: Any
    """Prompts or conditions of the recording."""
    positive: Conditioning
    """Positive conditioning of the trials."""
    negative: Conditioning
    """Negative conditioning of the trials."""
    adp: Path
    """Its shipped ADP."""
    sampler: str
    """Name of the sampler."""
    images: int
    """Images to record."""
    cfg: float
    """cfg of the recording."""
    trial_cfg: float
    """cfg of the trials."""
    target_share: float
    """Share of a trial's images that must be read as the class. At cfg 1 the text model's images are less sure of theirs. 0.9925 allows one
    miss of 128: with two, 98.3% of 1,024 images with eyeglasses 50% got their class, by the judge."""
    k: int
    """Active latents. With 32, the judge saw another skin tone in 2.5% of 1,024 unconditional images with h replaced by its reconstruction;
    with 48 in 1.6%."""
    doubts: tuple[float, ...] = DOUBTS
    """Doubts of readings to compare. On the text model no image of 256 missed its class at 1."""
    clip: Clip = None
    """The host's CLIP of a text model."""

    def sampling(self, seed: int, cfg: float) -> SamplerSettings:
        """Return the settings of the sampler."""
        return SamplerSettings(seed, 20, cfg, self.sampler, "normal")


def unconditional_bed() -> Bed:
    """Return the test bed of the unconditional model."""
    model = load_adm(weights.DIFFUSION)
    cond = conditioning(info_of(model), None)
    return Bed("portraits", model, GivenConditions(model, cond), cond, cond, weights.ADP, "ddim", 2048, 1.0, 1.0, 0.9925, 48)


def text_bed() -> Bed:
    """Return the test bed of the small text model.

    Under neutral prompts of all four professions.
    """
    model, clip = load_text_model(weights.TEXT)
    prompts = PromptConditions(clip, "\n".join(NEUTRAL), NEGATIVE)
    positive, negative, _ = prompts.at(0)
    settings = (model, prompts, positive, negative, weights.ADP_TEXT, "euler", 1024, 4.0, TRIAL_CFG, 0.97, 32)
    return Bed("portraits-text", *settings, doubts=(1.0,), clip=clip)


class SteeringMaker:
    """The stages, with the models loaded once. ``steps``: of the fit of profiles."""

    def __init__(self, bed: Bed, folder: Path, steps: int, say: Callable[[str], None]) -> None:
        self.bed, self.folder, self.steps, self.say = bed, folder, steps, say
        self.vae, self.latent = PixelVae(2), empty_latent(bed.model, 0, 0, BATCH)
        self.labeller = HostClassifier(weights.classifier(), "portraits_labeller.safetensors")
        self.adp = weights.adp(bed.adp)

    def make(self) -> tuple[SaeFile, BiasFeatures]:
        """Make the autoencoder and the calibrated bias features.

        Record at the site, label, train the autoencoder and a reader, find features and turn the best alone, learn profiles, calibrate
        them.
        """
        features, labels = self._recorded()
        sae = self._autoencoder(features)
        bias = self._measured(sae, self._find(sae, features, labels))
        return sae, self._calibrated(sae, self._learned(sae, bias, features, labels))

    def _recorded(self) -> tuple[FeatureSet, LabelSet]:
        b = self.bed
        settings = b.sampling(FIRST_SEED, b.cfg)
        # Maps of this site are 8x8: pooled features are for the reader, whole ones for the autoencoder.
        recording = RecordingSettings(site=SITE, spatial_levels=tuple(move_knots().tolist()))
        outcome = record_samples(b.model, self.vae, b.conditions, self.latent, f"{b.name}-{SITE}", b.images, settings, recording)
        self.say(outcome.report)
        labels, _ = label_images(outcome.features, classifier_source(self.labeller, tuple(ATTRIBUTES)), Region())
        return outcome.features, labels

    def _autoencoder(self, features: FeatureSet) -> SaeFile:
        path, settings = self.folder / "sae.safetensors", SaeSettings(latents=LATENTS, k=self.bed.k)
        if not path.is_file():
            made = train_sae(features, settings, checkpoint=checkpoint_path(features, settings))
            save_sae(replace(made, info={**made.info, "licence": "GPL-3.0"}), path)
        sae = load_sae(path)
        self.say(sae.text())
        return sae

    def _find(self, sae: SaeFile, features: FeatureSet, labels: LabelSet) -> BiasFeatures:
        path = self.folder / "found.safetensors"
        if not path.is_file():
            reader = train_adp(features, labels, kind="linear")
            save_bias_features(find_bias_features(features, labels, sae, reader.predictor, STEERED), path)
        bias = load_bias_features(path)
        self.say(bias.text())
        return bias

    def _measured(self, sae: SaeFile, bias: BiasFeatures) -> BiasFeatures:
        measured = measure_effects(self._trials(SteerFiles(sae, bias), ALONE_IMAGES))
        self.say("\n".join(measured.lines))
        return measured.file

    def _learned(self, sae: SaeFile, bias: BiasFeatures, features: FeatureSet, labels: LabelSet) -> BiasFeatures:
        b, settings = self.bed, FitSettings(steps=self.steps, batch=48, lr=LR, hold=HOLD)
        inputs = LearningInputs(b.model, features, labels, self.vae, self.labeller, None if b.clip else b.positive, b.clip)
        files = SteerFiles(sae, bias, self.adp)
        learned = learn_profiles(inputs, files, settings, f"{b.name}-profiles", extra_features=EFFECTIVE)
        self.say("\n".join(learned.lines))
        # Class differences that were read off features bring at most 37% of images to eyeglasses here, and add to the file.
        return only_profile(learned.file, LEARNED)

    def _calibrated(self, sae: SaeFile, file: BiasFeatures) -> BiasFeatures:
        b = self.bed
        trials = self._trials(SteerFiles(sae, file, self.adp), TRIAL_IMAGES)
        results = calibrate_steering(trials, wanted_share=b.enough, doubts=b.doubts)
        self.say("\n".join(line for r in results for line in r.lines))
        return results[-1].file

    def _trials(self, files: SteerFiles, images: int) -> SteerTrials:
        b = self.bed
        prompts = b.conditions if b.clip else None
        sampling = SamplingInputs(b.model, b.positive, b.negative, self.latent, b.sampling(TRIAL_SEED, b.trial_cfg), prompts)
        return SteerTrials(files, TrialInputs(sampling, images, f"{b.name}-steering", self.vae, self.labeller))


def make_steering(text: bool, folder: Path, steps: int, say: Callable[[str], None]) -> tuple[SaeFile, BiasFeatures]:
    """Make ``sae.safetensors`` and ``bias_features.safetensors`` in a folder, and return what they hold."""
    with torch.inference_mode():  # as the host runs nodes
        sae, file = SteeringMaker(text_bed() if text else unconditional_bed(), folder, steps, say).make()
        save_bias_features(file, folder / "bias_features.safetensors")
    return sae, file
