"""What a diffusion file says about itself beyond its weights: pixel format, image size, classes. No host is needed here."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...models.adm_unet import AdmConfig
from ..core.types import Conditioning

LABEL_KEY = "equipoise_class_label"
"""Key of a CONDITIONING entry's dictionary that holds (class index, number of classes of the model it was made for)."""

TEXT_FORMAT = "equipoise-text-diffusion"
"""Metadata "format" of the files of Load Quickstart Text Model, which stand in the same folder."""

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("eps", "v")
"""What the network states: the noise (guided-diffusion's models) or the velocity (Salimans & Ho 2022)."""


def is_text_model(metadata: Mapping[str, str]) -> bool:
    """Return whether a file belongs to Load Quickstart Text Model."""
    return metadata.get("format") == TEXT_FORMAT


@dataclass(frozen=True)
class AdmInfo:
    """Facts of one diffusion file."""

    name: str
    """Name of the file."""
    channels: int
    """Channels of a latent."""
    ratio: int
    """Side of the square of pixels that one latent position holds; 1: plain pixels."""
    image_size: int
    """Side of the images it was trained on, in pixels."""
    multiple: int
    """Number of pixels of which an image's sides are multiples."""
    schedule: str
    """Noise schedule."""
    prediction: str
    """What the network predicts."""
    num_classes: int | None
    """Number of classes; None for an unconditional model."""
    null_label: int | None
    """Class index that stands for no class; None if there is none."""
    class_names: tuple[str, ...]
    """Names of the classes."""
    base_model: str = ""
    """Name by which ADP files and the like state that they belong to it; empty if the file has none."""

    def class_index(self, text: str) -> int:
        """Return the index of a class by its name or number.

        Case does not matter. Raises ValueError, naming the known classes.
        """
        if self.num_classes is None:
            raise ValueError(f"'{self.name}' has no classes: leave out Class Label.")
        wanted = text.strip()
        folded = [n.casefold() for n in self.class_names]
        if wanted.casefold() in folded:
            return folded.index(wanted.casefold())
        if wanted.isdecimal() and int(wanted) < self.num_classes and int(wanted) != self.null_label:
            return int(wanted)
        close = difflib.get_close_matches(wanted.casefold(), folded, n=3)
        near = f" Did you mean {' or '.join(self.class_names[folded.index(c)] for c in close)}?" if close else ""
        raise ValueError(f"'{self.name}' has no class '{wanted}'. It knows {self._known()}.{near}")

    def _known(self) -> str:
        """List the names of the first 20 classes."""
        if self.class_names:
            shown = ", ".join(f"{i} = {n}" for i, n in enumerate(self.class_names[:20]))
            more = len(self.class_names) - 20
            return f"{shown} and {more} more" if more > 0 else shown
        last = (self.num_classes or 1) - 1
        if self.null_label is None:
            return f"the numbers 0 to {last} (its file names no classes)"
        if self.null_label == last:
            return f"the numbers 0 to {last - 1} (its file names no classes)"
        return f"the numbers 0 to {last} except {self.null_label}, the null label (its file names no classes)"


def read_info(name: str, config: AdmConfig, metadata: Mapping[str, str]) -> AdmInfo:
    """Read and check the metadata of a diffusion file.

    Raises ValueError where it contradicts the weights.
    """

    def whole_number(key: str, default: int) -> int:
        try:
            return int(metadata.get(key, default))
        except ValueError:
            raise ValueError(
                f"'{name}': its metadata '{key}' should be a whole number and is '{metadata[key]}': correct the file."
            ) from None

    ratio = whole_number("pixel_unshuffle", 1)
    if ratio < 1 or config.in_channels != 3 * ratio * ratio:
        raise ValueError(
            f"'{name}': a model of RGB images at pixel_unshuffle={ratio} has {3 * max(1, ratio) ** 2} input channels, and this one has "
            f"{config.in_channels}. Upsamplers, which read another image too, are not supported. If the pixels are packed in another way, "
            "write 'pixel_unshuffle' into the file's metadata."
        )
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise ValueError(
            f"'{name}': a diffusion model has {config.in_channels} or {2 * config.in_channels} output channels here, and this one has "
            f"{config.out_channels}: choose another file (this may be a noisy classifier)."
        )
    schedule = metadata.get("noise_schedule", "linear")
    if schedule not in SCHEDULES:
        raise ValueError(f"'{name}': its noise schedule is '{schedule}', and only {' and '.join(SCHEDULES)} are supported.")
    prediction = metadata.get("prediction", "eps")
    if prediction not in PREDICTIONS:
        raise ValueError(f"'{name}': its prediction is '{prediction}', and only {' and '.join(PREDICTIONS)} are supported.")
    if whole_number("diffusion_steps", 1000) != 1000:
        raise ValueError(f"'{name}' was trained with {metadata['diffusion_steps']} diffusion steps, and only 1000 are supported.")
    multiple = config.downscale * ratio
    # guided-diffusion has 4 levels at 64 pixels and one more for each doubling
    image_size = whole_number("image_size", 2 ** (config.levels + 2) * ratio)
    if image_size < multiple or image_size % multiple:
        raise ValueError(f"'{name}': its image_size {image_size} is not a multiple of {multiple}: correct the file's metadata.")
    null_label, names = None, ()
    if config.num_classes is not None:
        if "null_label" in metadata:
            null_label = whole_number("null_label", -1)
            if not 0 <= null_label < config.num_classes:
                raise ValueError(
                    f"'{name}': null_label {null_label} is not one of its {config.num_classes} labels: correct the file's metadata."
                )
        names = _class_names(name, metadata, config.num_classes)
    return AdmInfo(
        name=name,
        channels=config.in_channels,
        ratio=ratio,
        image_size=image_size,
        multiple=multiple,
        schedule=schedule,
        prediction=prediction,
        num_classes=config.num_classes,
        null_label=null_label,
        class_names=names,
        base_model=metadata.get("base_model", ""),
    )


def _class_names(name: str, metadata: Mapping[str, str], num_classes: int) -> tuple[str, ...]:
    text = metadata.get("class_names", "[]")
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(names) > num_classes:
        raise ValueError(
            f"'{name}': its metadata 'class_names' should be a JSON list of at most {num_classes} names and is {text[:80]}: "
            "correct the file."
        )
    return tuple(names)


def conditioning(info: AdmInfo, label: int | None) -> Conditioning:
    """Make a CONDITIONING with a class label, or without one (None).

    The text part is an empty stand-in, [1, 1, 1] of zeros.
    """
    extra = {} if label is None else {LABEL_KEY: (label, info.num_classes)}
    return [[torch.zeros(1, 1, 1), extra]]


def latent_size(info: AdmInfo, width: int, height: int) -> tuple[int, int]:
    """Return the (height, width) of the latent for a picture in pixels.

    0 stands for the model's own size. Raises ValueError with the nearest size.
    """
    sides = []
    for what, side in (("height", height), ("width", width)):
        side = side or info.image_size
        if side % info.multiple or side < info.multiple:
            near = max(info.multiple, math.floor(side / info.multiple + 0.5) * info.multiple)
            raise ValueError(
                f"'{info.name}' needs a {what} that is a multiple of {info.multiple}, and got {side}: "
                f"use {near}, or 0 for its own {info.image_size}."
            )
        sides.append(side // info.ratio)
    return sides[0], sides[1]
