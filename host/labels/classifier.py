"""Attribute classifiers in the host: found in its model folders, loaded and offloaded by its model management."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import comfy.model_management
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...models.attribute_classifier import AttributeClassifier, load_classifier
from ...models.transformers_classifier import load_transformers_classifier
from ..core import files as model_files

KEY = "attribute_classifiers"
CONFIG = "config.json"
PIXELS_PER_CHUNK = 2**22
BYTES_PER_PIXEL = 400
"""Memory of activations per pixel, for the host's bookkeeping: about twice the widest layers of a ResNet-50 (ViT-B/16 needs less)."""

T = TypeVar("T")


class HostClassifier:
    """A classifier under the host's memory management; what the socket EQUIPOISE_CLASSIFIER carries.

    ``attributes``: attribute -> class names, in the order of the probabilities. ``name``: as chosen in the loader.
    """

    has_network = True
    """Whether it has a network of its own, in ``model``."""

    def __init__(self, model: AttributeClassifier, name: str) -> None:
        self.name, self.model = name, model
        self.attributes: dict[str, tuple[str, ...]] = dict(model.attributes)
        self.patcher = ModelPatcher(
            model,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    def fingerprint(self) -> str:
        """Return a text that changes with the classifier's file and edits.

        So labels of one classifier are not taken for those of another.
        """
        return classifier_fingerprint(self.name)

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        """Compute class probabilities of an IMAGE: attribute -> float32 [B, K].

        IMAGE [B, H, W, C] in 0..1 (C = 3, or 4 whose alpha is not read); the result is on the CPU.

        Runs in chunks, with progress; the host can interrupt between them. Raises ValueError where the images are of another shape.
        """
        parts = self._in_chunks(images, lambda chunk: self.model.probabilities(chunk, batch=len(chunk)))
        return {a: torch.cat([p[a] for p in parts]) for a in self.attributes}

    def embed(self, images: Tensor) -> Tensor:
        """Compute features of an IMAGE: float32 [B, D] on the CPU.

        IMAGE [B, H, W, C] in 0..1.
        """
        return torch.cat(self._in_chunks(images, lambda chunk: self.model.embed(chunk, batch=len(chunk))))

    def _in_chunks(self, images: Tensor, read: Callable[[Tensor], T]) -> list[T]:
        if images.ndim != 4 or not images.numel() or images.shape[-1] not in (3, 4):
            raise ValueError(f"a classifier reads images of shape [B, H, W, 3 or 4]; met {list(images.shape)}: connect decoded images.")
        pixels = images[..., :3].movedim(-1, 1)
        size = max(1, min(256, PIXELS_PER_CHUNK // max(self.model.image_size**2, images.shape[1] * images.shape[2])))
        memory = BYTES_PER_PIXEL * self.model.image_size**2 * min(size, len(pixels))
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory, force_full_load=True)
        bar = comfy.utils.ProgressBar(len(pixels))
        parts = []
        for chunk in pixels.split(size):
            comfy.model_management.throw_exception_if_processing_interrupted()
            parts.append(read(chunk))
            bar.update(len(chunk))
        return parts


def classifier_choices() -> list[str]:
    """List the classifiers for a combo.

    Safetensors files, and folders of transformers classifiers by the folder's name. Folders without safetensors are among them; loading one
    explains why it cannot be loaded.
    """
    names = []
    for name in model_files.choices(KEY):
        parent = Path(name).parent.as_posix()
        names.append(parent if parent != "." and _is_folder(parent) else name)
    for root in folder_paths.get_folder_paths(KEY):
        names += sorted(config.parent.name for config in Path(root).glob(f"*/{CONFIG}"))
    return list(dict.fromkeys(names))


def resolve_classifier(name: str) -> Path:
    """Return the path of a classifier file, or of a folder.

    A folder has a config.json. Raises FileNotFoundError, naming what there is.
    """
    return model_files.resolve(KEY, f"{name}/{CONFIG}").parent if _is_folder(name) else model_files.resolve(KEY, name)


def classifier_fingerprint(name: str) -> str:
    """Return a text that changes whenever the classifier's file changes.

    Or a file in its folder.
    """
    if not _is_folder(name):
        return model_files.fingerprint(KEY, name)
    folder = resolve_classifier(name)
    stats = ((entry.name, entry.stat()) for entry in sorted(os.scandir(folder), key=lambda e: e.name) if entry.is_file())
    return "|".join([str(folder), *(f"{n}:{s.st_mtime_ns}:{s.st_size}" for n, s in stats)])


def load_host_classifier(name: str) -> HostClassifier:
    """Load by the name that :func:`classifier_choices` gives. Raises FileNotFoundError or ValueError."""
    path = resolve_classifier(name)
    model = load_transformers_classifier(path) if path.is_dir() else load_classifier(path, operations=comfy.ops.manual_cast)
    return HostClassifier(model, name)


def _is_folder(name: str) -> bool:
    return folder_paths.get_full_path(KEY, f"{name}/{CONFIG}") is not None
