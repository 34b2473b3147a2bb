"""Prepare the pictures of a feature set for a fit: latents in memory, and the conditionings that they were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ...methods.data.feature_set import Entry, FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.digests import module_mark, tensors_digest
from ..core.fit.session import encoded_prompts
from ..core.types import Clip, Conditioning, Model, Vae
from ..data.feature_sets import read_picture
from ..data.recording import conditioning_facts, weights_mark
from ..labels.classifier import HostClassifier

IMAGES = 2048
"""Largest number of images to learn from; of a larger set, as many at even distances."""
MEMORY = 2**31
"""Bytes that latents may take: fp32 if they fit, else fp16, else fewer images."""
CHUNK = 8


@dataclass(frozen=True)
class LearningInputs:
    """What a fit learns from: a model, and the labelled pictures of a feature set."""

    model: Model
    """MODEL that is learned for."""
    features: FeatureSet
    """Feature set with its pictures."""
    labels: LabelSet
    """Labels of the feature set."""
    vae: Vae
    """The model's own VAE."""
    classifier: HostClassifier | None = None
    """Judges predicted images; None learns by denoising alone."""
    positive: Conditioning = None
    """CONDITIONING of all pictures."""
    clip: Clip = None
    """Encodes the prompt of each picture; ``positive`` is then not used."""

    def check_conditioning(self) -> None:
        """Raise ValueError if there is neither a conditioning nor a text encoder."""
        if self.clip is None and self.positive is None:
            raise ValueError("the model needs a conditioning to denoise under: connect positive, or clip for the prompts of the set.")


@dataclass(frozen=True)
class LearningPictures:
    """Pictures of a feature set, as a fit uses them."""

    latents: Tensor
    """[N, C, H, W] on the CPU, in the model's own scale."""
    entries: list[int]
    """Index of each picture in the feature set."""
    conditionings: list[Any]
    """The different CONDITIONINGs."""
    conditioning_of: Tensor
    """Index of each picture's conditioning, int64 [N]."""
    note: str
    """Line for the report."""

    def facts(self, inputs: LearningInputs, labels: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what a fit on these pictures depends on, for its checkpoint."""
        tensors = {"which": self.conditioning_of, "places": torch.tensor(self.entries), **labels}
        return {
            "model": weights_mark(inputs.model),
            "files": tensors_digest(tensors),
            "latents": list(self.latents.shape),
            "vae": module_mark(inputs.vae.first_stage_model),
            "classifier": None if inputs.classifier is None else inputs.classifier.fingerprint(),
            "conditions": [conditioning_facts(c) for c in self.conditionings],
        }


def learning_pictures(inputs: LearningInputs) -> LearningPictures:
    """Encode the pictures of the most common size, and their prompts.

    Raises ValueError if a picture is missing or cannot be read; the host's exception if the user interrupts.
    """
    latents, entries, note = _latents(inputs)
    conditionings, conditioning_of = [inputs.positive], torch.zeros(len(entries), dtype=torch.long)
    if inputs.clip is not None:
        conditionings, conditioning_of = encoded_prompts(inputs.clip, [inputs.features.entries[i].prompt for i in entries])
    return LearningPictures(latents, entries, conditionings, conditioning_of, note)


def _latents(inputs: LearningInputs) -> tuple[Tensor, list[int], str]:
    """Return the latents, the index of each, and a line for the report."""
    model, vae, features = inputs.model, inputs.vae, inputs.features
    paths = [_path(features, e) for e in features.entries]
    chosen = even(range(len(paths)), IMAGES)
    sizes = [_size(paths[i]) for i in chosen]
    size = Counter(sizes).most_common(1)[0][0]
    same = [i for i, s in zip(chosen, sizes, strict=True) if s == size]
    each = vae.encode(read_picture(paths[same[0]])[None]).numel()
    dtype = torch.float32 if 4 * each * len(same) <= MEMORY else torch.float16
    same = even(same, max(CHUNK, MEMORY // (each * dtype.itemsize)))
    bar = comfy.utils.ProgressBar(len(same))
    parts: list[Tensor] = []
    for start in range(0, len(same), CHUNK):
        comfy.model_management.throw_exception_if_processing_interrupted()
        pictures = torch.stack([read_picture(paths[i]) for i in same[start : start + CHUNK]])
        parts.append(model.model.process_latent_in(vae.encode(pictures)).to("cpu", dtype))
        bar.update_absolute(start + len(pictures), len(same))
    with torch.inference_mode(False):
        latents = torch.cat(parts)
    left = len(paths) - len(same)
    note = f"; {left} other images of the set were not used (another size, or more than needed)" if left else ""
    return latents, same, f"{len(same)} images of {size[0]} x {size[1]} from '{features.name}'{note}"


def even(values: Sequence[int], count: int) -> list[int]:
    """Choose at most ``count`` of the values, at even distances."""
    if len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def _path(features: FeatureSet, entry: Entry) -> Path:
    path = features.image_path(entry)
    if not path.is_file():
        raise ValueError(
            f"the picture '{entry.file}' of the feature set '{features.name}' is missing, and the fit needs it: copy it back, or record "
            "the set again."
        )
    return path


def _size(path: Path) -> tuple[int, int]:
    """Return width and height, turned as the EXIF data say."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5
            return picture.size[::-1] if turned else picture.size
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"the picture '{path.name}' cannot be read ({error}): copy it back, or record the set again.") from error
