"""Load the models that ship with the pack."""

from __future__ import annotations

from pathlib import Path

from ..models.adm_unet import AdmUNet, build_unet
from ..models.adp import AdpFile, load_adp
from ..models.attribute_classifier import AttributeClassifier, load_classifier
from ..models.files import read_safetensors

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DIFFUSION = WEIGHTS_FOLDER / "diffusion" / "portraits.safetensors"
DIFFUSION_PROFESSIONS = WEIGHTS_FOLDER / "diffusion" / "portraits_professions.safetensors"
TEXT = WEIGHTS_FOLDER / "diffusion" / "portraits_text.safetensors"
LABELLER = WEIGHTS_FOLDER / "attribute_classifiers" / "portraits_labeller.safetensors"
JUDGE = WEIGHTS_FOLDER / "attribute_classifiers" / "portraits_judge.safetensors"
ADP = WEIGHTS_FOLDER / "adp" / "portraits.safetensors"
ADP_PROFESSIONS = WEIGHTS_FOLDER / "adp" / "portraits_professions.safetensors"
ADP_TEXT = WEIGHTS_FOLDER / "adp" / "portraits_text.safetensors"
SAE = WEIGHTS_FOLDER / "sae" / "portraits.safetensors"
SAE_TEXT = WEIGHTS_FOLDER / "sae" / "portraits_text.safetensors"
BIAS_FEATURES = WEIGHTS_FOLDER / "bias_features" / "portraits.safetensors"
BIAS_FEATURES_TEXT = WEIGHTS_FOLDER / "bias_features" / "portraits_text.safetensors"


def diffusion(path: Path = DIFFUSION) -> AdmUNet:
    """Load a diffusion model of the test bed, float32 on the CPU."""
    return build_unet(*read_safetensors(path))


def classifier(path: Path = LABELLER) -> AttributeClassifier:
    """Load the labeller or the judge."""
    return load_classifier(path)


def adp(path: Path = ADP) -> AdpFile:
    """Load an ADP with its calibrated moves."""
    return load_adp(path)
