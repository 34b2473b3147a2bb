"""The models that ship with the pack."""

from __future__ import annotations

from pathlib import Path

from ..models.adm_unet import AdmUNet, build_unet
from ..models.adp import AdpFile, load_adp
from ..models.attribute_classifier import AttributeClassifier, load_classifier
from ..models.files import read_safetensors

FOLDER = Path(__file__).parent / "weights"
DIFFUSION = FOLDER / "diffusion" / "portraits.safetensors"
DIFFUSION_PROFESSIONS = FOLDER / "diffusion" / "portraits_professions.safetensors"
TEXT = FOLDER / "diffusion" / "portraits_text.safetensors"
LABELLER = FOLDER / "attribute_classifiers" / "portraits_labeller.safetensors"
JUDGE = FOLDER / "attribute_classifiers" / "portraits_judge.safetensors"
ADP = FOLDER / "adp" / "portraits.safetensors"
ADP_PROFESSIONS = FOLDER / "adp" / "portraits_professions.safetensors"
ADP_TEXT = FOLDER / "adp" / "portraits_text.safetensors"
SAE = FOLDER / "sae" / "portraits.safetensors"
SAE_TEXT = FOLDER / "sae" / "portraits_text.safetensors"
BIAS_FEATURES = FOLDER / "bias_features" / "portraits.safetensors"
BIAS_FEATURES_TEXT = FOLDER / "bias_features" / "portraits_text.safetensors"


def diffusion(path: Path = DIFFUSION) -> AdmUNet:
    """A diffusion model of the test bed, float32 on the CPU."""
    return build_unet(*read_safetensors(path))


def classifier(path: Path = LABELLER) -> AttributeClassifier:
    """The labeller or the judge."""
    return load_classifier(path)


def adp(path: Path = ADP) -> AdpFile:
    """A predictor with its calibrated moves."""
    return load_adp(path)
