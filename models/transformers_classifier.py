"""Attribute classifiers from local folders of ``transformers`` image classifiers (ViT, Swin, ConvNeXt, ResNet, ...).

A folder holds config.json, model.safetensors (or its shards) and, best, preprocessor_config.json. Nothing is downloaded, no code of the
folder is run, no pickle is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attribute_classifier import AttributeClassifier

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ATTRIBUTE_KEY = "equipoise_attribute"
"""Entry of config.json that names the attribute."""
RESAMPLE = {0: "nearest-exact", 1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers; Lanczos (1) has no counterpart in torch."""


class TransformersClassifier(AttributeClassifier):
    """One attribute, read by a ``transformers`` image classifier. Same interface as our own classifiers."""

    architecture = "transformers"

    def __init__(self, network: nn.Module, attribute: str, classes: tuple[str, ...], processor: dict[str, Any]) -> None:
        preprocessing = _Preprocessing(processor, network.config)
        super().__init__({attribute: classes}, preprocessing.crop[0])
        self.attribute, self.network, self._preprocessing = attribute, network, preprocessing

    @property
    def config(self) -> dict[str, Any]:
        """Type of the model, as a file stores it."""
        return {"model_type": self.network.config.model_type}

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize, crop and normalise images as the folder says.

        images [B, 3, H, W] in 0..1, any size -> float32 [B, 3, h, w].
        """
        return self._preprocessing(images)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute logits of preprocessed pixels [B, 3, h, w]: attribute -> [B, K]."""
        return {self.attribute: self.network(pixel_values=pixels).logits}

    def features(self, pixels: Tensor) -> Tensor:
        """Compute what the last linear layer reads, [B, D].

        For a ViT, the normalised CLS token.
        """
        head = self._head()
        with _input_of(head) as seen:
            self.network(pixel_values=pixels)
        return seen[-1].flatten(1)

    def _head(self) -> nn.Linear:
        k = len(self.attributes[self.attribute])
        heads = [m for m in self.network.modules() if isinstance(m, nn.Linear) and m.out_features == k]
        if not heads:
            kind = self.network.config.model_type
            raise ValueError(f"this {kind} network has no linear head, so its features cannot be read: choose another classifier.")
        return heads[-1]


class _Preprocessing:
    """Resize, centre crop and normalise, on tensors and on their device."""

    def __init__(self, settings: dict[str, Any], config: PretrainedConfig) -> None:
        vision = getattr(config, "vision_config", config)  # CLIP keeps it one level down
        default = getattr(vision, "image_size", None) or 224
        size = settings.get("size", default) if settings.get("do_resize", True) else None
        self.resize = _pair(size) if size is not None else None
        self.shortest = size.get("shortest_edge") if isinstance(size, dict) else None
        if self.shortest and settings.get("crop_pct") and self.shortest < 384:
            # ConvNeXt: resized somewhat larger, then cropped to the size that is named.
            self.crop, self.shortest = (self.shortest, self.shortest), int(self.shortest / settings["crop_pct"])
        elif settings.get("do_center_crop"):
            self.crop = _pair(settings.get("crop_size", size or default))
        elif self.shortest:
            self.crop = (self.shortest, self.shortest)  # so that a batch has one size, whatever the images' shape
        else:
            self.crop = self.resize or _pair(default)
        self.mode = RESAMPLE.get(settings.get("resample", 2), "bilinear")
        self.scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
        normalise = settings.get("do_normalize", True)
        self.mean = torch.tensor(settings.get("image_mean", [0.5] * 3) if normalise else [0.0] * 3).view(-1, 1, 1)
        self.std = torch.tensor(settings.get("image_std", [0.5] * 3) if normalise else [1.0] * 3).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float().clamp(0, 1)
        h, w = x.shape[-2:]
        if self.shortest:
            scale = self.shortest / min(h, w)
            size = (max(self.shortest, int(h * scale + 1e-9)), max(self.shortest, int(w * scale + 1e-9)))
        else:
            size = self.resize or self.crop
        if (h, w) != size:
            smooth = self.mode != "nearest-exact"
            x = F.interpolate(x, size=size, mode=self.mode, **({"antialias": True, "align_corners": False} if smooth else {})).clamp(0, 1)
        return (_centre(x, self.crop) * self.scale - self.mean.to(x)) / self.std.to(x)


