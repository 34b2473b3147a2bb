"""Train SAE: train with the host's progress and device, and write the file."""

from __future__ import annotations

from pathlib import Path

from ...methods.data.feature_set import FeatureSet
from ...methods.sae.train import checkpoint_path, train_sae
from ...methods.sae.training import SaeSettings
from ...models.sae import SaeFile, save_sae
from ..core.files import FileKind
from ..core.progress import host_progress, training_device

SAE_FILES = FileKind("equipoise_sae", "an autoencoder", save_sae)


def train_and_save_sae(features: FeatureSet, settings: SaeSettings, name: str, overwrite: bool) -> tuple[SaeFile, Path]:
    """Train an autoencoder on a set and save it.

    The checkpoint in the set's folder is resumed if there is one.

    Raises ValueError for a bad name or one that is taken, and if the set cannot be trained on; the host's exception if the user interrupts.
    """
    path, checkpoint = SAE_FILES.path(name), checkpoint_path(features, settings)
    if path.exists() and not overwrite and not checkpoint.is_file():
        raise SAE_FILES.name_taken(path)  # before the work: this training never began, so the file is another one
    sae = train_sae(features, settings, host_progress("Train SAE"), checkpoint, device=training_device())
    return sae, SAE_FILES.write(sae, name, overwrite)