def _pair(size: float | Sequence[float] | Mapping[str, float]) -> tuple[int, int]:
    """Read a size as (height, width).

    As transformers writes it: a number, a pair, or a mapping.
    """
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        height, width = size.get("height", edge), size.get("width", edge)
        if height is None or width is None:
            raise ValueError(f"preprocessor_config.json has the size {size}: write height and width, or shortest_edge.")
        return int(height), int(width)
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop at the centre, and pad with black where the image is smaller."""
    (h, w), (height, width) = x.shape[-2:], size
    short_h, short_w = max(0, height - h), max(0, width - w)
    if short_h or short_w:
        x = F.pad(x, (short_w // 2, short_w - short_w // 2, short_h // 2, short_h - short_h // 2))
        h, w = x.shape[-2:]
    top, left = (h - height) // 2, (w - width) // 2
    return x[..., top : top + height, left : left + width]


@contextmanager
def _input_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of a module while the context is open."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def is_classifier_folder(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder looks like a ``transformers`` model.

    It then has a config.json.
    """
    return (Path(folder) / "config.json").is_file()


def load_transformers_classifier(folder: str | os.PathLike[str]) -> TransformersClassifier:
    """Load a folder in float32, ready for inference, on the CPU.

    The attribute is named by ``equipoise_attribute`` in config.json, else by the folder; the classes are those of ``id2label``.

    Raises ValueError for a folder that is not a whole ``transformers`` image classifier with one softmax, that needs code
    of its own, or whose weights are not safetensors.
    """
    folder = Path(folder)
    config = _checked_config(folder)
    try:
        from transformers import AutoModelForImageClassification
    except ImportError as error:
        raise ValueError(
            f"'{folder.name}' needs the Python package transformers, which is not installed: install it, or choose a file."
        ) from error
    try:
        network, info = AutoModelForImageClassification.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"'{folder.name}' could not be loaded as a transformers image classifier ({reason}): check its files.") from error
    missing = [*info["missing_keys"], *(str(k) for k in info.get("mismatched_keys", ()))]
    if missing:
        first = sorted(missing)[0]
        raise ValueError(f"'{folder.name}' lacks {len(missing)} of its network's weights ({first}, ...): choose a trained classifier.")
    attribute, classes = _named(folder, config)
    processor = _read_json(folder / "preprocessor_config.json") if (folder / "preprocessor_config.json").is_file() else {}
    return TransformersClassifier(network.float().eval().requires_grad_(False), attribute, classes, processor).eval()


def stated_classes(folder: str | os.PathLike[str]) -> tuple[str, tuple[str, ...]]:
    """Read attribute and classes of a folder, without its weights.

    Raises ValueError as :func:`load_transformers_classifier` does.
    """
    folder = Path(folder)
    return _named(folder, _checked_config(folder))


def _named(folder: Path, config: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    names = {int(i): str(label) for i, label in config["id2label"].items()}
    return str(config.get(ATTRIBUTE_KEY) or folder.name), tuple(names[i] for i in range(len(names)))


def _checked_config(folder: Path) -> dict[str, Any]:
    name = folder.name
    if not is_classifier_folder(folder):
        raise ValueError(f"'{name}' has no config.json, so it is not a transformers model: choose a folder saved with save_pretrained.")
    config = _read_json(folder / "config.json")
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"'{name}' has no .safetensors weights, and no other format is loaded: convert it to safetensors first.")
    if "auto_map" in config:
        raise ValueError(f"'{name}' needs custom code (auto_map in config.json), which is never run: choose a model without custom code.")
    kinds = [str(a) for a in config.get("architectures") or []]
    if not any(k.endswith(("ForImageClassification", "ForImageClassificationWithTeacher")) for k in kinds):
        raise ValueError(
            f"'{name}' is a {', '.join(kinds) or 'model of unknown kind'}, and a ...ForImageClassification is needed: choose another."
        )
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise ValueError(f"'{name}' was trained for {problem}, where classes do not exclude each other: choose a single-label one.")
    labels = config.get("id2label")
    numbered = isinstance(labels, dict) and set(labels) == {str(i) for i in range(len(labels))}
    if not numbered or len(labels) < 2 or len({str(v) for v in labels.values()}) < len(labels):
        raise ValueError(f"'{name}' has no usable id2label in config.json: it must list different class names, numbered from 0.")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path.parent.name}/{path.name}' is not readable JSON ({error}): copy or download it again.") from error
    if not isinstance(value, dict):
        raise ValueError(f"'{path.parent.name}/{path.name}' is not a JSON object: copy or download it again.")
    return value
